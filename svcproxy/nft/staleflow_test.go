package nft

import (
	"net/netip"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// deaf has a host take no new TCP connections, and say nothing of it; those that it has go on.
func deaf(t *testing.T, h *netlab.Host) {
	t.Helper()
	foreign(t, h, `table inet deaf {
		chain c { type filter hook input priority 0; tcp flags & (syn | ack) == syn drop; }
	}`)
}

// A client that an endpoint does not answer gets through with the attempt that it is at, as soon as the Service
// has another endpoint in its place; from the same port, too. Connections that are there stay where they are.
func TestAttemptAtAnEndpointThatIsGone(t *testing.T) {
	for _, to := range []string{"172.30.0.1:80", "192.168.0.10:30080", "[fd00:30::1]:80"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			l, _ := servers(t)
			frontend, v6 := ap(to), ap(to).Addr().Is6()
			pod := func(i int) netip.AddrPort { return netip.AddrPortFrom(l.Pods[0][i].Addr(v6), 8080) }
			service := func(endpoints ...netip.AddrPort) *Service {
				s := &Service{Name: "tcp", Protocol: 6, IPv6: v6, Cluster: endpoints, Frontends: []Frontend{{Port: 30080, Kind: External}}}
				if frontend.Port() == 80 {
					s.Frontends = []Frontend{{Addr: frontend.Addr(), Port: 80, Kind: ClusterIP}}
				}
				return s
			}
			p := newPlane(t, l.Nodes[0], Config{})
			start(t, p)
			apply(t, p, Changes{Complete: true, Put: []*Service{service(pod(0))}, Node: node})
			open, err := l.Client.Dial(t, "tcp", netip.AddrPort{}, frontend, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			deaf(t, l.Pods[0][0])
			type result struct {
				answer netlab.Answer
				err    error
			}
			attempt := make(chan result, 1)
			go func() {
				a, err := l.Client.AskFrom(t, "tcp", netip.AddrPort{}, frontend, time.Minute)
				attempt <- result{a, err}
			}()
			again := netip.AddrPortFrom(l.Client.Addr(v6), 40000)
			if _, err := l.Client.AskFrom(t, "tcp", again, frontend, netlab.Silence); err == nil {
				t.Fatal("the endpoint answers")
			}
			waitAttempts(t, l.Nodes[0], 2)

			apply(t, p, Changes{Put: []*Service{service(pod(1))}})
			if a, err := l.Client.AskFrom(t, "tcp", again, frontend, 30*time.Second); err != nil || a.Server != "pod0-1" {
				t.Errorf("the same port again: %v %v", a, err)
			}
			if r := <-attempt; r.err != nil || r.answer.Server != "pod0-1" {
				t.Errorf("the same attempt: %v %v", r.answer, r.err)
			}
			if a, err := netlab.Talk(open, 10*time.Second); err != nil || a.Server != "pod0-0" {
				t.Errorf("a connection that was there: %v %v", a, err)
			}
		})
	}
}

// waitAttempts waits until so many translated connections are without an answer.
func waitAttempts(t *testing.T, h *netlab.Host, n int) {
	t.Helper()
	m, _ := monitorFlows(t, h)
	for deadline := time.Now().Add(30 * time.Second); ; {
		have := 0
		if err := m.Unanswered(func(*Flow) { have++ }); err != nil {
			t.Fatal(err)
		}
		if have == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections without an answer, want %d", have, n)
		}
	}
}

// Which flows are stale: those to a frontend, of none of its endpoints, and of TCP without an answer.
func TestStaleFlowsMatch(t *testing.T) {
	const endpoint, gone, vip, nodePort = "10.0.0.1:80", "10.0.0.2:80", "172.30.0.1:80", "192.168.0.10:30080"
	const answered, established = ctStatusAnswered, 3
	var all []*Service
	for _, protocol := range []uint8{6, 17} {
		all = append(all, &Service{
			Name: "s", Protocol: protocol, Local: []netip.AddrPort{ap(endpoint)},
			Frontends: []Frontend{{Addr: ap(vip).Addr(), Port: 80, Kind: ExternalLocal}, {Port: 30080, Kind: External}},
		})
	}
	stale := newStaleFlows(all, map[netip.Addr]struct{}{ap(nodePort).Addr(): {}, netip.MustParseAddr("fd00::10"): {}})
	for _, c := range []struct {
		name     string
		protocol uint8
		to, from string
		status   uint32
		state    uint8
		want     bool
	}{
		{"TCP, to an endpoint that is gone", 6, vip, gone, 0, ctStateSYNSent, true},
		{"TCP, to its NodePort", 6, nodePort, gone, 0, ctStateSYNSent, true},
		{"TCP, untranslated", 6, vip, vip, 0, ctStateSYNSent, true},
		{"TCP, to an endpoint", 6, vip, endpoint, 0, ctStateSYNSent, false},
		{"TCP, established", 6, vip, gone, answered, established, false},
		{"TCP, established, of which one direction goes by here", 6, vip, gone, 0, established, false},
		{"TCP, once more from a port whose connection was answered", 6, vip, gone, answered, ctStateSYNSent, false},
		{"UDP, to an endpoint that is gone", 17, vip, gone, answered, 0, true},
		{"UDP, without an answer", 17, nodePort, gone, 0, 0, true},
		{"UDP, to an endpoint", 17, nodePort, endpoint, answered, 0, false},
		{"another port", 17, "172.30.0.1:81", gone, 0, 0, false},
		{"another address", 17, "172.30.0.2:80", gone, 0, 0, false},
		{"the port of the NodePort, on another host", 17, "192.168.0.11:30080", gone, 0, 0, false},
		{"the port of the NodePort, in the other family", 17, "[fd00::10]:30080", "[fd00::11]:80", 0, 0, false},
		{"SCTP", 132, vip, gone, 0, 0, false},
	} {
		to, from := ap(c.to), ap(c.from)
		f := tracked{
			orig:  tuple{dst: to.Addr(), dstPort: to.Port(), protocol: c.protocol},
			reply: tuple{src: from.Addr(), srcPort: from.Port(), protocol: c.protocol}, status: c.status, state: c.state,
		}
		if got := stale.match(&f); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
