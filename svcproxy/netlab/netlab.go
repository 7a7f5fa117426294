// Package netlab makes a small network of namespaces for tests: a client and two nodes on one
// LAN, and Pods on the nodes. Everything in it is real but the wires. Nothing has a name outside
// of it, so that any number of them can be at once, and it is gone with the test.
//
//	client 192.168.0.100 ---+--- node 0  192.168.0.10 --- Pods 10.180.0.10, 10.180.0.11, ...
//	       fd00:168::100    |            fd00:168::10         fd00:180:0::10, ...
//	                        +--- node 1  192.168.0.11 --- Pods 10.180.1.10, 10.180.1.11, ...
//
// The client's routes to ClusterIPs (172.30.0.0/16, fd00:30::/64) and LoadBalancer addresses
// (192.0.2.0/24, fd00:2::/64) lead to node 0, and the ones of the Pods to their node.
package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Lab is the whole network.
type Lab struct {
	Client *Host
	Nodes  [2]*Host
	Pods   [2][]*Host
	lan    *Host
}

// Host is one network namespace.
type Host struct {
	Name string
	// IPv4 and IPv6 are its addresses towards the others.
	IPv4, IPv6 netip.Addr
	ns         netns.NsHandle
	links      *netlink.Handle
}

// Addr is the host's address of one family.
func (h *Host) Addr(ipv6 bool) netip.Addr {
	if ipv6 {
		return h.IPv6
	}
	return h.IPv4
}

// New makes a Lab with so many Pods on each node. It takes root, and fails the test without.
func New(t testing.TB, podsPerNode int) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root (sudo go test, or in a privileged container)")
	}
	l := &Lab{}
	lan := newHost(t, "lan")
	lan.bridge(t, "lan")
	l.lan = lan
	l.Client = newHost(t, "client")
	l.Client.join(t, lan, "lan", "192.168.0.100/24", "fd00:168::100/64")
	for i := range l.Nodes {
		n := newHost(t, fmt.Sprintf("node%d", i))
		n.forward(t)
		n.join(t, lan, "lan", fmt.Sprintf("192.168.0.%d/24", 10+i), fmt.Sprintf("fd00:168::%d/64", 10+i))
		n.bridge(t, "pods")
		n.address(t, "pods", fmt.Sprintf("10.180.%d.1/24", i), fmt.Sprintf("fd00:180:%d::1/64", i))
		l.Nodes[i] = n
		for j := range podsPerNode {
			p := newHost(t, fmt.Sprintf("pod%d-%d", i, j))
			p.join(t, n, "pods", fmt.Sprintf("10.180.%d.%d/24", i, 10+j), fmt.Sprintf("fd00:180:%d::%d/64", i, 10+j))
			p.Route(t, "0.0.0.0/0", fmt.Sprintf("10.180.%d.1", i))
			p.Route(t, "::/0", fmt.Sprintf("fd00:180:%d::1", i))
			l.Pods[i] = append(l.Pods[i], p)
		}
	}
	l.routes(t)
	return l
}

// Plug puts another machine on the LAN, at 192.168.0.N and fd00:168::N in hexadecimal, which forwards packets.
func (l *Lab) Plug(t testing.TB, name string, n byte) *Host {
	t.Helper()
	h := newHost(t, name)
	h.forward(t)
	h.join(t, l.lan, "lan", fmt.Sprintf("192.168.0.%d/24", n), fmt.Sprintf("fd00:168::%x/64", n))
	h.Route(t, "0.0.0.0/0", l.Client.IPv4.String())
	h.Route(t, "::/0", l.Client.IPv6.String())
	return h
}

func (l *Lab) routes(t testing.TB) {
	t.Helper()
	for i, n := range l.Nodes {
		other := l.Nodes[1-i]
		n.Route(t, fmt.Sprintf("10.180.%d.0/24", 1-i), other.IPv4.String())
		n.Route(t, fmt.Sprintf("fd00:180:%d::/64", 1-i), other.IPv6.String())
		// Somewhere for what is of nobody, so that it is not the lack of a route that stops it.
		n.Route(t, "0.0.0.0/0", l.Client.IPv4.String())
		n.Route(t, "::/0", l.Client.IPv6.String())
		l.Client.Route(t, fmt.Sprintf("10.180.%d.0/24", i), n.IPv4.String())
		l.Client.Route(t, fmt.Sprintf("fd00:180:%d::/64", i), n.IPv6.String())
	}
	for _, r := range []string{"172.30.0.0/16", "192.0.2.0/24"} {
		l.Client.Route(t, r, l.Nodes[0].IPv4.String())
	}
	for _, r := range []string{"fd00:30::/64", "fd00:2::/64"} {
		l.Client.Route(t, r, l.Nodes[0].IPv6.String())
	}
}

// NewHost makes one namespace that nothing is joined to.
func NewHost(t testing.TB) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network namespace: run it as root (sudo go test, or in a privileged container)")
	}
	return newHost(t, "host")
}

func newHost(t testing.TB, name string) *Host {
	t.Helper()
	h := &Host{Name: name}
	var err error
	thread(func() { h.ns, err = netns.New() })
	if err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { _ = h.ns.Close() })
	if h.links, err = netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.links.Close)
	h.up(t, "lo")
	// A new address can be used at once, without asking whether somebody has it.
	h.Sysctl(t, "net/ipv6/conf/all/accept_dad", "0")
	h.Sysctl(t, "net/ipv6/conf/default/accept_dad", "0")
	return h
}

// thread runs f on a thread of its own, which ends with it, so that its namespace is nobody's.
func thread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// Do runs f in the host's namespace. Sockets that f opens stay there; goroutines that it starts
// are elsewhere.
func (h *Host) Do(t testing.TB, f func()) {
	t.Helper()
	var err error
	thread(func() {
		if err = netns.Set(h.ns); err == nil {
			f()
		}
	})
	if err != nil {
		t.Fatalf("enter %s: %v", h.Name, err)
	}
}

// FD is the namespace's file descriptor, for programs that nsenter(1).
func (h *Host) FD() int { return int(h.ns) }

// Sysctl writes one, by its path under /proc/sys.
func (h *Host) Sysctl(t testing.TB, path, value string) {
	t.Helper()
	h.Do(t, func() {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0o600); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
	})
}

func (h *Host) forward(t testing.TB) {
	t.Helper()
	h.Sysctl(t, "net/ipv4/ip_forward", "1")
	h.Sysctl(t, "net/ipv6/conf/all/forwarding", "1")
	h.Sysctl(t, "net/ipv4/conf/all/send_redirects", "0")
	h.Sysctl(t, "net/ipv4/conf/default/send_redirects", "0")
	h.Sysctl(t, "net/ipv4/icmp_ratelimit", "0")
	h.Sysctl(t, "net/ipv6/icmp/ratelimit", "0")
}

func (h *Host) up(t testing.TB, name string) netlink.Link {
	t.Helper()
	link, err := h.links.LinkByName(name)
	if err == nil {
		err = h.links.LinkSetUp(link)
	}
	if err != nil {
		t.Fatalf("%s: %s: %v", h.Name, name, err)
	}
	return link
}

func (h *Host) bridge(t testing.TB, name string) {
	t.Helper()
	if err := h.links.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		t.Fatal(err)
	}
	h.up(t, name)
}

// join connects eth0 of h to a bridge of another host.
func (h *Host) join(t testing.TB, other *Host, bridge, cidr4, cidr6 string) {
	t.Helper()
	port := "to-" + h.Name
	if err := other.links.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns),
	}); err != nil {
		t.Fatalf("veth to %s: %v", h.Name, err)
	}
	master, err := other.links.LinkByName(bridge)
	if err == nil {
		err = other.links.LinkSetMaster(other.up(t, port), master)
	}
	if err == nil {
		// As CNI plugins do: where bridges call the IP hooks, a Pod does not reach itself without.
		err = other.links.LinkSetHairpin(other.up(t, port), true)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.up(t, "eth0")
	h.address(t, "eth0", cidr4, cidr6)
	h.IPv4, h.IPv6 = netip.MustParsePrefix(cidr4).Addr(), netip.MustParsePrefix(cidr6).Addr()
}

func (h *Host) address(t testing.TB, dev string, cidrs ...string) {
	t.Helper()
	link, err := h.links.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cidrs {
		a, err := netlink.ParseAddr(c)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = 0
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.links.AddrAdd(link, a); err != nil {
			t.Fatalf("%s: %s: %v", h.Name, c, err)
		}
	}
}

// Address gives eth0 another address.
func (h *Host) Address(t testing.TB, cidr string) {
	t.Helper()
	h.address(t, "eth0", cidr)
}

// Route adds one.
func (h *Host) Route(t testing.TB, to, via string) {
	t.Helper()
	p := netip.MustParsePrefix(to)
	dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	if err := h.links.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}); err != nil {
		t.Fatalf("%s: route to %s via %s: %v", h.Name, to, via, err)
	}
}

// OnLink makes a range one of the LAN: its addresses are asked for there by ARP and NDP.
func (h *Host) OnLink(t testing.TB, to string) {
	t.Helper()
	p := netip.MustParsePrefix(to)
	dst := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	link, err := h.links.LinkByName("eth0")
	if err == nil {
		err = h.links.RouteReplace(&netlink.Route{Dst: dst, LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK})
	}
	if err != nil {
		t.Fatalf("%s: route to %s: %v", h.Name, to, err)
	}
}

// Neighbour is the Ethernet address that the host has for another one's address, nil if it has none.
func (h *Host) Neighbour(t testing.TB, addr netip.Addr) net.HardwareAddr {
	t.Helper()
	all, err := h.links.NeighList(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr {
			return n.HardwareAddr
		}
	}
	return nil
}

// MAC is the Ethernet address of the host's eth0.
func (h *Host) MAC(t testing.TB) net.HardwareAddr {
	t.Helper()
	link, err := h.links.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().HardwareAddr
}

// Unplug takes the host off the LAN.
func (h *Host) Unplug(t testing.TB) {
	t.Helper()
	link, err := h.links.LinkByName("eth0")
	if err == nil {
		err = h.links.LinkSetDown(link)
	}
	if err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
}
