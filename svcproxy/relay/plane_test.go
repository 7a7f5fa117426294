package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// patience is for what has to come, however busy the machine is; silence for what must not.
const (
	patience = 20 * time.Second
	silence  = 300 * time.Millisecond
)

// start runs a Plane until the test ends, and then wants that nothing of it is left.
func start(t *testing.T, cfg Config) *Plane {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if n, m := p.connections.now.Load(), p.sessions.now.Load(); n != 0 || m != 0 {
			t.Errorf("%d connections and %d sessions were not given back", n, m)
		}
	})
	return p
}

func apply(t *testing.T, p *Plane, all ...*Service) {
	t.Helper()
	if err := p.Apply(Changes{Put: all, Complete: true}); err != nil {
		t.Fatal(err)
	}
}

// loopback is an address of this host that nobody else uses: on Linux all of 127.0.0.0/8 are; ::1
// is the only one.
func loopback(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.IPv6Loopback()
	}
	return netip.MustParseAddr("127.0.0.1")
}

// freePort is one that nobody listens at, with neither protocol, and that the kernel gives to nobody
// meanwhile.
func freePort(t *testing.T, a netip.Addr) uint16 {
	t.Helper()
	l, u := listen(t, a)
	defer u.Close()
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// listen does so at one port with both protocols. It is none of those that the kernel chooses for
// others (net.ipv4.ip_local_port_range).
func listen(t *testing.T, a netip.Addr) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 100 {
		at := netip.AddrPortFrom(a, uint16(20000+rand.IntN(10000))).String()
		l, err := net.Listen("tcp", at)
		if err != nil {
			continue
		}
		if u, err := net.ListenPacket("udp", at); err == nil {
			return l, u
		}
		_ = l.Close()
	}
	t.Fatal("no port is free")
	return nil, nil
}

// serve answers every line on TCP and every datagram with its name and what came, until the test
// ends.
func serve(t *testing.T, a netip.Addr, name string) netip.AddrPort {
	t.Helper()
	l, u := listen(t, a)
	at := l.Addr().(*net.TCPAddr).AddrPort()
	t.Cleanup(func() { _ = l.Close(); _ = u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					_, _ = io.WriteString(c, name+" "+lines.Text()+"\n")
				}
				_, _ = io.WriteString(c, name+" end\n")
			}()
		}
	}()
	go func() {
		for buf := make([]byte, 1500); ; {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte(name+" "+string(buf[:n])), from)
		}
	}()
	return at
}

func dial(t *testing.T, network string, to netip.AddrPort, wait time.Duration) (net.Conn, error) {
	t.Helper()
	c, err := net.DialTimeout(network, to.String(), wait)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(wait))
	}
	return c, err
}

// say sends a line and gives the one that comes back.
func say(c net.Conn, line string) (string, error) {
	if _, err := io.WriteString(c, line); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

func ask(t *testing.T, network string, to netip.AddrPort, wait time.Duration) (string, error) {
	t.Helper()
	c, err := dial(t, network, to, wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return say(c, "hello\n")
}

// What becomes of a new connection, by kind of frontend, in both families and protocols.
func TestKinds(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/33")}
	here := []netip.Prefix{elsewhere[0], elsewhere[1], netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, ipv6 := range []bool{false, true} {
		for _, protocol := range []uint8{TCP, UDP} {
			a := loopback(ipv6)
			cluster, local := serve(t, a, "cluster"), serve(t, a, "local")
			p := start(t, Config{})
			for _, c := range []struct {
				name       string
				kind       Kind
				restricted bool
				sources    []netip.Prefix
				want       string
			}{
				{"Cluster", Cluster, false, nil, "cluster hello"},
				{"Local", Local, false, nil, "local hello"},
				{"this host is inside", LocalOutside, false, nil, "cluster hello"},
				{"and is let in", DropOutside, false, nil, "cluster hello"},
				{"Reject", Reject, false, nil, "refused"},
				{"Drop", Drop, false, nil, "silent"},
				{"in the source ranges", Cluster, true, here, "cluster hello"},
				{"not in them", Cluster, true, elsewhere, "silent"},
				{"no ranges of this family", Cluster, true, nil, "silent"},
				{"too many for a filter", Drop, true, many(ipv6), "silent or reset"},
			} {
				f := Frontend{Addr: a, Port: freePort(t, a), Kind: c.kind, Restricted: c.restricted}
				apply(t, p, &Service{
					Name: "s", Protocol: protocol, IPv6: ipv6, Frontends: []Frontend{f},
					Cluster: []netip.AddrPort{cluster}, Local: []netip.AddrPort{local}, Sources: c.sources,
				})
				network := map[uint8]string{TCP: "tcp", UDP: "udp"}[protocol]
				wait := patience
				if strings.HasPrefix(c.want, "silent") {
					wait = silence
				}
				got, err := ask(t, network, netip.AddrPortFrom(a, f.Port), wait)
				var timeout net.Error
				switch {
				case errors.As(err, &timeout) && timeout.Timeout():
					got = "silent"
				case errors.Is(err, unix.ECONNREFUSED):
					got = "refused"
				case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, io.EOF):
					got = "reset"
				}
				if got == "" || !strings.Contains(c.want, got) {
					t.Errorf("%s, %s, IPv6 %v: %s (%v), want %s", c.name, network, ipv6, got, err, c.want)
				}
				if problems := p.Problems(); len(problems) != 0 {
					t.Errorf("%s: %v", c.name, problems)
				}
			}
		}
	}
}

// many are more ranges than a filter has room for.
func many(ipv6 bool) []netip.Prefix {
	all := make([]netip.Prefix, 2000)
	for i := range all {
		all[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)
		if ipv6 {
			all[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i)}), 128)
		}
	}
	return all
}

// The kernel's filter lets through whom decide does: sources and ranges of all lengths.
func TestFilterAgreesWithTheRanges(t *testing.T) {
	a := netip.MustParseAddr("127.0.0.1")
	backend := serve(t, a, "b")
	p := start(t, Config{})
	for _, text := range []string{"127.0.0.1/32", "127.64.0.0/10", "127.1.2.0/23", "0.0.0.0/0", "127.1.2.3/32 127.9.0.0/16 10.0.0.0/8"} {
		var sources []netip.Prefix
		for s := range strings.FieldsSeq(text) {
			sources = append(sources, netip.MustParsePrefix(s))
		}
		f := Frontend{Addr: a, Port: freePort(t, a), Kind: Cluster, Restricted: true}
		apply(t, p, &Service{Name: "s", Protocol: TCP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{backend}, Sources: sources})
		for _, from := range []string{"127.0.0.1", "127.0.0.2", "127.64.0.1", "127.127.255.254", "127.1.2.3", "127.1.3.255", "127.1.4.0", "127.9.255.1"} {
			addr := netip.MustParseAddr(from)
			want, wait := contain(sources, addr), silence
			if want {
				wait = patience
			}
			d := net.Dialer{Timeout: wait, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))}
			c, err := d.Dial("tcp", netip.AddrPortFrom(a, f.Port).String())
			if err == nil {
				_ = c.Close()
			}
			if got := err == nil; got != want {
				t.Errorf("%s by %s: %v (%v)", from, text, got, err)
			}
		}
	}
}

// An endpoint that takes no connection is passed over; when none does, the client is reset.
func TestConnectFailureGoesToAnotherEndpoint(t *testing.T) {
	a := loopback(false)
	good := serve(t, a, "good")
	dead := func() netip.AddrPort { return netip.AddrPortFrom(a, freePort(t, a)) }
	f := Frontend{Port: freePort(t, a), Kind: Cluster}
	p := start(t, Config{})
	s := Service{Name: "s", Protocol: TCP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{dead(), dead(), good}}
	apply(t, p, &s)
	for range 20 {
		if got, err := ask(t, "tcp", netip.AddrPortFrom(a, f.Port), patience); got != "good hello" {
			t.Fatal(got, err)
		}
	}
	next := s
	next.Cluster = s.Cluster[:2]
	apply(t, p, &next)
	if got, err := ask(t, "tcp", netip.AddrPortFrom(a, f.Port), patience); err == nil {
		t.Error(got)
	}
	c := p.Counters()[0]
	if c.Connections != 20 || c.Unreachable != 1 || c.ConnectFailures < 2 {
		t.Errorf("%+v", c)
	}
}

// Both ways, to the end of each; and what went by is counted.
func TestBytesAndHalfClose(t *testing.T) {
	a := loopback(false)
	f := Frontend{Port: freePort(t, a), Kind: Cluster}
	p := start(t, Config{})
	apply(t, p, &Service{Name: "s", Protocol: TCP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{serve(t, a, "b")}})
	c, err := dial(t, "tcp", netip.AddrPortFrom(a, f.Port), patience)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 20_000
	go func() {
		for i := range lines {
			_, _ = fmt.Fprintf(c, "line %d\n", i)
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	in := bufio.NewScanner(c)
	for i := range lines {
		if in.Scan(); in.Text() != fmt.Sprintf("b line %d", i) {
			t.Fatalf("line %d: %q %v", i, in.Text(), in.Err())
		}
	}
	if in.Scan(); in.Text() != "b end" {
		t.Errorf("after the client's end: %q %v", in.Text(), in.Err())
	}
	if in.Scan() {
		t.Errorf("after the endpoint's end: %q", in.Text())
	}
	n := p.Counters()[0]
	if n.ToClients != n.FromClients+2*lines+uint64(len("b end\n")) || n.FromClients < 10*lines {
		t.Errorf("%+v", n)
	}
}

// A TCP connection stays when its endpoint, and even its Service, go; a UDP client moves at once.
func TestDrain(t *testing.T) {
	a := loopback(false)
	first, second := serve(t, a, "first"), serve(t, a, "second")
	f := Frontend{Port: freePort(t, a), Kind: Cluster}
	at := netip.AddrPortFrom(a, f.Port)
	p := start(t, Config{})
	services := func(e netip.AddrPort) []*Service {
		return []*Service{
			{Name: "tcp", Protocol: TCP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{e}},
			{Name: "udp", Protocol: UDP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{e}},
		}
	}
	apply(t, p, services(first)...)
	conns := map[string]net.Conn{}
	for _, network := range []string{"tcp", "udp"} {
		c, err := dial(t, network, at, patience)
		if err != nil {
			t.Fatal(err)
		}
		conns[network] = c
	}
	said := func(network, want string) {
		t.Helper()
		if got, err := say(conns[network], "hello\n"); got != want {
			t.Errorf("%s: %q, %v, want %s", network, got, err, want)
		}
	}
	said("tcp", "first hello")
	said("udp", "first hello")
	apply(t, p, services(second)...)
	said("tcp", "first hello")
	said("udp", "second hello")
	apply(t, p)
	said("tcp", "first hello")
	if _, err := ask(t, "tcp", at, patience); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the Service is gone: %v", err)
	}
	_ = conns["tcp"].Close()
}

func TestAffinity(t *testing.T) {
	a := loopback(false)
	all := []netip.AddrPort{serve(t, a, "0"), serve(t, a, "1"), serve(t, a, "2"), serve(t, a, "3")}
	f := Frontend{Port: freePort(t, a), Kind: Cluster}
	at := netip.AddrPortFrom(a, f.Port)
	p := start(t, Config{})
	s := Service{Name: "s", Protocol: TCP, Frontends: []Frontend{f}, Cluster: all, Affinity: time.Hour}
	apply(t, p, &s)
	first, err := ask(t, "tcp", at, patience)
	if err != nil {
		t.Fatal(err)
	}
	for range 15 {
		if got, err := ask(t, "tcp", at, patience); got != first {
			t.Fatalf("%s after %s, %v", got, first, err)
		}
	}
	i := slices.Index([]string{"0 hello", "1 hello", "2 hello", "3 hello"}, first)
	if trace := p.Trace(TCP, a, at); trace.Service != "s" || trace.Stays != all[i] || len(trace.Endpoints) != 4 || trace.Outcome != Forwarded {
		t.Errorf("%+v", trace)
	}
	without := s
	without.Cluster = slices.Delete(slices.Clone(all), i, i+1)
	apply(t, p, &without)
	second, err := ask(t, "tcp", at, patience)
	if err != nil || second == first {
		t.Fatal(second, err)
	}
	apply(t, p, &s)
	if got, err := ask(t, "tcp", at, patience); got != second {
		t.Errorf("%s, %v, want %s", got, err, second)
	}
}

// What a client is forgotten by: time, and too many others.
func TestAffinitiesAreBounded(t *testing.T) {
	var a affinities
	s := &Service{Affinity: time.Minute}
	now := time.Now()
	e := netip.MustParseAddrPort("10.0.0.1:80")
	client := netip.MustParseAddr("10.1.0.0")
	for range maxClients + 100 {
		a.stay(s, client, e, now)
		client = client.Next()
	}
	if len(a.clients) != maxClients {
		t.Errorf("%d clients", len(a.clients))
	}
	last := client.Prev()
	if _, ok := a.get(last, now.Add(59*time.Second)); !ok {
		t.Error("forgotten too early")
	}
	if _, ok := a.get(last, now.Add(61*time.Second)); ok {
		t.Error("not forgotten")
	}
	if a.forget(now.Add(61 * time.Second)); len(a.clients) != 0 {
		t.Errorf("%d clients are left", len(a.clients))
	}
}

func TestProxyProtocol(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		for _, version := range []uint8{1, 2} {
			a := loopback(ipv6)
			l, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f := Frontend{Port: freePort(t, a), Kind: Cluster}
			p := start(t, Config{})
			apply(t, p, &Service{
				Name: "s", Protocol: TCP, IPv6: ipv6, Frontends: []Frontend{f}, ProxyProtocol: version,
				Cluster: []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()},
			})
			c, err := dial(t, "tcp", netip.AddrPortFrom(a, f.Port), patience)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.(*net.TCPConn).CloseWrite()
			backend, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(backend)
			_ = backend.Close()
			own := c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
			want := fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\nhello", own, f.Port)
			ports := string([]byte{byte(own >> 8), byte(own), byte(f.Port >> 8), byte(f.Port)})
			one := "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
			switch {
			case version == 1 && ipv6:
				want = fmt.Sprintf("PROXY TCP6 ::1 ::1 %d %d\r\nhello", own, f.Port)
			case version == 2 && ipv6:
				want = "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + one + one + ports + "hello"
			case version == 2:
				want = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01" + ports + "hello"
			}
			if string(got) != want {
				t.Errorf("version %d, IPv6 %v: %q, %v, want %q", version, ipv6, got, err, want)
			}
		}
	}
}

// One Service at its limit turns away its own clients and nobody else's.
func TestLimits(t *testing.T) {
	a := loopback(false)
	backend := serve(t, a, "b")
	fs := []Frontend{{Port: freePort(t, a), Kind: Cluster}, {Port: freePort(t, a), Kind: Cluster}}
	for _, network := range []string{"tcp", "udp"} {
		p := start(t, Config{MaxConnections: 10, MaxSessions: 10, MaxPerService: 2})
		protocol := map[string]uint8{"tcp": TCP, "udp": UDP}[network]
		apply(t, p, &Service{Name: "s0", Protocol: protocol, Frontends: fs[:1], Cluster: []netip.AddrPort{backend}},
			&Service{Name: "s1", Protocol: protocol, Frontends: fs[1:], Cluster: []netip.AddrPort{backend}})
		var open []net.Conn
		for range 2 {
			c, err := dial(t, network, netip.AddrPortFrom(a, fs[0].Port), patience)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := say(c, "hello\n"); err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		if got, err := ask(t, network, netip.AddrPortFrom(a, fs[0].Port), silence); err == nil {
			t.Errorf("%s: one too many: %s", network, got)
		}
		if got, err := ask(t, network, netip.AddrPortFrom(a, fs[1].Port), patience); err != nil {
			t.Errorf("%s: the other Service: %s, %v", network, got, err)
		}
		if c := p.Counters()[0]; c.Open != 2 || c.Connections != 2 || c.Limited != 1 {
			t.Errorf("%s: %+v", network, c)
		}
		for _, c := range open {
			_ = c.Close()
		}
	}
}

// A UDP session that is idle for too long is over.
func TestUDPSessionsEnd(t *testing.T) {
	a := loopback(false)
	f := Frontend{Port: freePort(t, a), Kind: Cluster}
	p := start(t, Config{UDPTimeout: 100 * time.Millisecond})
	apply(t, p, &Service{Name: "s", Protocol: UDP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{serve(t, a, "b")}})
	if got, err := ask(t, "udp", netip.AddrPortFrom(a, f.Port), patience); got != "b hello" {
		t.Fatal(got, err)
	}
	until(t, func() bool { return p.Counters()[0].Open == 0 })
}

// until waits for what has to come.
func until(t *testing.T, done func() bool) {
	t.Helper()
	for tick, deadline := time.NewTicker(time.Millisecond), time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

// What cannot be served says why, and everything else goes on; a port that becomes free is had.
func TestProblems(t *testing.T) {
	a := loopback(false)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := busy.Addr().(*net.TCPAddr).AddrPort().Port()
	good := Frontend{Port: freePort(t, a), Kind: Cluster}
	endpoints := []netip.AddrPort{serve(t, a, "b")}
	p := start(t, Config{Retry: 10 * time.Millisecond})
	apply(t, p,
		&Service{Name: "s", Protocol: TCP, Frontends: []Frontend{good, {Port: taken, Kind: Cluster}, {Addr: netip.MustParseAddr("192.0.2.1"), Port: 80, Kind: Cluster}}, Cluster: endpoints},
		&Service{Name: "t", Protocol: 132, Frontends: []Frontend{good}, Cluster: endpoints})
	got := map[string]error{}
	for _, v := range p.Problems() {
		got[v.Service+" "+v.Frontend.String()] = v.Err
	}
	want := map[string]error{
		fmt.Sprintf("s *:%d", taken): ErrBusy, "s 192.0.2.1:80": ErrNotHere, fmt.Sprintf("t *:%d", good.Port): ErrProtocol,
	}
	for k, err := range want {
		if !errors.Is(got[k], err) {
			t.Errorf("%s: %v, want %v", k, got[k], err)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	if got, err := ask(t, "tcp", netip.AddrPortFrom(a, good.Port), patience); got != "b hello" {
		t.Error(got, err)
	}
	_ = busy.Close()
	until(t, func() bool { return len(p.Problems()) == 2 })
	if got, err := ask(t, "tcp", netip.AddrPortFrom(a, taken), patience); got != "b hello" {
		t.Error(got, err)
	}
}

// A NodePort answers from the address that it was asked at, and at addresses that come later.
func TestNodePortAddresses(t *testing.T) {
	h := netlab.NewHost(t)
	h.Serve(t, 8080)
	for i, c := range []struct {
		name string
		node Node
	}{
		{"all", Node{}},
		{"a range", Node{NodePorts: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}},
	} {
		p := start(t, Config{Within: func(f func()) { h.Do(t, f) }})
		for _, ipv6 := range []bool{false, true} {
			f := Frontend{Port: uint16(30000 + i), Kind: Cluster}
			s := &Service{Name: fmt.Sprint(ipv6), Protocol: UDP, IPv6: ipv6, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{netip.AddrPortFrom(loopback(ipv6), 8080)}}
			if err := p.Apply(Changes{Put: []*Service{s}, Node: &c.node}); err != nil {
				t.Fatal(err)
			}
			if got, err := h.AskPatiently(t, "udp", netip.AddrPortFrom(loopback(ipv6), f.Port)); err != nil || got.Server != "host" {
				t.Errorf("%s, IPv6 %v: %v %v (%v)", c.name, ipv6, got, err, p.Problems())
			}
		}
		p.Close()
	}
}

// When it ends, a connection may go on for Drain, and then is over.
func TestCloseEndsConnections(t *testing.T) {
	a := loopback(false)
	f := Frontend{Port: freePort(t, a), Kind: Cluster}
	p, err := New(Config{Drain: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, p, &Service{Name: "s", Protocol: TCP, Frontends: []Frontend{f}, Cluster: []netip.AddrPort{serve(t, a, "b")}})
	c, err := dial(t, "tcp", netip.AddrPortFrom(a, f.Port), patience)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := say(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if got, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error(got, err)
	}
	if err := p.Apply(Changes{}); err == nil {
		t.Error("it can be used after its end")
	}
}
