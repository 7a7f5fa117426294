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
