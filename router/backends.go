package router

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// BackendsConfig says how Backends makes what it needs.
type BackendsConfig struct {
	// NewPool makes the connection pool of a new endpoint. Nil: endpoints have no pool.
	NewPool func(address netip.AddrPort, via Transport) *engine.Pool
}

// Backends is the register of all backends by name. One goroutine owns it and calls its
// methods; All may be called by any. Requests never come here: they hold their *Backend.
type Backends struct {
	cfg       BackendsConfig
	closePool func(*engine.Pool)

	mu     sync.Mutex // for All; the owner alone writes
	byName map[string]*Backend

	checksChanged chan struct{} // of one: the Checker has to look
}

// NewBackends returns an empty register.
func NewBackends(cfg BackendsConfig) *Backends {
	if cfg.NewPool == nil {
		cfg.NewPool = func(netip.AddrPort, Transport) *engine.Pool { return nil }
	}
	return &Backends{cfg: cfg, closePool: (*engine.Pool).Close, byName: map[string]*Backend{}, checksChanged: make(chan struct{}, 1)}
}

// Get returns the backend of that name. It is made on first use, without endpoints and for
// plain HTTP/1.1.
func (r *Backends) Get(name string) *Backend { return r.GetVia(name, Transport{}) }

// GetVia is Get for a backend that is spoken to in another way. That is a part of what it is:
// one that is there stays as it is, and so the name has to tell ways apart.
func (r *Backends) GetVia(name string, via Transport) *Backend {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.byName[name]
	if b == nil {
		b = newBackend(name, via)
		r.byName[name] = b
	}
	return b
}

// SetTargets replaces the endpoints of a backend in one step, and tells whether anything
// changed. An endpoint stays the same value while its address is listed, with its
// in-flight count, connections and failures. It is a fresh one if it comes back later, and
// if another Pod now has the address: what was known was about the other. Of two targets
// with one address the first counts.
func (r *Backends) SetTargets(name string, targets []Target) (changed bool) {
	b := r.Get(name)
	targets = sortedTargets(targets)
	old := b.Endpoints()
	if sameTargets(old, targets) {
		return false
	}
	next, removed := r.endpoints(old, targets, b.transport)
	b.setEndpoints(next)
	r.close(removed)
	if b.check.Load() != nil {
		r.pokeChecker()
	}
	return true
}

// Keep forgets all backends but these, and closes their connections. Requests that still
// hold one of them through an older Table can go on picking from it.
func (r *Backends) Keep(names map[string]struct{}) {
	for _, b := range r.forget(names) {
		r.close(b.Endpoints())
		if b.check.Load() != nil {
			r.pokeChecker()
		}
	}
}

// SetCheck says how the endpoints of a backend are checked; the zero value: not at all. A
// Checker does it.
func (r *Backends) SetCheck(name string, c HealthCheck) {
	next := &c
	if c.Kind == CheckOff {
		next = nil
	} else {
		c = c.withDefaults()
	}
	b := r.Get(name)
	if last := b.check.Load(); last == next || last != nil && next != nil && *last == *next {
		return
	}
	b.check.Store(next)
	r.pokeChecker()
}

func (r *Backends) pokeChecker() {
	select {
	case r.checksChanged <- struct{}{}:
	default: // it will look anyway
	}
}

func (r *Backends) forget(keep map[string]struct{}) (forgotten []*Backend) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, b := range r.byName {
		if _, ok := keep[name]; !ok {
			delete(r.byName, name)
			forgotten = append(forgotten, b)
		}
	}
	return forgotten
}

// All yields the backends sorted by name, as they were when it began. It may be called
// from any goroutine, and holds up nobody while it yields.
func (r *Backends) All() iter.Seq[*Backend] {
	return func(yield func(*Backend) bool) {
		for _, b := range r.sorted() {
			if !yield(b) {
				return
			}
		}
	}
}

func (r *Backends) sorted() []*Backend {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.byName))
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *Backend) int { return cmp.Compare(a.name, b.name) })
	return all
}

// endpoints makes the new list out of the old one: both are sorted by address.
func (r *Backends) endpoints(old []*Endpoint, targets []Target, via Transport) (next, removed []*Endpoint) {
	next = make([]*Endpoint, 0, len(targets))
	born := int64(0) // those that are first have nobody to leave requests to
	if len(old) > 0 {
		born = sinceStart(time.Now()) | 1 // 0 says that it was not so
	}
	for _, t := range targets {
		for len(old) > 0 && old[0].address.Compare(t.Address) < 0 {
			removed, old = append(removed, old[0]), old[1:]
		}
		if len(old) > 0 && survives(old[0], t) {
			old[0].setTarget(&t)
			next, old = append(next, old[0]), old[1:]
			continue
		}
		next = append(next, newEndpoint(t, r.cfg.NewPool(t.Address, via), born))
	}
	return next, append(removed, old...)
}

// survives tells whether the target is what the endpoint has been talking to.
func survives(e *Endpoint, t Target) bool {
	was := e.target.Load()
	same := func(a, b string) bool { return a == b || a == "" || b == "" }
	return was.Address == t.Address && same(was.Name, t.Name) && same(was.ID, t.ID)
}

// close ends the idle connections of endpoints that are no longer listed; those in use end
// with their exchange.
func (r *Backends) close(endpoints []*Endpoint) {
	for _, e := range endpoints {
		if e.pool != nil {
			r.closePool(e.pool)
		}
	}
}

// sortedTargets gives a list the same order whoever made it, with each address once.
func sortedTargets(targets []Target) []Target {
	targets = slices.Clone(targets)
	slices.SortStableFunc(targets, func(a, b Target) int { return a.Address.Compare(b.Address) })
	return slices.CompactFunc(targets, func(a, b Target) bool { return a.Address == b.Address })
}

func sameTargets(endpoints []*Endpoint, targets []Target) bool {
	return slices.EqualFunc(endpoints, targets, func(e *Endpoint, t Target) bool {
		return *e.target.Load() == t
	})
}
