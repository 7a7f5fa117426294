package handover

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isNeighbour tells whether packets to a node go there by Ethernet, without a router on the way, at this moment.
func isNeighbour(links *netlink.Handle, node netip.Addr) bool {
	routes, err := links.RouteGet(net.IP(node.AsSlice()))
	if err != nil || len(routes) != 1 || !isDirect(&routes[0]) {
		return false
	}
	link, err := links.LinkByIndex(routes[0].LinkIndex)
	return err == nil && isEthernet(link.Attrs())
}

// isDirect tells whether a route has neither a router, be it of the other family (RTA_VIA), nor puts packets into others.
func isDirect(r *netlink.Route) bool {
	return r.Type == unix.RTN_UNICAST && r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 && r.Encap == nil && r.NewDst == nil
}

// isEthernet tells whether a device asks by ARP or NDP who has an address. One that leads to a single other end, or
// decides by addresses inside of the packet where it goes to (WireGuard), would take it to whoever that is.
func isEthernet(a *netlink.LinkAttrs) bool {
	const want, not = unix.IFF_UP | unix.IFF_BROADCAST, unix.IFF_POINTOPOINT | unix.IFF_NOARP | unix.IFF_LOOPBACK
	return a.EncapType == "ether" && a.RawFlags&want == want && a.RawFlags&not == 0
}
