package handover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// In a ring of so many nodes the last one is asked, too, and serves the connection that it alone knows, also of a
// client from far away; and a segment that nobody knows goes round as often as is allowed, and is answered by a reset.
// Not in parallel: the nftables library counts its sets for all connections together.
func TestRing(t *testing.T) {
	for _, c := range []struct {
		nodes, ring int
		ipv6        bool
	}{{2, 5, false}, {5, 5, false}, {5, 5, true}, {8, 8, false}, {3, MaxRing, true}} {
		t.Run(fmt.Sprintf("%d of %d, IPv6 %v", c.nodes, c.ring, c.ipv6), func(t *testing.T) {
			r := newRing(t, c.nodes, c.ring, c.ipv6)
			conn := r.open(t)
			setTTL(t, conn, c.ipv6, max(20, c.ring+9))
			r.enter(t, 0)
			if a, err := netlab.Talk(conn, 30*time.Second); err != nil || a.Server != r.last().Name {
				t.Fatalf("%v %v", a, err)
			}
			// What it said, and that it has the answer, which may be 40 ms later and must not be on its way when all is forgotten.
			before := r.passed(t, func(n int) bool { return n >= 2*(c.nodes-1) })

			r.forget(t)
			setTTL(t, conn, c.ipv6, 64)
			if _, err := netlab.Talk(conn, 30*time.Second); !errors.Is(err, netlab.ErrRefused) {
				t.Errorf("nobody knows it: %v", err)
			}
			r.passed(t, func(n int) bool { return n > before && (n-before)%c.ring == 0 })
		})
	}
}

// ring are nodes that had an address one after the other. The last one serves it.
type ring struct {
	*netlab.Lab
	nodes  []*netlab.Host
	tables []*Table
	ipv6   bool
	vip    netip.AddrPort
}

func newRing(t *testing.T, nodes, most int, ipv6 bool) *ring {
	t.Helper()
	r := &ring{Lab: netlab.New(t, 0), ipv6: ipv6, vip: netip.MustParseAddrPort("192.0.2.1:80")}
	if ipv6 {
		r.vip = netip.MustParseAddrPort("[fd00:2::1]:80")
	}
	for i := range nodes {
		n := r.Plug(t, fmt.Sprintf("n%d", i), byte(20+i))
		var table *Table
		var err error
		n.Do(t, func() { table, err = New(Config{Ring: most}) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(table.Close)
		r.nodes, r.tables = append(r.nodes, n), append(r.tables, table)
	}
	for i, table := range r.tables {
		next := r.nodes[(i+1)%nodes].Addr(ipv6)
		if err := table.Set(map[netip.Addr]netip.Addr{r.vip.Addr(): next}); err != nil {
			t.Fatal(err)
		}
	}
	r.last().Address(t, r.host())
	r.last().Serve(t, 80)
	return r
}

func (r *ring) last() *netlab.Host { return r.nodes[len(r.nodes)-1] }

func (r *ring) host() string { return netip.PrefixFrom(r.vip.Addr(), r.vip.Addr().BitLen()).String() }

// enter has the client send to a node.
func (r *ring) enter(t *testing.T, i int) {
	t.Helper()
	r.Client.Route(t, r.host(), r.nodes[i].Addr(r.ipv6).String())
}

// open makes a connection by way of the last one.
func (r *ring) open(t *testing.T) net.Conn {
	t.Helper()
	r.enter(t, len(r.nodes)-1)
	c, err := r.Client.Dial(t, "tcp", netip.AddrPort{}, r.vip, 30*time.Second)
	if err == nil {
		_, err = netlab.Talk(c, 30*time.Second)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// forget has the last one know no connections any more.
func (r *ring) forget(t *testing.T) {
	t.Helper()
	var err error
	r.last().Do(t, func() { err = netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	if err != nil {
		t.Fatal(err)
	}
}

// passes is how often segments were passed on.
func (r *ring) passes(t *testing.T) (n int) {
	t.Helper()
	for _, table := range r.tables {
		counts, err := table.Counts()
		if err != nil {
			t.Fatal(err)
		}
		n += int(counts.Passed)
	}
	return n
}

// passed waits until they were passed on as often as is wanted.
func (r *ring) passed(t *testing.T, enough func(n int) bool) (n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if n = r.passes(t); enough(n) {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("passed on %d times", n)
		}
	}
}

func setTTL(t *testing.T, c net.Conn, ipv6 bool, ttl int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if ipv6 {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

// A Ring that is too long is an error that names the field.
func TestConfig(t *testing.T) {
	for ring, ok := range map[int]bool{0: true, 1: true, MaxRing: true, MaxRing + 1: false, -1: false} {
		if err := (Config{Ring: ring}).Validate(); (err == nil) != ok {
			t.Errorf("%d: %v", ring, err)
		}
	}
}
