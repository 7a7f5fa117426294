package nft

import (
	"net/netip"
	"testing"
)

// UDP flows are looked for at once, or shortly after the last look; TCP alone can wait.
func TestWhichFlowsAreUrgent(t *testing.T) {
	one := func(protocol uint8) *Service {
		return &Service{Name: "s", Protocol: protocol, Cluster: []netip.AddrPort{ap("10.0.0.1:80")}}
	}
	for _, c := range []struct {
		name   string
		noted  []uint8
		urgent int
	}{
		{"nothing", nil, 0}, {"TCP", []uint8{6}, 0}, {"UDP", []uint8{17}, 1}, {"both", []uint8{17, 6}, 1},
	} {
		f := &flows{poke: make(chan struct{}, 1), urgent: make(chan struct{}, 1), pending: map[string]*Service{}}
		for _, protocol := range c.noted {
			f.note(nil, one(protocol))
		}
		f.written()
		f.written()
		if len(f.poke) != 1 || len(f.urgent) != c.urgent {
			t.Errorf("%s: poked %d, urgent %d, want 1 and %d", c.name, len(f.poke), len(f.urgent), c.urgent)
		}
	}
}

// What a look could not do is for the next one, and what was noted since is newer.
func TestFlowsAreLookedForAgain(t *testing.T) {
	f := &flows{poke: make(chan struct{}, 1), urgent: make(chan struct{}, 1), pending: map[string]*Service{}}
	udp := func(name string) *Service {
		return &Service{Name: name, Protocol: 17, Cluster: []netip.AddrPort{ap("10.0.0.1:80")}}
	}
	missed, older, newer := udp("missed"), udp("changed"), udp("changed")
	f.note(nil, newer)
	f.hurry = false
	f.again(map[string]*Service{"missed": missed, "changed": older}, true)
	if len(f.pending) != 2 || f.pending["missed"] != missed || f.pending["changed"] != newer {
		t.Errorf("pending: %v", f.pending)
	}
	if len(f.poke) != 1 || !f.hurry {
		t.Errorf("poked %d, hurry %v", len(f.poke), f.hurry)
	}
}
