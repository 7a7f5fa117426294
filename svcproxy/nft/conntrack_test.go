package nft

import (
	"net/netip"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

func idleFlows() *flows {
	return &flows{poke: make(chan struct{}, 1), urgent: make(chan struct{}, 1), pending: map[string]struct{}{}}
}

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
		f := idleFlows()
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

// Of what a Service was and is depends whether there may be flows that are wrong now.
func TestWhichServicesAreNoted(t *testing.T) {
	const a, b = "10.0.0.1:80", "10.0.0.2:80"
	service := func(protocol uint8, frontends int, endpoints ...string) *Service {
		s := &Service{Name: "s", Protocol: protocol}
		for i := range frontends {
			s.Frontends = append(s.Frontends, Frontend{Port: uint16(30000 + i), Kind: External})
		}
		for _, e := range endpoints {
			s.Cluster = append(s.Cluster, ap(e))
		}
		return s
	}
	for _, protocol := range []uint8{6, 17} {
		for _, c := range []struct {
			name     string
			old, new *Service
			want     bool
		}{
			{"new", nil, service(protocol, 1, a), true},
			{"new and empty", nil, service(protocol, 1), false},
			{"as it was", service(protocol, 1, a), service(protocol, 1, a), false},
			{"another endpoint", service(protocol, 1, a), service(protocol, 1, a, b), false},
			{"one less", service(protocol, 1, a, b), service(protocol, 1, b), true},
			{"none any more", service(protocol, 1, a), service(protocol, 1), false},
			{"the first", service(protocol, 1), service(protocol, 1, a), true},
			{"another frontend", service(protocol, 1, a), service(protocol, 2, a), true},
			{"deleted", service(protocol, 1, a), nil, false},
			{"of another protocol", service(132, 1, a, b), service(132, 1, a), false},
		} {
			f := idleFlows()
			var old *entry
			if c.old != nil {
				old = newEntry(c.old, nil)
			}
			f.note(old, c.new)
			if got := len(f.pending) == 1; got != c.want {
				t.Errorf("%s of protocol %d: noted %v, want %v", c.name, protocol, got, c.want)
			}
		}
	}
}

// What is looked for is what the kernel has by then: of a Service that has changed since it was noted the last
// state, and nothing of one that was deleted. As long as it is not known what the kernel has, nobody looks.
func TestFlowsAreLookedForByWhatIsThere(t *testing.T) {
	p := newPlane(t, netlab.NewHost(t), Config{})
	udp := func(name string, endpoints ...netip.AddrPort) *Service {
		return &Service{Name: name, Protocol: 17, Cluster: endpoints, Frontends: []Frontend{{Port: 30000 + uint16(len(name)), Kind: External}}}
	}
	a, b, c := ap("10.0.0.1:80"), ap("10.0.0.2:80"), ap("10.0.0.3:80")
	apply(t, p, Changes{Complete: true, Node: node, Put: []*Service{udp("changes", a, b), udp("is-deleted", a), udp("is-empty-now", a)}})
	apply(t, p, Changes{Put: []*Service{udp("changes", b)}})
	apply(t, p, Changes{Put: []*Service{udp("changes", b, c), udp("is-empty-now")}, Delete: []string{"is-deleted"}})
	all, known := p.serving(p.flows.pending)
	if !known || len(all) != 1 || len(servingSet(all[0])) != 2 {
		t.Fatalf("%v %v", known, all)
	}
	p.unsure = true
	p.flows.deleteStale()
	if !p.flows.hurry || len(p.flows.pending) != 3 {
		t.Errorf("forgotten: %v", p.flows.pending)
	}
	if err := p.Repair(); err != nil {
		t.Fatal(err)
	}
	p.flows.deleteStale()
	if p.flows.hurry || len(p.flows.pending) != 0 {
		t.Errorf("not looked for: %v", p.flows.pending)
	}
}

// A look that takes long is followed by a long pause, for UDP a shorter one.
func TestPauses(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ took, udp, tcp time.Duration }{
		{0, 250 * ms, 1000 * ms}, {20 * ms, 250 * ms, 1000 * ms}, {40 * ms, 400 * ms, 2000 * ms},
	} {
		if first, second := pauses(c.took); first != c.udp || first+second != c.tcp {
			t.Errorf("%v: %v, then %v; want %v and %v in all", c.took, first, second, c.udp, c.tcp)
		}
	}
}
