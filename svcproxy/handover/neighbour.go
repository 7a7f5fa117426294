package handover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ways is who knows the routes and the devices: netlink.Handle.
type ways interface {
	RouteGet(to net.IP) ([]netlink.Route, error)
	LinkByIndex(index int) (netlink.Link, error)
	Close()
}

// isNeighbour tells whether packets to a node go there by Ethernet, without a router on the way, at this moment. An error
// says that the kernel did not tell.
func isNeighbour(links ways, node netip.Addr) (bool, error) {
	routes, err := links.RouteGet(net.IP(node.AsSlice()))
	if isNoWay(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("handover: the way to %s: %w", node, err)
	}
	if len(routes) != 1 || !isDirect(&routes[0]) {
		return false, nil
	}
	link, err := links.LinkByIndex(routes[0].LinkIndex)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("handover: the device that leads to %s: %w", node, err)
	}
	return isEthernet(link.Attrs()), nil
}

// isNoWay tells whether an error is the kernel's word that it has no route: none at all; one of type unreachable, prohibit or
// blackhole, in this order; or no IP of this family.
func isNoWay(err error) bool {
	return slices.ContainsFunc([]unix.Errno{
		unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, unix.EAFNOSUPPORT, unix.EOPNOTSUPP,
	}, func(e unix.Errno) bool { return errors.Is(err, e) })
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
