package svcproxy

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// A segment that connection tracking does not take (out of the window) would go to the client with
// the endpoint's own address; the client would answer with a reset, and that would end the
// connection. Without the rule it does reach the client: that is the second case.
func TestInvalidSegmentsDoNotReachTheClient(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		for _, c := range []struct {
			name, options string
			arrives       bool
		}{
			{"from a Pod", "cluster-cidr $pods", false},
			{"from somewhere else", "cluster-cidr $elsewhere", true},
		} {
			t.Run(familyName(ipv6)+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				testInvalid(t, newWorld(t, ipv6, c.options), c.arrives)
			})
		}
	}
}

func testInvalid(t *testing.T, w *world, arrives bool) {
	t.Helper()
	w.putServices(t, w.expand("metadata: {name: web}\nspec: {clusterIP: $vip1, ports: [{port: 80}]}"))
	w.putEndpoints(t, "web 8080 pod1-0")
	w.sync(t)
	client, server := w.Pods[0][0], w.Pods[1][0]
	c, err := client.Dial(t, "tcp", netip.AddrPort{}, netip.MustParseAddrPort(netJoin(w.expand("$vip1"), "80")), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := netlab.Talk(c, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	own := netip.MustParseAddrPort(c.LocalAddr().String())
	listening := rawTCP(t, client, w.ipv6)
	sending := rawTCP(t, server, w.ipv6)
	from := netip.AddrPortFrom(server.Addr(w.ipv6), 8080)
	if err := unix.Sendto(sending, strangeSegment(from, own), 0, sockaddr(own.Addr())); err != nil {
		t.Fatal(err)
	}
	if got := hears(t, listening, from.Addr()); got != arrives {
		t.Errorf("the segment reaches the client: %v, want %v", got, arrives)
	}
	if arrives {
		return // what comes of it is not ours
	}
	if _, err := netlab.Talk(c, 5*time.Second); err != nil {
		t.Errorf("the connection afterwards: %v", err)
	}
}

func rawTCP(t *testing.T, h *netlab.Host, ipv6 bool) (fd int) {
	t.Helper()
	family := unix.AF_INET
	if ipv6 {
		family = unix.AF_INET6
	}
	var err error
	h.Do(t, func() { fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// hears tells whether a segment from an address arrives.
func hears(t *testing.T, fd int, from netip.Addr) bool {
	t.Helper()
	deadline := time.Now().Add(netlab.Silence)
	buf := make([]byte, 1500)
	for time.Now().Before(deadline) {
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
		_, sa, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			if netip.AddrFrom4(sa.Addr) == from {
				return true
			}
		case *unix.SockaddrInet6:
			if netip.AddrFrom16(sa.Addr) == from {
				return true
			}
		}
	}
	return false
}

// strangeSegment is far out of any window.
func strangeSegment(from, to netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint32(b, 0x12345678)
	b = binary.BigEndian.AppendUint32(b, 0x23456789)
	b = append(b, 5<<4, 0x10, 0x10, 0, 0, 0, 0, 0) // ACK
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(b)))
	var sum uint32
	for _, part := range [][]byte{pseudo, b} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}
