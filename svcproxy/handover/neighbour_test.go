package handover

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// ip runs ip(8) on a host.
func ip(t *testing.T, on *netlab.Host, args string) {
	t.Helper()
	var out []byte
	var err error
	on.Do(t, func() { out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// A neighbour is who is asked for by ARP or NDP, whatever the way is called.
func TestIsNeighbour(t *testing.T) {
	here := netlab.New(t, 0).Nodes[0]
	table := newTable(t, here)
	ip(t, here, "tuntap add dev tun0 mode tun") // of the kind of WireGuard's
	ip(t, here, "link set tun0 up")
	ip(t, here, "route add 198.51.100.0/24 dev tun0")
	ip(t, here, "route add 2001:db8:1::/64 dev tun0")
	ip(t, here, "route add 198.51.101.0/24 via inet6 fd00:168::11 dev eth0")
	ip(t, here, "route add 198.51.102.0/24 nexthop via 192.168.0.11 nexthop via 192.168.0.100")
	ip(t, here, "route add blackhole 198.51.103.0/24")
	ip(t, here, "route add unreachable 198.51.107.0/24")
	ip(t, here, "route add unreachable 2001:db8:3::/64")
	ip(t, here, "route add prohibit 198.51.108.0/24")
	ip(t, here, "route add prohibit 2001:db8:4::/64")
	ip(t, here, "route add 198.51.104.7/32 dev eth0")
	ip(t, here, "route add 2001:db8:2::7/128 dev eth0")
	ip(t, here, "route add 198.51.105.7/32 dev pods")
	ip(t, here, "link add mute type veth peer name deaf")
	ip(t, here, "link set deaf up")
	ip(t, here, "link set mute up arp off")
	ip(t, here, "addr add 198.51.106.1/24 dev mute")
	for _, c := range []struct {
		name, node string
		want       bool
	}{
		{"on the LAN", "192.168.0.11", true},
		{"on the LAN", "fd00:168::11", true},
		{"on the LAN, by a route of its own", "198.51.104.7", true},
		{"on the LAN, by a route of its own", "2001:db8:2::7", true},
		{"on a bridge", "198.51.105.7", true},
		{"on a LAN without ARP", "198.51.106.7", false},
		{"behind a router", "10.180.1.10", false},
		{"behind a router", "fd00:180:1::10", false},
		{"behind the default gateway", "203.0.113.1", false},
		{"behind a router of the other family", "198.51.101.7", false},
		{"behind one of several routers", "198.51.102.7", false},
		{"behind a tunnel", "198.51.100.7", false},
		{"behind a tunnel", "2001:db8:1::7", false},
		{"nowhere", "198.51.103.7", false},
		{"unreachable", "198.51.107.7", false},
		{"unreachable", "2001:db8:3::7", false},
		{"prohibited", "198.51.108.7", false},
		{"prohibited", "2001:db8:4::7", false},
		{"this one", "192.168.0.10", false},
		{"loopback", "127.0.0.1", false},
		{"loopback", "::1", false},
	} {
		if got, err := isNeighbour(table.links, netip.MustParseAddr(c.node)); err != nil || got != c.want {
			t.Errorf("%s (%s): %v, %v, want %v", c.name, c.node, got, err, c.want)
		}
	}
}

// Devices that this machine may not have.
func TestIsEthernet(t *testing.T) {
	const up = unix.IFF_UP | unix.IFF_BROADCAST | unix.IFF_MULTICAST
	for name, c := range map[string]struct {
		encap string
		flags uint32
		want  bool
	}{
		"Ethernet, bridge, bond, VLAN": {"ether", up | unix.IFF_RUNNING, true},
		"WireGuard":                    {"none", unix.IFF_UP | unix.IFF_POINTOPOINT | unix.IFF_NOARP, false},
		"PPPoE":                        {"ppp", unix.IFF_UP | unix.IFF_POINTOPOINT | unix.IFF_NOARP | unix.IFF_MULTICAST, false},
		"IPIP":                         {"ipip", unix.IFF_UP | unix.IFF_NOARP, false},
		"GRE with a multicast remote":  {"gre", unix.IFF_UP | unix.IFF_BROADCAST | unix.IFF_NOARP, false},
		"IPoIB":                        {"infiniband", up, false},
		"dummy":                        {"ether", unix.IFF_UP | unix.IFF_BROADCAST | unix.IFF_NOARP, false},
		"set down":                     {"ether", unix.IFF_BROADCAST | unix.IFF_MULTICAST, false},
		"loopback":                     {"loopback", unix.IFF_UP | unix.IFF_LOOPBACK, false},
	} {
		if got := isEthernet(&netlink.LinkAttrs{EncapType: c.encap, RawFlags: c.flags}); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What is set again is written anew if the way to a node is another by now.
func TestSetAfterRoutesChanged(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1].IPv4
	table, vip := newTable(t, here), netip.MustParseAddr("192.0.2.1")
	for _, step := range []struct {
		command string
		want    netip.Addr
	}{
		{"link show", near},
		{"route add 192.168.0.11/32 via 192.168.0.100", netip.IPv4Unspecified()},
		{"route del 192.168.0.11/32 via 192.168.0.100", near},
		{"link set eth0 down", netip.IPv4Unspecified()},
		{"link set eth0 up", near},
	} {
		ip(t, here, step.command)
		if err := table.Set(map[netip.Addr]netip.Addr{vip: near}); err != nil {
			t.Fatal(err)
		}
		if got := inKernel(t, table); !maps.Equal(got, map[netip.Addr]netip.Addr{vip: step.want}) {
			t.Errorf("after ip %s: %v, want %v", step.command, got, step.want)
		}
	}
}

// deafWays answer one question with an error.
type deafWays struct {
	ways
	toRoute, toLink error
}

func (w deafWays) RouteGet(to net.IP) ([]netlink.Route, error) {
	if w.toRoute != nil {
		return nil, w.toRoute
	}
	return w.ways.RouteGet(to)
}

func (w deafWays) LinkByIndex(index int) (netlink.Link, error) {
	if w.toLink != nil {
		return nil, w.toLink
	}
	return w.ways.LinkByIndex(index)
}

// Whom the kernel does not tell about is not taken for nobody, which would reset connections: what there was stays, and the next
// Set asks again.
func TestSetWithoutAnswer(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1].IPv4
	table, vip := newTable(t, here), netip.MustParseAddr("192.0.2.1")
	has := map[netip.Addr]netip.Addr{vip: near}
	if err := table.Set(has); err != nil {
		t.Fatal(err)
	}
	answering := table.links
	wants := map[netip.Addr]netip.Addr{vip: near, vip.Next(): near}
	for _, deaf := range []deafWays{
		{ways: answering, toRoute: unix.ENOBUFS}, {ways: answering, toLink: unix.ENOBUFS},
	} {
		table.links = deaf
		if err := table.Set(wants); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("an error of the kernel became %v", err)
		}
		if got := inKernel(t, table); !maps.Equal(got, has) {
			t.Errorf("in the kernel: %v, want %v", got, has)
		}
	}
	table.links = deafWays{ways: answering, toLink: netlink.LinkNotFoundError{}}
	if err := table.Set(has); err != nil {
		t.Error("the device is no more: ", err)
	}
	if got, want := inKernel(t, table), map[netip.Addr]netip.Addr{vip: netip.IPv4Unspecified()}; !maps.Equal(got, want) {
		t.Errorf("the device is no more: %v, want %v", got, want)
	}
	table.links = answering
	if err := table.Set(wants); err != nil {
		t.Fatal(err)
	}
	if got := inKernel(t, table); !maps.Equal(got, wants) {
		t.Errorf("in the kernel: %v, want %v", got, wants)
	}
}
