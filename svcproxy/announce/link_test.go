package announce

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestJudgeLink(t *testing.T) {
	up := netlink.LinkAttrs{
		Name: "eth0", Index: 2, HardwareAddr: net.HardwareAddr(ownMAC[:]),
		Flags: net.FlagUp | net.FlagBroadcast | net.FlagMulticast, RawFlags: unix.IFF_UP | unix.IFF_RUNNING,
	}
	with := func(change func(a *netlink.LinkAttrs)) netlink.LinkAttrs {
		a := up
		change(&a)
		return a
	}
	enslaved := with(func(a *netlink.LinkAttrs) { a.MasterIndex = 9 })
	for _, tt := range []struct {
		name     string
		link     netlink.Link
		master   string
		subnet   bool
		patterns []string
		want     linkReason
	}{
		{name: "Ethernet", link: &netlink.Device{LinkAttrs: up}},
		{name: "bond", link: &netlink.Bond{LinkAttrs: up}},
		{name: "port of a bond", link: &netlink.Device{LinkAttrs: enslaved}, master: "bond", want: linkEnslaved},
		{name: "port of a bond, named", link: &netlink.Device{LinkAttrs: enslaved}, master: "bond", patterns: []string{"eth0"}, want: linkEnslaved},
		{name: "port of a team", link: &netlink.Device{LinkAttrs: enslaved}, master: "team", want: linkEnslaved},
		{name: "bridge", link: &netlink.Bridge{LinkAttrs: up}},
		{name: "port of a bridge", link: &netlink.Device{LinkAttrs: enslaved}, master: "bridge", want: linkEnslaved},
		{name: "port of Open vSwitch", link: &netlink.Device{LinkAttrs: enslaved}, master: "openvswitch", want: linkEnslaved},
		{name: "port of a VRF", link: &netlink.Device{LinkAttrs: enslaved}, master: "vrf"},
		{name: "VLAN", link: &netlink.Vlan{LinkAttrs: up, VlanId: 10}},
		{name: "VLAN on a bond, its parent being no master", link: &netlink.Vlan{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.ParentIndex = 7 })}},
		{name: "macvlan", link: &netlink.Macvlan{LinkAttrs: up}},
		{name: "veth of a Pod", link: &netlink.Veth{LinkAttrs: up}, want: linkPods},
		{name: "veth of a node that is a container", link: &netlink.Veth{LinkAttrs: up}, subnet: true},
		{name: "veth, named", link: &netlink.Veth{LinkAttrs: up}, patterns: []string{"eth*"}},
		{name: "loopback", link: &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.Flags |= net.FlagLoopback })}, want: linkLoopback},
		{name: "NOARP", link: &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.RawFlags |= unix.IFF_NOARP })}, want: linkNoARP},
		{name: "tunnel", link: &netlink.Iptun{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.HardwareAddr = nil })}, want: linkNotEthernet},
		{name: "InfiniBand", link: &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.HardwareAddr = make([]byte, 20) })}, want: linkNotEthernet},
		{name: "set down", link: &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.Flags &^= net.FlagUp })}, want: linkDown},
		{name: "no carrier", link: &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.RawFlags &^= unix.IFF_RUNNING })}, want: linkDown},
		{name: "not named", link: &netlink.Device{LinkAttrs: up}, patterns: []string{"eno*", "bond0"}, want: linkFiltered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := judgeLink(tt.link, tt.master, tt.subnet, tt.patterns); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
