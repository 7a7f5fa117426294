package announce

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const (
	lanVIP4, lanVIP6 = "198.51.100.100", "2001:db8:51::100"
	node1MAC         = "02:00:00:00:00:01"
	node2MAC         = "02:00:00:00:00:02"
)

var bothVIPs = []string{lanVIP4, lanVIP6}

func duties(probe bool, addrs ...string) map[netip.Addr]Duty {
	all := map[netip.Addr]Duty{}
	for _, a := range addrs {
		all[netip.MustParseAddr(a)] = Duty{Probe: probe}
	}
	return all
}

// A client finds the node that answers, though the address is on none of its interfaces.
func TestResponderAnswers(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("client", 9)
	n := l.node("node1", childConfig{Duties: duties(true, bothVIPs...)})
	n.announced(lanVIP4)
	for _, vip := range bothVIPs {
		l.resolves("client", vip, node1MAC)
	}
	if addrs := l.ip("node1", "addr show"); strings.Contains(addrs, lanVIP4) || strings.Contains(addrs, lanVIP6) {
		t.Errorf("an announced address is on an interface:\n%s", addrs)
	}
	l.poke("client", "198.51.100.101")
	if got := l.neighbour("client", "198.51.100.101"); got != "" {
		t.Errorf("an address of nobody is answered by %s", got)
	}
}

// An address that no interface is for is not said to be announced, until there is one.
func TestNoInterfaceForAnAddress(t *testing.T) {
	for name, of := range map[string]childConfig{
		"of the address": {Duties: map[netip.Addr]Duty{
			netip.MustParseAddr(lanVIP4): {Interfaces: []string{"lan*"}, Probe: true}, netip.MustParseAddr(lanVIP6): {Interfaces: []string{"lan*"}},
		}},
		"of the node": {Duties: duties(true, bothVIPs...), Interfaces: []string{"lan*"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t)
			l.host("node1", 1)
			l.host("client", 9)
			n := l.node("node1", of)
			missing := map[netip.Addr]bool{}
			for len(missing) < 2 {
				e := n.said("that there is no interface", func(e childEvent) bool {
					if e.Announced.IsValid() {
						t.Fatalf("announces %s on no interface", e.Announced)
					}
					return e.Nowhere.IsValid()
				})
				if missing[e.Nowhere] || !slices.Equal(e.Have, []string{"eth0"}) {
					t.Errorf("said %s, there is %v", e.Nowhere, e.Have)
				}
				missing[e.Nowhere] = true
			}
			l.ip("node1", "link set eth0 down")
			l.ip("node1", "link set eth0 name lan0")
			l.ip("node1", "link set lan0 up")
			for range bothVIPs {
				n.said("that it announces both", func(e childEvent) bool { return e.Announced.IsValid() })
			}
			l.ip("node1", "addr replace 2001:db8:51::1/64 dev lan0 nodad") // it goes when the link does
			for _, vip := range bothVIPs {
				l.resolves("client", vip, node1MAC)
			}
		})
	}
}

// An entry that the client has is moved by the announcement alone: the client asks nobody,
// because its entry is permanent as far as asking goes.
func TestGratuitousMovesTheNeighbour(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("node2", 2)
	l.host("client", 9)
	first := l.node("node1", childConfig{Duties: duties(false, bothVIPs...)})
	for _, vip := range bothVIPs {
		l.resolves("client", vip, node1MAC)
	}
	first.kill()
	second := l.node("node2", childConfig{Duties: duties(false, bothVIPs...)})
	second.announced(lanVIP4)
	for _, vip := range bothVIPs {
		eventually(t, func() (string, bool) {
			got := l.neighbour("client", vip) // without a poke
			return vip + " is still at " + got, got == node2MAC
		})
	}
}

// A host that has the address already keeps it, and whoever set it up wrong hears of it.
func TestConflictBeforeTheFirstAnnouncement(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("squatter", 5)
	l.host("client", 9)
	l.ip("squatter", "addr add "+lanVIP4+"/24 dev eth0")
	l.ip("squatter", "addr add "+lanVIP6+"/64 dev eth0 nodad")
	for _, vip := range bothVIPs {
		l.resolves("client", vip, "02:00:00:00:00:05")
	}
	n := l.node("node1", childConfig{Duties: duties(true, append(bothVIPs, "198.51.100.102")...)})
	seen := map[string]bool{}
	for len(seen) < 2 {
		e := n.said("that two addresses are in conflict", func(e childEvent) bool {
			if e.Announced.String() == lanVIP4 || e.Announced.String() == lanVIP6 {
				t.Fatalf("announces %s, which another host has", e.Announced)
			}
			return e.Conflict != nil
		})
		if e.Conflict.Announcing || e.Conflict.MAC.String() != "02:00:00:00:00:05" || e.Conflict.Interface != "eth0" {
			t.Errorf("got %+v", e.Conflict)
		}
		seen[e.Conflict.Address.String()] = true
	}
	for _, vip := range bothVIPs {
		if got := l.neighbour("client", vip); got != "02:00:00:00:00:05" {
			t.Errorf("%s is at %q now", vip, got)
		}
	}
	l.resolves("client", "198.51.100.102", node1MAC)
}

// An address that another host has is announced once that host has given it up, and not before.
func TestConflictEnds(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("squatter", 5)
	l.host("client", 9)
	l.ip("squatter", "addr add "+lanVIP4+"/24 dev eth0")
	l.ip("squatter", "addr add "+lanVIP6+"/64 dev eth0 nodad")
	n := l.node("node1", childConfig{Duties: duties(true, bothVIPs...)})
	for range bothVIPs {
		n.said("that an address is in conflict", func(e childEvent) bool {
			if e.Announced.IsValid() {
				t.Fatalf("announces %s, which another host has", e.Announced)
			}
			return e.Conflict != nil
		})
	}
	l.ip("squatter", "addr del "+lanVIP4+"/24 dev eth0")
	l.ip("squatter", "addr del "+lanVIP6+"/64 dev eth0")
	for range bothVIPs {
		n.said("that it announces an address, or is in conflict again", func(e childEvent) bool {
			if e.Conflict != nil {
				t.Errorf("told twice: %+v", e.Conflict)
			}
			return e.Announced.IsValid()
		})
	}
	for _, vip := range bothVIPs {
		l.resolves("client", vip, node1MAC)
	}
}

// The kernel of a host that is given an address of ours by hand: IPv6 asks before it uses the address, and
// does not; of IPv4 it is heard when it sends from there, and the address is defended.
func TestConflictWithKernel(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("intruder", 5)
	l.host("client", 9)
	n := l.node("node1", childConfig{Duties: duties(true, bothVIPs...)})
	for _, vip := range bothVIPs {
		l.resolves("client", vip, node1MAC)
	}
	for range bothVIPs {
		n.said("that it announces", func(e childEvent) bool { return e.Announced.IsValid() })
	}
	conflict := func(vip string) {
		t.Helper()
		e := n.said("that "+vip+" is in conflict", func(e childEvent) bool { return e.Conflict != nil })
		if e.Conflict.Address.String() != vip || !e.Conflict.Announcing || e.Conflict.MAC.String() != "02:00:00:00:00:05" {
			t.Errorf("got %+v", e.Conflict)
		}
	}
	// Before it asks, it hears one of the announcements of the first seconds, and does not ask at all.
	for asked := false; !asked; asked = len(n.says) > 0 {
		l.ip("intruder", "addr replace "+lanVIP6+"/64 dev eth0")
		eventually(t, func() (string, bool) {
			addrs := l.ip("intruder", "-6 addr show dev eth0")
			return "the intruder uses the address: " + addrs, strings.Contains(addrs, "dadfailed")
		})
		l.ip("intruder", "addr del "+lanVIP6+"/64 dev eth0")
	}
	conflict(lanVIP6)
	l.ip("intruder", "addr add "+lanVIP4+"/24 dev eth0")
	eventually(t, func() (string, bool) { // in the first second it could be the node that had the address before
		l.ip("intruder", "neigh flush all")
		l.pokeFrom("intruder", lanVIP4, "198.51.100.9")
		return "the node does not say that " + lanVIP4 + " is in conflict", len(n.says) > 0
	})
	conflict(lanVIP4)
	for _, vip := range bothVIPs {
		eventually(t, func() (string, bool) {
			got := l.neighbour("client", vip) // without a poke: the defence has come
			return vip + " is at " + got, got == node1MAC
		})
	}
}

// A host that comes up with an address of ours is told that it is taken, and is reported.
func TestConflictWhileAnnouncing(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("intruder", 5)
	n := l.node("node1", childConfig{Duties: duties(true, bothVIPs...)})
	for _, vip := range bothVIPs {
		l.resolves("intruder", vip, node1MAC)
	}
	intruder := l.node("intruder", childConfig{Duties: duties(true, bothVIPs...)})
	for _, tt := range []struct {
		at         *node
		announcing bool
		mac        string
	}{{n, true, "02:00:00:00:00:05"}, {intruder, false, node1MAC}} {
		for seen := map[netip.Addr]bool{}; len(seen) < len(bothVIPs); {
			e := tt.at.said("that both addresses are in conflict", func(e childEvent) bool { return e.Conflict != nil })
			if e.Conflict.Announcing != tt.announcing || e.Conflict.MAC.String() != tt.mac {
				t.Errorf("got %+v", e.Conflict)
			}
			seen[e.Conflict.Address] = true
		}
	}
}

// Interfaces come, go, and become part of a bridge, and announcements follow. Those who listened on them end as well.
func TestInterfacesComeAndGo(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("client", 9)
	n := l.node("node1", childConfig{Duties: duties(false, bothVIPs...), Interfaces: []string{"eth*", "br*", "mv*"}})
	n.announced(lanVIP4)
	l.resolves("client", lanVIP4, node1MAC)

	l.ip("node1", "link set eth0 down")
	l.ip("node1", "link set eth0 up")
	l.ip("client", "neigh flush all")
	for _, vip := range bothVIPs {
		l.resolves("client", vip, node1MAC)
	}

	l.ip("node1", "link add br1 address 02:00:00:00:00:b1 type bridge")
	l.ip("node1", "link set eth0 master br1")
	l.ip("node1", "link set br1 up")
	l.ip("client", "neigh flush all")
	for _, vip := range bothVIPs {
		l.resolves("client", vip, "02:00:00:00:00:b1")
	}

	l.ip("node1", "link set eth0 nomaster")
	l.ip("node1", "link del br1")
	l.ip("client", "neigh flush all")
	for _, vip := range bothVIPs {
		l.resolves("client", vip, node1MAC)
	}
	n.stop()
	n.ended()
}

// A frame that a lower interface takes to an upper one is answered by the upper one alone.
func TestUpperInterface(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("client", 9)
	l.ip("node1", "link add link eth0 name mv0 address 02:00:00:00:00:d1 type macvlan mode bridge")
	l.ip("node1", "link set mv0 up")
	n := l.node("node1", childConfig{Duties: duties(false, bothVIPs...), Interfaces: []string{"mv*"}})
	n.announced(lanVIP4)
	for _, vip := range bothVIPs {
		l.resolves("client", vip, "02:00:00:00:00:d1")
	}
}

// A client that knows the address asks again by unicast: it must be answered too, or the
// client forgets the address each time.
func TestUnicastQuestions(t *testing.T) {
	l := newLAN(t)
	l.host("node1", 1)
	l.host("client", 9)
	n := l.node("node1", childConfig{Duties: duties(false, bothVIPs...)})
	n.announced(lanVIP4)
	for _, vip := range bothVIPs {
		l.resolves("client", vip, node1MAC)
		l.ip("client", "neigh replace "+vip+" lladdr "+node1MAC+" dev eth0 nud probe")
		eventually(t, func() (string, bool) {
			got := l.ip("client", "neigh show "+vip)
			return "asked by unicast, " + vip + " is: " + got, strings.Contains(got, "REACHABLE")
		})
	}
}
