package announce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// apiServer is what the nodes of a test have in common: a record, behind a socket that all
// network namespaces see.
type apiServer struct {
	path string

	mu      sync.Mutex
	body    []byte
	version int
	away    bool
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{path: filepath.Join(t.TempDir(), "api")}
	listener, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	return s
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.away:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case r.Method == http.MethodGet:
		w.Header().Set("Version", strconv.Itoa(s.version))
		_, _ = w.Write(s.body)
		return
	case r.Header.Get("Version") != strconv.Itoa(s.version):
		w.WriteHeader(http.StatusConflict)
		return
	}
	s.version++
	s.body = body
	w.Header().Set("Version", strconv.Itoa(s.version))
}

func (s *apiServer) set(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// holder is the node that the record gives an address to.
func (s *apiServer) holder(addr string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := parseRecord(s.body)
	return r.grants[netip.MustParseAddr(addr)].holder
}

// testStore is a node's way to the apiServer.
type testStore struct{ http.Client }

func newTestStore(path string) *testStore {
	return &testStore{http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}}
}

func (s *testStore) do(ctx context.Context, method, version string, body []byte) ([]byte, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://api/", bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	r.Header.Set("Version", version)
	answer, err := s.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	switch answer.StatusCode {
	case http.StatusOK:
		return got, answer.Header.Get("Version"), err
	case http.StatusConflict:
		return nil, "", ErrRefused
	}
	return nil, "", errors.New(answer.Status)
}

func (s *testStore) Get(ctx context.Context) ([]byte, string, error) {
	return s.do(ctx, http.MethodGet, "", nil)
}

func (s *testStore) Put(ctx context.Context, body []byte, version string) (string, error) {
	_, v, err := s.do(ctx, http.MethodPut, version, body)
	return v, err
}

// childAnnouncer is an Announcer as a process of a test has it.
type childAnnouncer struct {
	Node, API string
	VIPs      []string
	Nodes     map[string]string
}

func (c *childAnnouncer) run(ctx context.Context, says chan<- childEvent) error {
	a, err := New(Config{
		Node: c.Node, Listen: netip.MustParseAddrPort("[::]:7946"), Key: []byte("0123456789abcdef"),
		Store: newTestStore(c.API), Events: func(e Event) { says <- childEvent{Event: &e} },
	})
	if err != nil {
		return err
	}
	d := Desired{Claims: map[netip.Addr]Claim{}, Addresses: map[string]netip.Addr{}}
	for _, v := range c.VIPs {
		d.Claims[netip.MustParseAddr(v)] = Claim{Key: netip.MustParseAddr(c.VIPs[0]), Serving: []string{"node1"}}
	}
	for name, addr := range c.Nodes {
		d.Nodes = append(d.Nodes, Node{Name: name})
		d.Addresses[name] = netip.MustParseAddr(addr)
	}
	a.Set(d)
	return a.Run(ctx)
}

// childDataPlane is what stands for a node's data plane: it takes what is sent to the addresses, whoever announces them. It
// is a process of its own, because a kernel works on when the announcer has ended.
type childDataPlane struct {
	Node string
	VIPs []string
}

func (p *childDataPlane) run(ctx context.Context, says chan<- childEvent) error {
	for _, vip := range p.VIPs {
		listener, err := net.Listen("tcp", net.JoinHostPort(vip, "80"))
		if err != nil {
			return err
		}
		go answerTCP(listener, p.Node)
	}
	says <- childEvent{Ready: true}
	<-ctx.Done()
	return nil
}

// answerTCP tells every connection which node it has reached.
func answerTCP(listener net.Listener, name string) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, name)
		c.Close()
	}
}

// cluster is a LAN with nodes that announce, and a client.
type cluster struct {
	*lan
	api   *apiServer
	names map[string]string
	nodes map[string]*node
}

func newCluster(t *testing.T, size int) *cluster {
	t.Helper()
	c := &cluster{lan: newLAN(t), api: newAPIServer(t), names: map[string]string{}, nodes: map[string]*node{}}
	for i := 1; i <= size; i++ {
		name := fmt.Sprintf("node%d", i)
		c.host(name, i)
		c.names[name] = fmt.Sprintf("198.51.100.%d", i)
		// The address stands for the data plane. The kernel does not answer for it: it is on lo.
		c.run("ip", "netns", "exec", c.name(name), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore")
		c.ip(name, "addr add "+lanVIP4+"/32 dev lo")
		c.ip(name, "addr add "+lanVIP6+"/128 dev lo nodad")
		c.node(name, childConfig{DataPlane: &childDataPlane{Node: name, VIPs: bothVIPs}}).said("that it serves", func(e childEvent) bool { return e.Ready })
	}
	c.host("client", 9)
	for name := range c.names {
		c.start(name)
	}
	return c
}

func (c *cluster) start(name string) {
	c.t.Helper()
	c.nodes[name] = c.node(name, childConfig{Announcer: &childAnnouncer{Node: name, API: c.api.path, VIPs: bothVIPs, Nodes: c.names}})
}

// dial makes one connection from the client and says which node took it: nobody, if the address
// moved while the connection was open. Such a one breaks, because the new node does not know it: nobody hands it over
// here. On a busy machine that may be before Dial looks: the old node's SYN and ACK made the connection (a reset
// is ECONNREFUSED before them, ECONNRESET after, and EPIPE after the old node's last word), and the new node got the client's ACK.
func (c *cluster) dial(vip string, patience time.Duration) (string, error) {
	var name string
	err := c.in("client", func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(vip, "80"), patience)
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return nil
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		b, _ := io.ReadAll(conn)
		name = string(b)
		return nil
	})
	return name, err
}

const (
	// impatient is for a node that is dead: the client is not to wait for its kernel's second try.
	impatient = 150 * time.Millisecond
	// patient is what clients are.
	patient = 5 * time.Second
)

// reaches connects until want takes the connection, and gives the longest time in which none
// was made and how many failed.
func (c *cluster) reaches(vip, want string, patience time.Duration) (gap time.Duration, failed int) {
	c.t.Helper()
	last := time.Now()
	for deadline := last.Add(20 * time.Second); time.Now().Before(deadline); {
		name, err := c.dial(vip, patience)
		if err != nil {
			failed++
			c.t.Logf("%v; the client has %s", err, c.neighbour("client", vip))
			continue
		}
		gap = max(gap, time.Since(last))
		last = time.Now()
		if name == want {
			return gap, failed
		}
	}
	c.t.Fatalf("%s does not lead to %s; the record is %s; the client has %s", vip, want, c.api.body, c.neighbour("client", vip))
	return 0, 0
}

// owner waits until the address has come to its owner, and gives the other node as well.
func (c *cluster) owner() (string, string) {
	c.t.Helper()
	owner, _ := Claim{Key: netip.MustParseAddr(lanVIP4)}.Owner([]Node{{Name: "node1", Alive: true}, {Name: "node2", Alive: true}})
	other := map[string]string{"node1": "node2", "node2": "node1"}[owner]
	eventually(c.t, func() (string, bool) {
		return "the address does not come to " + owner, c.api.holder(lanVIP4) == owner && c.api.votersOf(other) == 2
	})
	return owner, other
}

// A node that is switched off is followed by another, with both addresses of the Service, and
// clients that know the old one are moved.
func TestAnnouncerFailover(t *testing.T) {
	c := newCluster(t, 2)
	owner, other := c.owner()
	c.undisturbed(func() string { return c.failOver(owner, other) })
}

// undisturbed tries what clients must see nothing of until no node stands still meanwhile for as long as
// one that is dead.
func (c *cluster) undisturbed(try func() (wrong string)) {
	c.t.Helper()
	var wrong string
	for range 3 {
		if wrong = try(); wrong == "" {
			return
		}
		c.t.Log(wrong)
	}
	c.t.Error(wrong)
}

// failOver switches a node off and on, and says what clients saw too much of it.
func (c *cluster) failOver(owner, other string) (wrong string) {
	c.t.Helper()
	for _, vip := range bothVIPs {
		c.reaches(vip, owner, patient)
	}
	cable := map[string]string{"node1": "p1", "node2": "p2"}[owner]
	began := time.Now()
	c.ip("switch", "link set "+cable+" down")
	c.nodes[owner].kill()
	gap, failed := c.reaches(lanVIP4, other, impatient)
	took := time.Since(began)
	c.t.Logf("IPv4: %v from power off to the next connection (gap %v, %d attempts of 150 ms failed)", took, gap, failed)
	c.reaches(lanVIP6, other, patient)

	// It comes back, and gets back what is its own, without a failed connection.
	c.ip("switch", "link set "+cable+" up")
	c.resolves(owner, "198.51.100.9", "02:00:00:00:00:09") // the kernel is ready for it
	c.resolves("client", c.names[owner], fmt.Sprintf("02:00:00:00:00:0%c", owner[4]))
	c.start(owner)
	gap, failed = c.reaches(lanVIP4, owner, patient)
	c.t.Logf("back: gap %v, %d failed", gap, failed)
	switch {
	case took > 4*time.Second:
		return fmt.Sprintf("took %v", took)
	case failed > 0:
		return fmt.Sprintf("%d connections failed in a planned move", failed)
	}
	return ""
}

func (s *apiServer) votersOf(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := parseRecord(s.body)
	return len(r.nodes[name].Voters)
}

// A node that is stopped in order gives its addresses away before it goes, and no new connection fails. Then it ends.
func TestAnnouncerStops(t *testing.T) {
	c := newCluster(t, 2)
	c.undisturbed(c.stops)
}

// stops ends the owner in order, has it come back if clients saw something of that, and says what.
func (c *cluster) stops() (wrong string) {
	c.t.Helper()
	owner, other := c.owner()
	for _, vip := range bothVIPs {
		c.reaches(vip, owner, patient)
	}
	c.nodes[owner].stop()
	for _, vip := range bothVIPs {
		if gap, failed := c.reaches(vip, other, patient); failed > 0 {
			wrong = fmt.Sprintf("%s: %d connections failed, gap %v", vip, failed, gap)
		}
	}
	if got := c.api.holder(lanVIP4); got != other {
		c.t.Errorf("the record still says %s", got)
	}
	c.nodes[owner].ended()
	if wrong != "" {
		c.start(owner)
	}
	return wrong
}

// Without the API server everything stays as it is.
func TestAnnouncerWithoutAPI(t *testing.T) {
	c := newCluster(t, 2)
	owner, _ := c.owner()
	c.reaches(lanVIP4, owner, patient)
	c.api.set(true)
	for end := time.Now().Add(4 * evidenceFor); time.Now().Before(end); {
		c.ip("client", "neigh flush all")
		c.reaches(lanVIP4, owner, patient)
		c.reaches(lanVIP6, owner, patient)
	}
}

// Without an address in the cluster the clock is looked at with each heartbeat; as soon as there is one, every tickEvery.
func TestAnnouncerRestsWithoutAddresses(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		do   func(*Fence)
		rest bool
	}{
		{"nothing is known yet", func(f *Fence) { f.known = false }, false},
		{"no address", func(*Fence) {}, true},
		{"one is wanted", func(f *Fence) { f.Set(map[netip.Addr]Claim{netip.MustParseAddr("192.0.2.1"): {}}, nil) }, false},
		{"one is given out", func(f *Fence) { f.record.grants = map[netip.Addr]grant{netip.MustParseAddr("192.0.2.1"): {}} }, false},
		{"a change may be on its way", func(f *Fence) { f.undecided = &record{} }, false},
		{"the node stops", (*Fence).Stop, false},
	} {
		a := &Announcer{fence: NewFence("a", 1)}
		a.fence.known = true
		c.do(a.fence)
		for sent, want := range map[time.Duration]time.Duration{0: beatEvery, 30 * ms: beatEvery - 30*ms, beatEvery - ms: tickEvery, beatEvery + ms: tickEvery} {
			if !c.rest {
				want = tickEvery
			}
			if got := a.nextTick(sent); got != want {
				t.Errorf("%s, heartbeats sent %v ago: %v, want %v", c.name, sent, got, want)
			}
		}
	}
}
