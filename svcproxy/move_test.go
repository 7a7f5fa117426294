package svcproxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/announce"
	"github.com/portico-ingress/portico/svcproxy/handover"
	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// A node of these tests announces in a process of its own, which is this same program.
const announcerVar = "PORTICO_TEST_ANNOUNCER"

func TestMain(m *testing.M) {
	if text := os.Getenv(announcerVar); text != "" {
		if err := runAnnouncer(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// announcerConfig is what such a process is told when it starts. Afterwards each line that it
// reads is the name of a node that is labelled to announce nothing, if there is one, or with a "+" of the
// only one that has endpoints.
type announcerConfig struct {
	Node, Record string
	VIP          netip.Addr
	Local        bool
	Nodes        map[string][]netip.Addr
}

func runAnnouncer(text string) error {
	var c announcerConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	table, err := handover.New(handover.Config{Ring: announce.MaxRing})
	if err != nil {
		return err
	}
	defer table.Close()
	a, err := announce.New(announce.Config{
		Node: c.Node, Listen: netip.MustParseAddrPort("[::]:7947"), Key: []byte("0123456789abcdef"),
		Store: fileStore(c.Record), Handover: table,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop() // as a node that is stopped in order
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			a.Set(c.desired(in.Text()))
		}
	}()
	return a.Run(ctx)
}

func (c *announcerConfig) desired(line string) announce.Desired {
	only, restricted := strings.CutPrefix(line, "+")
	d := announce.Desired{Addresses: map[string]netip.Addr{}, NextHops: c.Nodes}
	claim := announce.Claim{Key: c.VIP, Local: c.Local}
	for name, addrs := range c.Nodes {
		d.Nodes = append(d.Nodes, announce.Node{Name: name, Excluded: name == line})
		d.Addresses[name] = addrs[0]
		if !restricted || name == only {
			claim.Serving = append(claim.Serving, name)
		}
	}
	d.Claims = map[netip.Addr]announce.Claim{c.VIP: claim}
	return d
}

// fileStore keeps a record in a file, of which the first line is the version.
type fileStore string

func (s fileStore) locked(f func(version int, body []byte) error) error {
	lock, err := os.OpenFile(string(s)+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	text, err := os.ReadFile(string(s))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	version, _ := strconv.Atoi(first)
	return f(version, []byte(rest))
}

func (s fileStore) Get(context.Context) (body []byte, version string, err error) {
	err = s.locked(func(v int, b []byte) error {
		if v > 0 {
			body, version = b, strconv.Itoa(v)
		}
		return nil
	})
	return body, version, err
}

func (s fileStore) Put(_ context.Context, body []byte, version string) (next string, err error) {
	err = s.locked(func(v int, _ []byte) error {
		if was, _ := strconv.Atoi(version); was != v {
			return announce.ErrRefused
		}
		next = strconv.Itoa(v + 1)
		return os.WriteFile(string(s), append([]byte(next+"\n"), body...), 0o600)
	})
	return next, err
}

// moving is a Service whose address two nodes hand to each other.
type moving struct {
	*world
	vip   netip.AddrPort
	stdin [2]io.WriteCloser
	run   [2]*os.Process
	kill  [2]func()
	ended [2]chan struct{}
	// record is what the nodes share.
	record fileStore
}

// newMoving starts both nodes. The Service has an endpoint on each.
func newMoving(t *testing.T, ipv6, local bool) *moving {
	t.Helper()
	m := &moving{world: newWorld(t, ipv6, "cluster-cidr $pods")}
	policy := "Cluster"
	if local {
		policy = "Local"
	}
	m.putServices(t, m.expand("metadata: {name: web}\nspec: {type: LoadBalancer, clusterIP: $vip1, externalTrafficPolicy: "+policy+
		", ports: [{port: 80}]}\nstatus: {loadBalancer: {ingress: [{ip: $lb1}]}}"))
	m.putEndpoints(t, "web 8080 pod0-0 pod1-0")
	m.sync(t)
	m.vip = netip.MustParseAddrPort(netJoin(m.expand("$lb1"), "80"))
	for _, h := range []*netlab.Host{m.Client, m.Nodes[0], m.Nodes[1]} {
		h.OnLink(t, netip.PrefixFrom(m.vip.Addr(), m.vip.Addr().BitLen()-8).Masked().String())
	}
	c := announcerConfig{Record: filepath.Join(t.TempDir(), "record"), VIP: m.vip.Addr(), Local: local, Nodes: map[string][]netip.Addr{}}
	for _, n := range m.Nodes {
		c.Nodes[n.Name] = []netip.Addr{n.IPv4, n.IPv6}
	}
	m.record = fileStore(c.Record)
	for i, n := range m.Nodes {
		c.Node = n.Name
		m.start(t, i, c)
	}
	return m
}

func (m *moving) start(t *testing.T, i int, c announcerConfig) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), announcerVar+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err == nil {
		m.Nodes[i].Do(t, func() { err = cmd.Start() }) // the process is where its parent's thread is
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	m.ended[i] = ended
	m.kill[i] = sync.OnceFunc(func() { _ = cmd.Process.Kill(); <-ended })
	t.Cleanup(m.kill[i])
	m.stdin[i], m.run[i] = in, cmd.Process
}

// standStill stops a node's program, which then does nothing, not even end; but not while it keeps the other
// from reading the record. goOn has it go on.
func (m *moving) standStill(t *testing.T, i int) (goOn func()) {
	t.Helper()
	if err := m.record.locked(func(int, []byte) error { return m.run[i].Signal(unix.SIGSTOP) }); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := m.run[i].Signal(unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}
}

// owner waits until the client sends to the node that has the address if nothing is against either.
func (m *moving) owner(t *testing.T) int {
	t.Helper()
	m.tell(t, "")
	first, _ := announce.Claim{Key: m.vip.Addr()}.Owner([]announce.Node{{Name: "node0", Alive: true}, {Name: "node1", Alive: true}})
	i := map[string]int{"node0": 0, "node1": 1}[first]
	m.arrives(t, i)
	return i
}

// moveTo labels the other node, and waits until the client sends to this one.
func (m *moving) moveTo(t *testing.T, i int) {
	t.Helper()
	m.tell(t, m.Nodes[1-i].Name)
	m.arrives(t, i)
}

// moveEndpoint replaces the only endpoint by one on another node, as an update of a Deployment does: the old one
// ends when the new one is ready.
func (m *moving) moveEndpoint(t *testing.T, i int) {
	t.Helper()
	m.putEndpoints(t, fmt.Sprintf("web 8080 pod%d-0,terminating pod%d-0", 1-i, i))
	m.sync(t)
	m.tell(t, "+"+m.Nodes[i].Name)
	m.arrives(t, i)
	m.putEndpoints(t, fmt.Sprintf("web 8080 pod%d-0", i))
	m.sync(t)
}

// taken says whether a node was followed because it was not heard, which the record counts.
func (m *moving) taken(t *testing.T) bool {
	t.Helper()
	body, _, err := m.record.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Nodes map[string]struct{ Term uint64 }
	}
	if err := json.Unmarshal(body, &r); err != nil || len(r.Nodes) != 2 {
		t.Fatalf("%v: %s", err, body)
	}
	return r.Nodes["node0"].Term+r.Nodes["node1"].Term > 0
}

// tell says a line to both announcers.
func (m *moving) tell(t *testing.T, line string) {
	t.Helper()
	for _, in := range m.stdin {
		if _, err := fmt.Fprintln(in, line); err != nil {
			t.Fatal(err)
		}
	}
}

// arrives waits until the client sends to a node.
func (m *moving) arrives(t *testing.T, i int) {
	t.Helper()
	want := m.Nodes[i].MAC(t).String()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if m.Client.Neighbour(t, m.vip.Addr()).String() == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the client does not send to %s", m.Nodes[i].Name)
		}
		if m.Client.Neighbour(t, m.vip.Addr()) == nil {
			_, _ = m.Client.Ask(t, "tcp", m.vip)
		}
	}
}

// open makes a connection that has been used.
func (m *moving) open(t *testing.T) net.Conn {
	t.Helper()
	c, err := m.Client.Dial(t, "tcp", netip.AddrPort{}, m.vip, 10*time.Second)
	if err == nil {
		_, err = netlab.Talk(c, 10*time.Second)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// talkers are what clients do while an address moves.
type talkers struct {
	all              sync.WaitGroup
	made, failed     atomic.Int64
	longest          atomic.Int64 // nanoseconds from connect to answer
	broken, exchange atomic.Int64
}

// newConnections makes one after the other, each with a question and an answer.
func (k *talkers) newConnections(ctx context.Context, t *testing.T, m *moving) {
	t.Helper()
	for ctx.Err() == nil {
		began := time.Now()
		_, err := m.Client.AskPatiently(t, "tcp", m.vip)
		k.made.Add(1)
		if err != nil {
			k.failed.Add(1)
			t.Logf("a new connection: %v after %v", err, time.Since(began))
		}
		k.longest.Store(max(k.longest.Load(), int64(time.Since(began))))
	}
}

// keepTalking uses one connection for as long as it lasts; a question every pause.
func (k *talkers) keepTalking(ctx context.Context, t *testing.T, c net.Conn, pause time.Duration) {
	t.Helper()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := netlab.Talk(c, 10*time.Second); err != nil {
			k.broken.Add(1)
			t.Logf("a busy connection, after %d exchanges of all: %v", k.exchange.Load(), err)
			return
		}
		k.exchange.Add(1)
	}
}

const moves, longLived = 20, 8

// An address that is moved in a planned way, 20 times, breaks no connection: neither a new one nor one that
// is open, be it busy or quiet.
func TestPlannedMove(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		for _, local := range []bool{false, true} {
			name := familyName(ipv6) + map[bool]string{false: "/Cluster", true: "/Local"}[local]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				testMoves(t, func() (*moving, func(*testing.T, int)) {
					m := newMoving(t, ipv6, local)
					return m, m.moveTo
				})
			})
		}
	}
}

// The same where the only endpoint moves and the policy is Local, so that the address has to follow it.
func TestMoveWithEndpoint(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			testMoves(t, func() (*moving, func(*testing.T, int)) {
				m := newMoving(t, ipv6, true)
				return m, m.moveEndpoint
			})
		})
	}
}

// tries is how often a test begins again because the machine stood still, and something else happened than
// what it is about.
const tries = 5

// testMoves moves an address to and fro between nodes that it makes itself.
func testMoves(t *testing.T, newNodes func() (*moving, func(*testing.T, int))) {
	t.Helper()
	for range tries {
		m, move := newNodes()
		move(t, 0)
		broken := m.moves(t, move)
		switch taken := m.taken(t); {
		case !broken:
			return
		case !taken:
			t.Error("connections failed")
			return
		}
		t.Log("again: a node stood still for so long that the other took the address from it, which was not planned")
		for _, kill := range m.kill {
			kill()
		}
	}
	t.Errorf("a node stood still in each of %d tries", tries)
}

// moves moves the address to and fro among clients, and says whether a connection of theirs failed.
func (m *moving) moves(t *testing.T, move func(*testing.T, int)) (broken bool) {
	t.Helper()
	var k talkers
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	k.all.Go(func() { k.newConnections(ctx, t, m) })
	var quiet []net.Conn
	began := time.Now()
	for i := range moves {
		if i < longLived { // each begun at the node that is the owner then
			busy := m.open(t)
			k.all.Go(func() { k.keepTalking(ctx, t, busy, 20*time.Millisecond) })
			quiet = append(quiet, m.open(t))
		}
		move(t, 1-i%2)
	}
	took := time.Since(began)
	lost := 0
	for _, c := range quiet {
		if _, err := netlab.Talk(c, 10*time.Second); err != nil {
			lost++
			t.Logf("a quiet connection: %v", err)
		}
	}
	stop()
	k.all.Wait()
	t.Logf("%d moves in %v: %d new connections, %d failed, longest %v; %d busy ones with %d exchanges, %d broken; %d quiet ones, %d broken",
		moves, took.Round(time.Millisecond), k.made.Load(), k.failed.Load(), time.Duration(k.longest.Load()).Round(time.Millisecond),
		longLived, k.exchange.Load(), k.broken.Load(), len(quiet), lost)
	return k.failed.Load() > 0 || k.broken.Load() > 0 || lost > 0
}

// A node whose program, or all of it, stands still for so long that its address is taken from it serves
// its connections on.
func TestStandingStill(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			for range tries {
				if m := newMoving(t, ipv6, true); m.standsStill(t) {
					return
				}
				t.Log("again: it stood still for longer than it should")
			}
			t.Errorf("it stood still for longer than it should in each of %d tries", tries)
		})
	}
}

// standsStill is false if it took too long to say anything about it.
func (m *moving) standsStill(t *testing.T) bool {
	t.Helper()
	owner := m.owner(t)
	busy, quiet := m.open(t), m.open(t)
	var k talkers
	ctx, stop := context.WithCancel(t.Context())
	k.all.Go(func() { k.keepTalking(ctx, t, busy, 20*time.Millisecond) })
	began, goOn := time.Now(), m.standStill(t, owner)
	m.arrives(t, 1-owner)
	_, err := netlab.Talk(quiet, 10*time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := k.exchange.Load(); k.exchange.Load() < n+5 && k.broken.Load() == 0; {
		<-tick.C
	}
	goOn()
	took := time.Since(began)
	stop()
	k.all.Wait()
	switch {
	case took > 4*time.Second: // so much of the time for which it is believed
		return false
	case err != nil || k.broken.Load() > 0 || !m.taken(t):
		t.Errorf("after %v: quiet: %v, busy: %d broken", took, err, k.broken.Load())
	}
	return true
}

// A node whose program is stopped in order, as in an update, ends, and serves its connections on; and no new connection fails.
func TestStoppedInOrder(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			for range tries {
				m := newMoving(t, ipv6, true)
				if broken := m.stopsInOrder(t); !broken {
					return
				}
				if !m.taken(t) {
					t.Error("connections failed")
					return
				}
				t.Log("again: a node stood still for so long that the other took the address from it, which was not planned")
				for _, kill := range m.kill {
					kill()
				}
			}
			t.Errorf("a node stood still in each of %d tries", tries)
		})
	}
}

// stopsInOrder stops the program that has the address, and says whether a connection failed of that.
func (m *moving) stopsInOrder(t *testing.T) (broken bool) {
	t.Helper()
	owner := m.owner(t)
	var k talkers
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	quiet, busy := m.open(t), m.open(t)
	k.all.Go(func() { k.newConnections(ctx, t, m) })
	k.all.Go(func() { k.keepTalking(ctx, t, busy, 20*time.Millisecond) })
	if err := m.stdin[owner].Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.ended[owner]:
	case <-time.After(30 * time.Second):
		t.Error("a program that was stopped does not end")
	}
	m.arrives(t, 1-owner)
	_, err := netlab.Talk(quiet, 10*time.Second)
	stop()
	k.all.Wait()
	t.Logf("%d new connections, %d failed; %d exchanges, %d broken; the quiet one: %v", k.made.Load(), k.failed.Load(), k.exchange.Load(), k.broken.Load(), err)
	return k.failed.Load() > 0 || k.broken.Load() > 0 || err != nil
}

// A node whose program is stopped in order while it hears no other, as on a busy machine, serves its connections on, too.
func TestStoppedUnheard(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			for range tries {
				if m := newMoving(t, ipv6, true); m.stopsUnheard(t) {
					return
				}
				t.Log("again: it took longer than the stopped one is believed to live")
			}
			t.Errorf("it took too long in each of %d tries", tries)
		})
	}
}

// stopsUnheard is false if it took too long to say anything about it.
func (m *moving) stopsUnheard(t *testing.T) bool {
	t.Helper()
	owner := m.owner(t)
	c := m.open(t)
	began, goOn := time.Now(), m.standStill(t, 1-owner)
	<-time.After(time.Second) // it counts as dead before
	if err := m.stdin[owner].Close(); err != nil {
		t.Fatal(err)
	}
	<-m.ended[owner]
	goOn()
	m.arrives(t, 1-owner)
	took := time.Since(began)
	_, err := netlab.Talk(c, 10*time.Second)
	if took > 4*time.Second {
		return false
	}
	if err != nil {
		t.Errorf("after %v: %v", took, err)
	}
	return true
}

// Connections of a node that is dead, and those that no node knows, end with a reset, and not with silence.
func TestMovedAwayAndDead(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			m := newMoving(t, ipv6, true)
			m.moveTo(t, 0)
			talking, closing := m.open(t), m.open(t)
			m.moveTo(t, 1)
			for _, c := range []net.Conn{talking, closing} {
				if _, err := netlab.Talk(c, 10*time.Second); err != nil {
					t.Fatal(err)
				}
			}
			m.Nodes[0].Unplug(t)
			m.kill[0]()
			if _, err := netlab.Talk(talking, time.Minute); !errors.Is(err, netlab.ErrRefused) {
				t.Errorf("a question: %v", err)
			}
			// Of a FIN connection tracking makes nothing.
			if err := closing.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			_ = closing.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := closing.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("half a close: %v", err)
			}
			if _, err := m.Client.AskPatiently(t, "tcp", m.vip); err != nil {
				t.Errorf("a new connection: %v", err)
			}
		})
	}
}

// A segment of a connection that neither node knows goes round once, and is answered by a reset.
func TestStrayAfterMove(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			m := newMoving(t, ipv6, false)
			m.moveTo(t, 0)
			m.moveTo(t, 1)
			m.moveTo(t, 0)
			listening, sending := rawTCP(t, m.Client, ipv6), rawTCP(t, m.Client, ipv6)
			from := netip.AddrPortFrom(m.Client.Addr(ipv6), 54321)
			if err := unix.Sendto(sending, strangeSegment(from, m.vip), 0, sockaddr(m.vip.Addr())); err != nil {
				t.Fatal(err)
			}
			if !hears(t, listening, m.vip.Addr()) {
				t.Error("no reset")
			}
		})
	}
}
