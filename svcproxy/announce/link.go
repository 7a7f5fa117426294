package announce

import (
	"net"
	"path"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// link is what matters of a network interface.
type link struct {
	index int
	name  string
	mac   mac
}

// linkReason says why there are no announcements on an interface.
type linkReason string

const (
	linkUsed        linkReason = ""
	linkLoopback    linkReason = "loopback"
	linkDown        linkReason = "down"
	linkNoARP       linkReason = "without ARP"
	linkNotEthernet linkReason = "not Ethernet"
	linkEnslaved    linkReason = "a port of a bridge, bond or team, which is used in its place"
	linkPods        linkReason = "one end of a veth pair without a subnet, which leads to a Pod"
	linkFiltered    linkReason = "not among the interfaces to announce on"
)

// judgeLink decides whether addresses are announced on an interface. patterns are those that
// the user gave (path.Match); without any, every interface will do that leads to a LAN.
//
// A port of a bridge, bond or team is never used: what it receives belongs to its master. A
// port of a VRF is, because a VRF takes no frames away. A veth is used only if it is named or
// has an address in a subnet: on a node there is one for each Pod.
func judgeLink(l netlink.Link, masterKind string, subnet bool, patterns []string) linkReason {
	a := l.Attrs()
	switch {
	case a.Flags&net.FlagLoopback != 0:
		return linkLoopback
	case a.MasterIndex != 0 && masterKind != "vrf":
		return linkEnslaved
	case a.RawFlags&unix.IFF_NOARP != 0:
		return linkNoARP
	case len(a.HardwareAddr) != 6 || mac(a.HardwareAddr) == (mac{}):
		return linkNotEthernet
	case len(patterns) > 0 && !matchesAny(a.Name, patterns):
		return linkFiltered
	case len(patterns) == 0 && l.Type() == "veth" && !subnet:
		return linkPods
	case a.Flags&net.FlagUp == 0 || a.RawFlags&unix.IFF_RUNNING == 0:
		return linkDown
	}
	return linkUsed
}

func matchesAny(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// usableLinks reads the interfaces from the kernel. skipped has the reason for each of the others.
func usableLinks(patterns []string) (used []link, skipped map[string]linkReason, err error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, nil, err
	}
	kinds := map[int]string{}
	for _, l := range all {
		kinds[l.Attrs().Index] = l.Type()
	}
	subnets, err := linksWithSubnet()
	if err != nil {
		return nil, nil, err
	}
	skipped = map[string]linkReason{}
	for _, l := range all {
		a := l.Attrs()
		if why := judgeLink(l, kinds[a.MasterIndex], subnets[a.Index], patterns); why != linkUsed {
			skipped[a.Name] = why
			continue
		}
		used = append(used, link{index: a.Index, name: a.Name, mac: mac(a.HardwareAddr)})
	}
	return used, skipped, nil
}

// linksWithSubnet are the indexes of the interfaces that have an address of a LAN: neither
// link-local nor alone in its prefix.
func linksWithSubnet() (map[int]bool, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	with := map[int]bool{}
	for _, a := range addrs {
		ones, bits := a.Mask.Size()
		if ones < bits && a.IP.IsGlobalUnicast() {
			with[a.LinkIndex] = true
		}
	}
	return with, nil
}
