package relay

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

func endpointsOf(p *Plane) map[netip.AddrPort]EndpointCount {
	all, _ := p.Endpoints(func(*EndpointCount) bool { return true })
	byAddr := map[netip.AddrPort]EndpointCount{}
	for _, c := range all {
		byAddr[c.Endpoint] = c
	}
	return byAddr
}

// What each endpoint has had is counted while its connections are open: who took one, who refused, who said
// nothing, and what went by.
func TestEndpointsAreCounted(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		a := loopback(ipv6)
		good, dead := serve(t, a, "good"), netip.AddrPortFrom(a, freePort(t, a))
		silent, err := net.ListenPacket("udp", netip.AddrPortFrom(a, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		mute := silent.LocalAddr().(*net.UDPAddr).AddrPort()
		p := start(t, Config{MaxEndpoints: 10})
		service := func(name string, protocol uint8, endpoints ...netip.AddrPort) *Service {
			return &Service{
				Name: name, Protocol: protocol, IPv6: ipv6, Cluster: endpoints,
				Frontends: []Frontend{{Addr: a, Port: freePort(t, a), Kind: Cluster}},
			}
		}
		tcp, udp, none := service("tcp", TCP, good, dead), service("udp", UDP, good), service("none", UDP, mute)
		apply(t, p, tcp, udp, none)
		at := func(s *Service) netip.AddrPort { return netip.AddrPortFrom(a, s.Frontends[0].Port) }
		open, err := dial(t, "tcp", at(tcp), patience)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := say(open, "hello\n"); got != "good hello" {
			t.Fatal(got, err)
		}
		until(t, func() bool { return endpointsOf(p)[good].ToClients == 11 })
		for c := endpointsOf(p)[dead]; c.Refused == 0; c = endpointsOf(p)[dead] { // it is tried at random
			if got, err := ask(t, "tcp", at(tcp), patience); got != "good hello" {
				t.Fatal(got, err)
			}
		}
		if got, err := ask(t, "udp", at(udp), patience); got != "good hello" {
			t.Fatal(got, err)
		}
		quiet, err := dial(t, "udp", at(none), patience)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := quiet.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return endpointsOf(p)[mute].FromClients == 5 })
		apply(t, p, tcp, udp) // which ends the session
		until(t, func() bool { return endpointsOf(p)[mute].Unanswered == 1 })

		until(t, func() bool { // bytes are counted once they have gone
			all, _ := p.Endpoints(func(*EndpointCount) bool { return true })
			return !slices.ContainsFunc(all, func(c EndpointCount) bool {
				return c.Endpoint == good && (c.FromClients < 6*c.Connections || c.ToClients < 11*c.Connections)
			})
		})
		all, uncounted := p.Endpoints(func(c *EndpointCount) bool { return c.Service != "none" })
		if len(all) != 3 || uncounted != 0 {
			t.Fatalf("%+v, uncounted %d", all, uncounted)
		}
		for _, c := range all {
			switch {
			case c.Service == "tcp" && c.Endpoint == dead:
				if c.Connections != c.Refused || c.Unanswered+c.FromClients+c.ToClients != 0 {
					t.Errorf("refused: %+v", c)
				}
			case c.Refused+c.Unanswered != 0 || c.FromClients != 6*c.Connections && c.Service == "tcp":
				t.Errorf("answered: %+v", c)
			case c.Service == "udp" && (c.Protocol != UDP || c.Connections != 1 || c.ToClients != 11):
				t.Errorf("a datagram: %+v", c)
			}
		}
		if endpointsOf(p)[mute].Connections != 0 {
			t.Error("kept although nobody wanted it kept")
		}
	}
}

// So many endpoints are counted as the Config says, and those of others are counted as not counted.
func TestEndpointsAreBounded(t *testing.T) {
	a := loopback(false)
	one, other := serve(t, a, "one"), serve(t, a, "other")
	f := Frontend{Addr: a, Port: freePort(t, a), Kind: Cluster}
	for most, want := range map[int]uint64{0: 0, 1: 1} {
		p := start(t, Config{MaxEndpoints: most})
		for _, e := range []netip.AddrPort{one, other} {
			apply(t, p, &Service{Name: "s", Protocol: TCP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{e}})
			if _, err := ask(t, "tcp", netip.AddrPortFrom(a, f.Port), patience); err != nil {
				t.Fatal(err)
			}
		}
		all, uncounted := p.Endpoints(func(*EndpointCount) bool { return true })
		if len(all) != most || uncounted != want {
			t.Errorf("of %d: %+v, uncounted %d", most, all, uncounted)
		}
		if most == 1 && (all[0].Endpoint != one || all[0].Connections != 1) {
			t.Errorf("%+v", all[0])
		}
		p.Close()
	}
}

// Whom the kernel's filter keeps out is counted, and why, and still is when the Frontend has gone.
func TestKeptOutIsCounted(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/33")}
	for _, ipv6 := range []bool{false, true} {
		a := loopback(ipv6)
		backend := serve(t, a, "b")
		for network, protocol := range map[string]uint8{"tcp": TCP, "udp": UDP} {
			p := start(t, Config{})
			service := func(name string, f Frontend, sources []netip.Prefix) *Service {
				f.Addr, f.Port = a, freePort(t, a)
				return &Service{Name: name, Protocol: protocol, IPv6: ipv6, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{backend}, Sources: sources}
			}
			services := []*Service{
				service("sources", Frontend{Kind: Cluster, Restricted: true}, elsewhere),
				service("many", Frontend{Kind: Cluster, Restricted: true}, many(ipv6)),
				service("policy", Frontend{Kind: Drop}, nil),
				service("open", Frontend{Kind: Cluster}, nil),
			}
			apply(t, p, services...)
			for i, s := range services[:3] {
				knock(t, network, netip.AddrPortFrom(a, s.Frontends[0].Port))
				until(t, func() bool {
					all, by := p.KeptOut()
					k := by[s.Name]
					return k.Sources+k.Policy > 0 && (k.Policy > 0) == (i == 2) && all.Sources+all.Policy > uint64(i)
				})
			}
			if got, err := ask(t, network, netip.AddrPortFrom(a, services[3].Frontends[0].Port), patience); err != nil {
				t.Fatal(got, err)
			}
			before, by := p.KeptOut()
			if by["open"] != (KeptOut{}) || before.NotLocal != 0 {
				t.Errorf("%s: %+v, %+v", network, before, by)
			}
			apply(t, p)
			if after, by := p.KeptOut(); after.Sources < before.Sources || after.Policy < before.Policy || len(by) != 0 {
				t.Errorf("%s: %+v after %+v, %+v", network, after, before, by)
			}
			p.Close()
		}
	}
}

// knock sends the first packet of a connection, and does not wait for an answer.
func knock(t *testing.T, network string, to netip.AddrPort) {
	t.Helper()
	family, kind, at := unix.AF_INET, unix.SOCK_STREAM, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port()), Addr: [4]byte{127, 0, 0, 1}})
	if to.Addr().Is6() {
		family, at = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Connect(fd, at); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	if network == "udp" {
		if _, err := unix.Write(fd, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
}

// Who comes from outside where the traffic policy is Local and no endpoint is here is counted as that.
func TestKeptOutForPolicyLocal(t *testing.T) {
	l := netlab.New(t, 1)
	l.Pods[0][0].Serve(t, 8080)
	node := l.Nodes[0]
	p := start(t, Config{Within: func(f func()) { node.Do(t, f) }})
	apply(t, p, &Service{
		Name: "s", Protocol: UDP, Frontends: []Frontend{{Port: 30080, Kind: DropOutside}}, Cluster: []netip.AddrPort{netip.AddrPortFrom(l.Pods[0][0].IPv4, 8080)},
	})
	at := netip.AddrPortFrom(node.IPv4, 30080)
	if _, err := node.AskPatiently(t, "udp", at); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client.Ask(t, "udp", at); !errors.Is(err, netlab.ErrSilent) {
		t.Fatal(err)
	}
	c := p.Counters()[0]
	if all, _ := p.KeptOut(); all.NotLocal == 0 || all != (KeptOut{NotLocal: all.NotLocal}) || c.KeptOut != all || c.Connections != 1 {
		t.Errorf("%+v, %+v", all, c)
	}
}
