package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var anywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// newPlane makes a Plane in a namespace.
func newPlane(t testing.TB, h *netlab.Host, cfg Config) *Plane {
	t.Helper()
	var p *Plane
	var err error
	h.Do(t, func() { p, err = New(cfg) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// start runs a Plane until the test ends.
func start(t testing.TB, p *Plane) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func apply(t testing.TB, p *Plane, c Changes) {
	t.Helper()
	if err := p.Apply(c); err != nil {
		t.Fatal(err)
	}
}

// servers is a lab whose Pods answer, and a Service of TCP and UDP with an address, a NodePort and
// affinity on another port.
func servers(t testing.TB) (l *netlab.Lab, all []*Service) {
	t.Helper()
	l = netlab.New(t, 2)
	for _, pods := range l.Pods {
		for _, p := range pods {
			p.Serve(t, 8080)
		}
	}
	return l, steadyServices()
}

func steadyServices() []*Service {
	return []*Service{
		tcpService("10.180.0.10:8080", "10.180.0.11:8080"),
		{
			Name: "udp", Protocol: 17, Cluster: []netip.AddrPort{ap("10.180.0.10:8080")},
			Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 80, Kind: External}, {Port: 30080, Kind: External}},
		},
		{
			Name: "affine", Protocol: 6, Affinity: time.Hour, Cluster: []netip.AddrPort{ap("10.180.0.10:8080"), ap("10.180.0.11:8080")},
			Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 81, Kind: External}},
		},
		{
			Name: "restricted", Protocol: 6, Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.2"), Port: 81, Kind: Reject, Restricted: true}},
		},
		{
			Name: "six", Protocol: 6, IPv6: true, Cluster: []netip.AddrPort{ap("[fd00:180::10]:8080")},
			Frontends: []Frontend{{Addr: netip.MustParseAddr("fd00:30::1"), Port: 80, Kind: External}},
		},
	}
}

func tcpService(endpoints ...string) *Service {
	s := &Service{
		Name: "tcp", Protocol: 6, OnNode: []netip.Addr{netip.MustParseAddr("10.180.0.10")},
		ClusterIPs: []netip.Addr{netip.MustParseAddr("172.30.0.1")},
		Frontends:  []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 80, Kind: External}, {Port: 30080, Kind: External}},
	}
	for _, e := range endpoints {
		s.Cluster = append(s.Cluster, ap(e))
	}
	return s
}

var node = &Node{NodePorts: anywhere, Unmasqueraded: anywhere, Pods: []netip.Prefix{netip.MustParsePrefix("10.180.0.0/16")}}

// works asks the Service from outside.
func works(t testing.TB, l *netlab.Lab) {
	t.Helper()
	for _, q := range []struct{ network, to string }{
		{"tcp", "172.30.0.1:80"},
		{"udp", "172.30.0.1:80"},
		{"tcp", "192.168.0.10:30080"},
		{"tcp", "172.30.0.1:81"},
		{"tcp", "[fd00:30::1]:80"},
	} {
		if _, err := l.Client.AskPatiently(t, q.network, ap(q.to)); err != nil {
			t.Errorf("%s %s: %v", q.network, q.to, err)
		}
	}
}

// read gives what the kernel has, in text.
func read(t testing.TB, p *Plane) []string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	have, err := p.readElements(p.table)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for k, v := range have {
		all = append(all, fmt.Sprintf("%s %x-%x %v %x", sets[k.set].name, k.key, k.end, k.intervalEnd, v))
	}
	slices.Sort(all)
	return all
}

// foreign runs the nft program in a namespace: somebody else.
func foreign(t testing.TB, h *netlab.Host, args ...string) string {
	t.Helper()
	var out []byte
	var err error
	h.Do(t, func() { out, err = exec.Command("nft", args...).CombinedOutput() })
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

// whole tells whether all rules of the live table are as they should be.
func whole(t testing.TB, p *Plane) bool {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	live, err := p.readTable(p.table)
	if err != nil {
		t.Fatal(err)
	}
	return live != nil && live.intact()
}

// Only what is marked takes reading the whole kernel.
func TestForeignDamageIsRepaired(t *testing.T) {
	for damage, all := range map[string]bool{
		"flush ruleset":                                             true,
		"delete table inet portico-a":                               true,
		"add table inet portico-a { flags dormant; }":               true,
		"add table inet portico-b":                                  true,
		"flush table inet portico-a":                                false,
		"flush chain inet portico-a translate4":                     false,
		"insert rule inet portico-a nat-prerouting counter":         false,
		"add rule inet portico-a filter-forward counter":            false,
		"delete chain inet portico-a nat-output":                    false,
		"add chain inet portico-a filter-forward { policy drop ; }": false,
		"add chain inet portico-a c { counter ; }":                  false,
		"add chain inet portico-a filter-input { type filter hook input priority 0 ; policy drop ; }":            false,
		"add element inet portico-a services4 { * : 0x0 . 0x18000000 }":                                          false,
		"add element inet portico-a services4 { 10.9.9.9 . tcp . 80 : 0x0 . 0x08000000 }":                        false,
		"add element inet portico-a services6 { fd00::9 . udp . 80 : 0x0 . 0x18000000 }":                         false,
		"add element inet portico-a nodeports4 { tcp . 31999 : 0x0 . 0x08000000 }":                               false,
		"add element inet portico-a decisions4 { * : drop }":                                                     false,
		"add element inet portico-a endpoints6 { * : fd00::1 . 80 }":                                             false,
		"add element inet portico-a cluster-ips4 { * }":                                                          false,
		"add element inet portico-a affinities4 { * : 0x0 . 0x1 }":                                               false,
		"flush map inet portico-a endpoints4":                                                                    false,
		"flush map inet portico-a services6":                                                                     false,
		"flush map inet portico-a members4":                                                                      false,
		"flush map inet portico-a pick-cluster4":                                                                 false,
		"flush map inet portico-a decisions4":                                                                    false,
		"flush map inet portico-a pick-local6":                                                                   false,
		"flush set inet portico-a cluster-ips4":                                                                  false,
		"flush set inet portico-a nodeport-addresses4":                                                           false,
		"flush set inet portico-a sources4":                                                                      false,
		"delete element inet portico-a pods4 { 10.180.0.0/16 }":                                                  false,
		"add element inet portico-a pods4 { 203.0.113.0/24 }":                                                    false,
		"delete element inet portico-a backends4 { 172.30.0.1 . tcp . 80 }":                                      false,
		"delete element inet portico-a nodeports4 { udp . 30080 }":                                               false,
		"add element inet portico-a cluster-ips4 { 10.180.0.10 }":                                                false,
		"add element inet portico-a endpoints4 { 4096 . 7 : 10.180.0.10 . 8080 }":                                false,
		"flush map inet portico-a endpoints4; add element inet portico-a endpoints4 { 2 . 0 : 10.180.0.99 . 9 }": false,
		"flush chain inet portico-a decide4; flush map inet portico-a decisions4; flush map inet portico-a services4; flush set inet portico-a hairpins4": false,
	} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			l, served := servers(t)
			p := newPlane(t, l.Nodes[0], Config{Log: zaptest.NewLogger(t)})
			start(t, p)
			apply(t, p, Changes{Complete: true, Put: served, Node: node})
			works(t, l)
			want := read(t, p)
			before := p.Stats()
			foreign(t, l.Nodes[0], damage)
			began := time.Now()
			for s := p.Stats(); s.Readings == before.Readings && s.Repairs == before.Repairs; s = p.Stats() {
				if time.Since(began) > 10*time.Second {
					t.Fatal("not repaired")
				}
				time.Sleep(time.Millisecond)
			}
			for got := read(t, p); !whole(t, p) || !slices.Equal(got, want); got = read(t, p) {
				if time.Since(began) > 10*time.Second {
					t.Fatalf("rules whole: %v; the kernel has\n%s\nwant\n%s", whole(t, p), strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				time.Sleep(time.Millisecond)
			}
			works(t, l)
			if s := p.Stats(); s.Readings > before.Readings && !all {
				t.Errorf("all of the kernel was read: %+v", s)
			}
		})
	}
}

// An element that is found where nothing else is has no key, and goes when a process starts, too.
func TestCatchAllIsRemovedAtStart(t *testing.T) {
	l, all := servers(t)
	n := l.Nodes[0]
	first := newPlane(t, n, Config{})
	apply(t, first, Changes{Complete: true, Put: all, Node: node})
	want := read(t, first)
	for _, e := range []string{"services4 { * : 0x0 . 0x18000000 }", "pick-cluster4 { * : goto dropped }", "affinities4 { * : 0x0 . 0x1 }", "cluster-ips6 { * }"} {
		foreign(t, n, "add element inet portico-a "+e)
	}
	if s := lookAt(t, n); !strings.Contains(s.Damage(), "somebody has added an element for everything") {
		t.Errorf("Damage is %q", s.Damage())
	}
	second := newPlane(t, n, Config{})
	apply(t, second, Changes{Complete: true, Put: all, Node: node})
	if s := second.Stats(); s.Drift != 4 || s.Rebuilds != 0 {
		t.Errorf("%+v", s)
	}
	if got := read(t, second); !slices.Equal(got, want) {
		t.Errorf("the kernel has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if d := lookAt(t, n).Damage(); d != "" {
		t.Error(d)
	}
	works(t, l)
}

func lookAt(t *testing.T, h *netlab.Host) (s *Snapshot) {
	t.Helper()
	var err error
	h.Do(t, func() { s, err = Look() })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What others do to their own tables is none of our business.
func TestOthersAreLeftAlone(t *testing.T) {
	l, all := servers(t)
	n := l.Nodes[0]
	foreign(t, n, "add table ip kube-proxy")
	foreign(t, n, "add chain ip kube-proxy c { type nat hook prerouting priority -100; }")
	before := foreign(t, n, "list ruleset")
	p := newPlane(t, n, Config{})
	start(t, p)
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	foreign(t, n, "add rule ip kube-proxy c counter")
	foreign(t, n, "flush chain ip kube-proxy c")
	works(t, l)
	if s := p.Stats(); s.Rebuilds != 1 || s.Repairs != 0 {
		t.Errorf("after a change to another table: %+v", s)
	}
	if err := p.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if after := foreign(t, n, "list ruleset"); after != before {
		t.Errorf("after Cleanup there is\n%s\nbefore there was\n%s", after, before)
	}
}

// Tables that have one of our names and are not ours are not touched.
func TestForeignTableWithOurName(t *testing.T) {
	l, all := servers(t)
	n := l.Nodes[0]
	foreign(t, n, "add table inet portico-a { comment \"mine\"; }")
	p := newPlane(t, n, Config{})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	works(t, l)
	if err := p.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if got := foreign(t, n, "list tables"); strings.TrimSpace(got) != "table inet portico-a" {
		t.Errorf("after Cleanup there is %s", got)
	}
	foreign(t, n, "add table inet portico-b")
	if err := p.Apply(Changes{Complete: true, Put: all, Node: node}); !errors.Is(err, errNoName) {
		t.Errorf("with both names taken: %v", err)
	}
}

// The nft program ends in an assertion where it meets rules that it cannot print, and with it
// every program on the node that lists tables.
func TestNftCanListTheRules(t *testing.T) {
	l, all := servers(t)
	p := newPlane(t, l.Nodes[0], Config{})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	for _, args := range [][]string{{"list", "ruleset"}, {"-j", "list", "ruleset"}, {"-a", "list", "table", "inet", "portico-a"}} {
		if out := foreign(t, l.Nodes[0], args...); strings.Contains(out, "rror") {
			t.Errorf("nft %v:\n%s", args, out)
		}
	}
}

// A process that ends leaves everything as it is, and the next one changes nothing.
func TestRestartAdopts(t *testing.T) {
	l, all := servers(t)
	n := l.Nodes[0]
	first := newPlane(t, n, Config{})
	apply(t, first, Changes{Complete: true, Put: all, Node: node})
	// Places that a new process would give otherwise.
	all[0] = tcpService("10.180.0.11:8080", "10.180.0.9:8080")
	all[2].Cluster = []netip.AddrPort{ap("10.180.0.11:8080"), ap("10.180.0.9:8080")}
	apply(t, first, Changes{Put: all[:1]})
	all[0] = tcpService("10.180.0.10:8080", "10.180.0.11:8080")
	apply(t, first, Changes{Put: all[:1]})
	want := read(t, first)
	first.Close()

	second := newPlane(t, n, Config{})
	all[2] = &Service{
		Name: "affine", Protocol: 6, Affinity: time.Hour, Frontends: all[2].Frontends,
		Cluster: []netip.AddrPort{ap("10.180.0.11:8080"), ap("10.180.0.10:8080")},
	}
	apply(t, second, Changes{Complete: true, Put: all, Node: node})
	if s := second.Stats(); s.Elements != 0 || s.Rebuilds != 0 {
		t.Errorf("a restart changed something: %+v", s)
	}
	if got := read(t, second); !slices.Equal(got, want) {
		t.Errorf("the kernel has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	works(t, l)
	// What is not wanted any more goes, and what is new comes, under an id that is free.
	third := newPlane(t, n, Config{})
	fresh := &Service{Name: "fresh", Protocol: 6, Cluster: all[0].Cluster, Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 82, Kind: External}}}
	apply(t, third, Changes{Complete: true, Put: append([]*Service{fresh}, all[1:]...), Node: node})
	if _, err := l.Client.AskPatiently(t, "tcp", ap("172.30.0.1:82")); err != nil {
		t.Error(err)
	}
}

// A thousand Services come and go and the endpoints of one change all the time while connections
// are made: none fails.
func TestChurn(t *testing.T) {
	l, all := servers(t)
	p := newPlane(t, l.Nodes[0], Config{})
	start(t, p)
	apply(t, p, Changes{Complete: true, Put: append(manyServices(1000, 3), all...), Node: node})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var clients sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 2 {
		clients.Go(func() {
			for ctx.Err() == nil {
				_, err := l.Client.AskPatiently(t, "tcp", ap("172.30.0.1:80"))
				mu.Lock()
				made++
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	changes := 0
	for i := 0; ctx.Err() == nil; i++ {
		c := Changes{Put: []*Service{manyService(i%1000, 3+i%3, i%100), tcpService([][]string{
			{"10.180.0.10:8080"},
			{"10.180.0.11:8080", "10.180.0.10:8080"},
			{"10.180.0.11:8080"},
		}[i%3]...)}}
		if i%5 == 0 {
			c.Delete = []string{manyService((i+500)%1000, 3, 0).Name}
		}
		apply(t, p, c)
		changes++
	}
	clients.Wait()
	t.Logf("%d changes, %d connections", changes, made)
	if made < 50 {
		t.Errorf("only %d connections", made)
	}
}

// A UDP client that goes on from one port reaches the endpoint that is there now, and nobody
// else loses a flow.
func TestStaleUDPFlows(t *testing.T) {
	for _, to := range []string{"172.30.0.1:80", "192.168.0.10:30080"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			l, all := servers(t)
			p := newPlane(t, l.Nodes[0], Config{})
			start(t, p)
			apply(t, p, Changes{Complete: true, Put: all, Node: node})
			client, err := l.Client.Dial(t, "udp", netip.AddrPort{}, ap(to), netlab.Silence)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			// Another flow of ours, to a port of the same number on another host.
			other, err := l.Client.Dial(t, "udp", ap("192.168.0.100:40000"), ap("10.180.0.11:8080"), netlab.Silence)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if _, err := netlab.Talk(other, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{"pod0-0", "pod0-1", "pod0-0"} {
				udp := *all[1]
				udp.Cluster = []netip.AddrPort{ap("10.180.0.1" + want[len(want)-1:] + ":8080")}
				apply(t, p, Changes{Put: []*Service{&udp}})
				var got netlab.Answer
				for began := time.Now(); time.Since(began) < time.Minute && got.Server != want; {
					got, _ = netlab.Talk(client, netlab.Silence)
				}
				if got.Server != want {
					t.Errorf("after change %d %s answers, want %s", i, got.Server, want)
				}
			}
			flows := ""
			l.Nodes[0].Do(t, func() {
				out, _ := exec.Command("conntrack", "-L", "-p", "udp", "--orig-dst", "10.180.0.11").CombinedOutput()
				flows = string(out)
			})
			if !strings.Contains(flows, "sport=40000") {
				t.Errorf("the flow of somebody else is gone: %s", flows)
			}
		})
	}
}

// A client that began before the Service was in the kernel is connected when it repeats itself:
// connection tracking had remembered that its packets are not translated.
func TestEarlyConnection(t *testing.T) {
	l, all := servers(t)
	client := l.Pods[0][1]
	foreign(t, l.Nodes[0], `table inet somebody {
		chain c { type nat hook postrouting priority srcnat + 10; policy accept; ip daddr 10.180.0.0/16 masquerade; }
	}`)
	type result struct {
		answer netlab.Answer
		err    error
	}
	early := map[string]chan result{"172.30.0.1:80": make(chan result, 1), "192.0.2.9:80": make(chan result, 1)}
	for to, done := range early {
		go func() {
			wait := 30 * time.Second
			if to == "192.0.2.9:80" {
				wait = time.Second // nobody has it
			}
			a, err := client.AskFrom(t, "tcp", netip.AddrPort{}, ap(to), wait)
			done <- result{a, err}
		}()
	}
	waitFlows(t, l.Nodes[0], "SYN_SENT", "dst=172.30.0.1 ", "dst=192.0.2.9 ")
	p := newPlane(t, l.Nodes[0], Config{})
	start(t, p)
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	if r := <-early["172.30.0.1:80"]; r.err != nil || !strings.HasPrefix(r.answer.Server, "pod0-") {
		t.Errorf("%v %v, want an answer of an endpoint", r.answer, r.err)
	}
	if r := <-early["192.0.2.9:80"]; !errors.Is(r.err, netlab.ErrSilent) {
		t.Errorf("a connection to somebody else: %v %v", r.answer, r.err)
	}
	waitFlows(t, l.Nodes[0], "SYN_SENT", "dst=192.0.2.9 ")
}

// waitFlows waits until connection tracking has TCP flows of that state with all of these words.
func waitFlows(t *testing.T, h *netlab.Host, state string, words ...string) {
	t.Helper()
	flows := ""
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		h.Do(t, func() {
			out, _ := exec.Command("conntrack", "-L", "-p", "tcp", "--state", state).CombinedOutput()
			flows = string(out)
		})
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(flows, w) }) {
			return
		}
	}
	t.Fatalf("no flows %q in:\n%s", words, flows)
}

// A cluster without a Service is a state as any other: if it cannot be written at first, it is later.
func TestNoServicesAreWantedToo(t *testing.T) {
	h := netlab.NewHost(t)
	foreign(t, h, "add table inet portico-a; add table inet portico-b")
	p := newPlane(t, h, Config{})
	if err := p.Apply(Changes{Complete: true, Node: node}); !errors.Is(err, errNoName) {
		t.Fatal(err)
	}
	if err := p.Repair(); !errors.Is(err, errNoName) {
		t.Errorf("nothing is live, and nothing to be repaired: %v", err)
	}
	foreign(t, h, "delete table inet portico-a; delete table inet portico-b")
	apply(t, p, Changes{Put: []*Service{tcpService("10.180.0.10:8080")}})
	if len(read(t, p)) == 0 {
		t.Error("nothing is in the kernel")
	}
}

// Ranges of IPv6 that begin or end among the IPv4-mapped addresses are as wide as others, and an address of the other family
// costs its own Service: the kernel would refuse what is of everybody in the same transaction.
func TestOddAddressesCostNobodyElse(t *testing.T) {
	p := newPlane(t, netlab.NewHost(t), Config{})
	start(t, p)
	apply(t, p, Changes{Complete: true, Node: node})
	for _, source := range []string{"::/80", "::fffe:0:0/95", "::ffff:10.0.0.0/104", "::/0", "::ffff:0:0/96"} {
		s := &Service{
			Name: "six", Protocol: 6, IPv6: true, Sources: []netip.Prefix{netip.MustParsePrefix(source)},
			Frontends: []Frontend{{Addr: netip.MustParseAddr("fd00:30::1"), Port: 80, Kind: Reject, Restricted: true}},
		}
		if err := p.Apply(Changes{Put: []*Service{s}}); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
	odd := tcpService("10.180.0.10:8080")
	odd.Name, odd.Frontends, odd.IPv6 = "odd", nil, true
	if err := p.Apply(Changes{Put: []*Service{odd, tcpService("10.180.0.10:8080")}}); err == nil {
		t.Error("addresses of the other family are taken")
	}
	if p.entries["tcp"] == nil || p.entries["odd"] != nil {
		t.Error("want the good one alone")
	}
	before := p.Stats().Repairs
	if err := p.Repair(); err != nil || p.Stats().Repairs != before {
		t.Errorf("it had to be repaired, %v", err)
	}
}
