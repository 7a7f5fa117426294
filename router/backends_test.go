package router

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/portico-ingress/portico/router/engine"
)

// poolLog is a register that counts the pools it makes and closes.
type poolLog struct {
	*Backends
	opened []netip.AddrPort
	closed int
}

func newPoolLog() *poolLog {
	l := &poolLog{}
	l.Backends = NewBackends(BackendsConfig{NewPool: func(a netip.AddrPort, _ Transport) *engine.Pool {
		l.opened = append(l.opened, a)
		return new(engine.Pool)
	}})
	l.closePool = func(*engine.Pool) { l.closed++ }
	return l
}

func addresses(b *Backend) []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range b.Endpoints() {
		all = append(all, e.Address())
	}
	return all
}

func TestBackendsGetMakesABackendOnce(t *testing.T) {
	r := NewBackends(BackendsConfig{})
	b := r.Get("a")
	if b.Name() != "a" || len(b.Endpoints()) != 0 {
		t.Errorf("got %q with %d endpoints", b.Name(), len(b.Endpoints()))
	}
	if r.Get("a") != b {
		t.Error("the same name gave another backend")
	}
}

func TestBackendsSetTargets(t *testing.T) {
	l := newPoolLog()
	if !l.SetTargets("a", targetsAt(3, 1, 2, 1)) {
		t.Error("first targets: unchanged")
	}
	if got, want := addresses(l.Get("a")), []netip.AddrPort{addressAt(1), addressAt(2), addressAt(3)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: sorted, each once", got, want)
	}
	if l.SetTargets("a", targetsAt(1, 2, 3)) {
		t.Error("the same targets in another order: changed")
	}
	if !l.SetTargets("a", nil) || len(l.Get("a").Endpoints()) != 0 {
		t.Error("no targets: the old ones stay")
	}
	if len(l.opened) != 3 || l.closed != 3 {
		t.Errorf("opened %d pools and closed %d, want 3 and 3", len(l.opened), l.closed)
	}
}

func TestBackendsEndpointsSurvive(t *testing.T) {
	l := newPoolLog()
	l.SetTargets("a", targetsAt(1, 2, 3))
	b := l.Get("a")
	old := b.Endpoints()
	old[1].Begin()

	l.SetTargets("a", targetsAt(0, 2, 4))
	if got := b.Endpoints()[1]; got != old[1] || got.InFlight() != 1 {
		t.Error("the endpoint that stays is another one")
	}
	if old[1].Pool() != b.Endpoints()[1].Pool() {
		t.Error("the endpoint that stays has another pool")
	}
	if l.closed != 2 {
		t.Errorf("closed %d pools, want those of the 2 that went", l.closed)
	}

	l.SetTargets("a", targetsAt(1, 2))
	if b.Endpoints()[0] == old[0] {
		t.Error("the endpoint that comes back is the old one")
	}
	if len(old) != 3 || old[0].Address() != addressAt(1) {
		t.Error("a list that was handed out has changed")
	}
}

func TestBackendsEndpointsKeepTheirIdentity(t *testing.T) {
	at := addressAt(1)
	for _, tt := range []struct {
		name     string
		old, now Target
		survives bool
	}{
		{"same Pod", Target{Address: at, Name: "ns/pod", Zone: "z"}, Target{Address: at, Name: "ns/pod", Zone: "z"}, true},
		{"zone becomes known", Target{Address: at, Name: "ns/pod", Zone: ""}, Target{Address: at, Name: "ns/pod", Zone: "z"}, true},
		{"name becomes known", Target{Address: at, Name: "", Zone: ""}, Target{Address: at, Name: "ns/pod", Zone: ""}, true},
		{"ID becomes known", Target{Address: at, Name: "web-0"}, Target{Address: at, Name: "web-0", ID: "1"}, true},
		{"another Pod of the same name has the address", Target{Address: at, Name: "web-0", ID: "1"}, Target{Address: at, Name: "web-0", ID: "2"}, false},
		{"weight changes", Target{Address: at, Name: "web-0"}, Target{Address: at, Name: "web-0", Weight: 3}, true},
		{"another Pod has the address", Target{Address: at, Name: "ns/old", Zone: ""}, Target{Address: at, Name: "ns/new", Zone: ""}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newPoolLog()
			l.SetTargets("a", []Target{tt.old})
			b := l.Get("a")
			old := b.Endpoints()[0]
			if changed := l.SetTargets("a", []Target{tt.now}); changed != (tt.old != tt.now) {
				t.Errorf("changed: %v", changed)
			}
			e := b.Endpoints()[0]
			if survives := e == old; survives != tt.survives {
				t.Errorf("survives: %v, want %v", survives, tt.survives)
			}
			if e.Name() != tt.now.Name || e.Zone() != tt.now.Zone {
				t.Errorf("got %q in %q, want %q in %q", e.Name(), e.Zone(), tt.now.Name, tt.now.Zone)
			}
			if closed := l.closed == 1; closed == tt.survives {
				t.Errorf("closed %d pools", l.closed)
			}
		})
	}
}

func TestBackendsKeep(t *testing.T) {
	l := newPoolLog()
	l.SetTargets("a", targetsAt(1))
	l.SetTargets("b", targetsAt(2, 3))
	a, b := l.Get("a"), l.Get("b")
	l.Keep(map[string]struct{}{"a": {}, "unknown": {}})
	if l.closed != 2 {
		t.Errorf("closed %d pools, want 2", l.closed)
	}
	if l.Get("a") != a {
		t.Error("the backend that is kept is another one")
	}
	if l.Get("b") == b {
		t.Error("the backend that was forgotten came back")
	}
	if b.Pick(nil) == nil {
		t.Error("a request that still holds a forgotten backend has nowhere to go")
	}
}

func TestBackendsAllIsSorted(t *testing.T) {
	r := NewBackends(BackendsConfig{})
	for _, name := range []string{"c", "a", "b"} {
		r.Get(name)
	}
	var got []string
	for b := range r.All() {
		got = append(got, b.Name())
		r.Get("d") // the owner may go on meanwhile
		if b.Name() == "b" {
			break
		}
	}
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
}

func TestBackendsWithoutPools(t *testing.T) {
	r := NewBackends(BackendsConfig{})
	r.SetTargets("a", targetsAt(1))
	if p := r.Get("a").Endpoints()[0].Pool(); p != nil {
		t.Errorf("got a pool %v", p)
	}
	r.SetTargets("a", nil)
}
