package svcproxy

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// The first packet of an SCTP association comes to an endpoint, and its answer back, or it is refused; explain and the
// counters know it. There are no associations here: a kernel may translate SCTP and have no sockets of it.
func TestSCTP(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) { testSCTP(t, ipv6) })
	}
}

func testSCTP(t *testing.T, ipv6 bool) {
	t.Helper()
	l := netlab.New(t, 1)
	node, pod := l.Nodes[0], l.Pods[0][0]
	vip, empty := "172.30.0.1", "172.30.0.2"
	if ipv6 {
		vip, empty = "fd00:30::1", "fd00:30::2"
	}
	sctp := func(s *corev1.Service) {
		s.Spec.Ports[0].Protocol = corev1.ProtocolSCTP
		if ipv6 {
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
		}
	}
	slice := newSlice("web", "", pod.Addr(ipv6).String())
	*slice.Ports[0].Protocol = corev1.ProtocolSCTP
	if ipv6 {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	c, _, delta := compileAll(t, newService("web", vip, sctp), slice, newService("empty", empty, sctp))
	w, _ := watchFlows(t, node)
	var plane *nft.Plane
	var err error
	node.Do(t, func() { plane, err = nft.New(nft.Config{}) })
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	if err := (Kernel{Plane: plane}).Apply(Update{Delta: delta, Network: &Network{}, Complete: true}); err != nil {
		t.Fatal(err)
	}

	client, endpoint := rawSCTP(t, l.Client, ipv6), rawSCTP(t, pod, ipv6)
	client.connect(t, netip.MustParseAddr(vip))
	client.send(t, 40000, 80, chunkInit)
	if got := endpoint.receive(t); got != [2]uint16{40000, 8080} {
		t.Fatalf("ports %v came to the endpoint", got)
	}
	endpoint.connect(t, l.Client.Addr(ipv6))
	endpoint.send(t, 8080, 40000, chunkInitAck)
	if got := client.receive(t); got != [2]uint16{80, 40000} {
		t.Errorf("ports %v came back", got)
	}
	refused := rawSCTP(t, l.Client, ipv6)
	refused.connect(t, netip.MustParseAddr(empty))
	refused.send(t, 40000, 80, chunkInit)
	if _, err := refused.read(); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("without an endpoint: %v", err)
	}

	explainSCTP(t, c, node, Packet{l.Client.Addr(ipv6), netip.AddrPortFrom(netip.MustParseAddr(vip), 80), corev1.ProtocolSCTP}, Delivered)
	explainSCTP(t, c, node, Packet{l.Client.Addr(ipv6), netip.AddrPortFrom(netip.MustParseAddr(empty), 80), corev1.ProtocolSCTP}, Rejected)
	counts, err := plane.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range counts {
		if n.Protocol != unix.IPPROTO_SCTP || n.Connections != 1 {
			t.Errorf("%+v", n)
		}
	}
	if len(counts) != 2 {
		t.Errorf("%+v", counts)
	}
	if got := lookNow(w); got.Connections != 1 || got.Sent == 0 || got.Received == 0 {
		t.Errorf("%+v", got)
	}
}

func explainSCTP(t *testing.T, c *compiler, node *netlab.Host, p Packet, want Verdict) {
	t.Helper()
	x := newExplainer(c, Network{}, []netip.Addr{node.IPv4, node.IPv6})
	e := x.Explain(p)
	var live Live
	var err error
	node.Do(t, func() { live, err = nft.Look() })
	if err != nil {
		t.Fatal(err)
	}
	x.Compare(e, live)
	var text strings.Builder
	_ = e.Write(&text)
	if e.Verdict != want || !e.Kernel.Agrees || !strings.Contains(text.String(), ":80/SCTP") {
		t.Errorf("want %s:\n%s", want, text.String())
	}
}

// sctpSocket sends and hears SCTP packets as they are.
type sctpSocket struct {
	*os.File
	ipv6 bool
}

func rawSCTP(t *testing.T, h *netlab.Host, ipv6 bool) sctpSocket {
	t.Helper()
	family := unix.AF_INET
	if ipv6 {
		family = unix.AF_INET6
	}
	var fd int
	var err error
	h.Do(t, func() {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
	})
	if err != nil {
		t.Fatal(err)
	}
	s := sctpSocket{os.NewFile(uintptr(fd), "sctp"), ipv6}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.SetDeadline(time.Now().Add(longWait)); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s sctpSocket) connect(t *testing.T, to netip.Addr) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = unix.Connect(int(fd), sockaddr(to)) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Chunks that begin an association (RFC 9260 sections 3.3.2 and 3.3.3). The second one has the first one's tag.
const (
	chunkInit    = 1
	chunkInitAck = 2
)

func (s sctpSocket) send(t *testing.T, from, to uint16, chunk byte) {
	t.Helper()
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = append(b, 0, 0, 0, chunk-chunkInit, 0, 0, 0, 0) // verification tag, checksum
	b = append(b, chunk, 0, 0, 20)
	b = append(b, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
}

func (s sctpSocket) receive(t *testing.T) (ports [2]uint16) {
	t.Helper()
	b, err := s.read()
	if err != nil || len(b) < 4 {
		t.Fatal(b, err)
	}
	return [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
}

// read gives a packet without the header of IPv4, which is not there in IPv6.
func (s sctpSocket) read() ([]byte, error) {
	b := make([]byte, 1500)
	n, err := s.Read(b)
	if err == nil && !s.ipv6 {
		return b[20:n], nil
	}
	return b[:n], err
}
