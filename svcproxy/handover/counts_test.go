package handover

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// Segments of connections that are not known here are counted, by what was done with them, and the connections.
func TestCounts(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		lab := netlab.New(t, 0)
		here, near := lab.Nodes[0], lab.Nodes[1]
		passed, reset := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		if ipv6 {
			passed, reset = netip.MustParseAddr("fd00:2::1"), netip.MustParseAddr("fd00:2::2")
		}
		table := newTable(t, here)
		if got, err := table.Counts(); err != nil || got != (Counts{}) {
			t.Errorf("nothing is there yet: %+v, %v", got, err)
		}
		if err := table.Set(map[netip.Addr]netip.Addr{passed: near.Addr(ipv6), reset: {}}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			c := strangerTo(t, lab.Client, netip.AddrPortFrom(passed, 80))
			for range 3 {
				if _, err := c.Write([]byte("hello\n")); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Its first segment may be answered before this is sent.
		_, _ = strangerTo(t, lab.Client, netip.AddrPortFrom(reset, 80)).Write([]byte("hello\n"))
		var got Counts
		var err error
		for deadline := time.Now().Add(20 * time.Second); got.Passed < 2 || got.Reset == 0 || got.Connections < 2; {
			if got, err = table.Counts(); err != nil || time.Now().After(deadline) {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		if got.Connections != 2 || got.Repairs != 0 {
			t.Errorf("%+v", got)
		}
	}
}

// strangerTo is an end of a TCP connection that nobody else knows (TCP_REPAIR).
func strangerTo(t *testing.T, h *netlab.Host, to netip.AddrPort) *os.File {
	t.Helper()
	family, at := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port())})
	if to.Addr().Is4() {
		at.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	} else {
		family, at = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	var fd int
	var err error
	h.Do(t, func() { fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	c := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = c.Close() })
	for _, step := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON) },
		func() error { return unix.Connect(fd, at) },
		func() error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}
