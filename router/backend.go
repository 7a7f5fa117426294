package router

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Target is one address of a backend, as its owner knows it.
type Target struct {
	Address netip.AddrPort
	// Name says for people what listens there: the Pod.
	Name string
	// ID tells it from all others there ever were, and is not to be guessed: the UID of the
	// Pod. Sticky cookies are made from it, so that they are good at every replica of the
	// proxy; "": they are good at this process only.
	ID string
	// Zone is the zone it runs in; "" is unknown.
	Zone string
	// Weight is its share of the requests in relation to the others. 0 means 1.
	Weight uint32
}

// Backend is what routes lead to: a name and the endpoints it has right now. Tables hold
// it by pointer, so endpoints come and go without a new Table.
type Backend struct {
	name      string
	transport Transport
	list      atomic.Pointer[endpointList]
	waiting   atomic.Int32 // requests in the queue
	// turn is on a cache line of its own: every request moves it, and the fields above are
	// read by every request.
	_    [4]byte
	turn atomic.Uint64
	_    [56]byte

	// What follows is for when something goes wrong, or is limited.
	retrying atomic.Int64 // requests that are being sent again
	running  atomic.Int64 // requests of routes with Limits.Requests
	counts   backendCounts
	check    atomic.Pointer[HealthCheck] // nil: none
	mu       sync.Mutex                  // of ejections
	queue    queue
	_        [32]byte
}

// newBackend starts its turns anywhere, so that not every backend of every proxy sends its
// first request to the lowest address.
func newBackend(name string, via Transport) *Backend {
	b := &Backend{name: name, transport: via}
	b.list.Store(new(endpointList))
	b.turn.Store(uint64(rand.Uint32()))
	return b
}

// Name is the name the Backend was asked for with.
func (b *Backend) Name() string { return b.name }

// Transport is how its endpoints are spoken to.
func (b *Backend) Transport() Transport { return b.transport }

// Endpoints returns the endpoints of this moment, sorted by address. The slice is shared
// and must not be changed.
func (b *Backend) Endpoints() []*Endpoint { return b.list.Load().endpoints }

// Check is how the endpoints are checked, with its defaults filled in.
func (b *Backend) Check() HealthCheck {
	if c := b.check.Load(); c != nil {
		return *c
	}
	return HealthCheck{}
}

// setEndpoints makes a list the one of this moment. What was derived from the last one and
// is in use is derived anew here, and not by a request.
func (b *Backend) setEndpoints(endpoints []*Endpoint) {
	l, last := newEndpointList(endpoints), b.list.Load()
	if last.ring.Load() != nil && len(endpoints) > 0 {
		l.getRing()
	}
	if last.sessions.Load() != nil {
		l.getSessions(b.name)
	}
	b.list.Store(l)
	b.queue.wake(b)
}
