package router

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
)

// Target is one address of a backend, as its owner knows it.
type Target struct {
	Address netip.AddrPort
	// Name says for people what listens there: the Pod.
	Name string
	// Zone is the zone it runs in; "" is unknown.
	Zone string
}

// Backend is what routes lead to: a name and the endpoints it has right now. Tables hold
// it by pointer, so endpoints come and go without a new Table.
type Backend struct {
	name      string
	transport Transport
	endpoints atomic.Pointer[[]*Endpoint]
	// turn is on a cache line of its own: every request moves it, and the fields above are
	// read by every request.
	_    [8]byte
	turn atomic.Uint64
	_    [56]byte
}

// newBackend starts its turns anywhere, so that not every backend of every proxy sends its
// first request to the lowest address.
func newBackend(name string, via Transport) *Backend {
	b := &Backend{name: name, transport: via}
	b.endpoints.Store(new([]*Endpoint))
	b.turn.Store(uint64(rand.Uint32()))
	return b
}

// Name is the name the Backend was asked for with.
func (b *Backend) Name() string { return b.name }

// Transport is how its endpoints are spoken to.
func (b *Backend) Transport() Transport { return b.transport }

// Endpoints returns the endpoints of this moment, sorted by address. The slice is shared
// and must not be changed.
func (b *Backend) Endpoints() []*Endpoint { return *b.endpoints.Load() }
