package router

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// How long an endpoint is left alone after it could not be connected to: the first time,
// and at most. A starting process wants the first short; a dead one costs a try each time.
const (
	minDown = 100 * time.Millisecond
	maxDown = 5 * time.Second
)

// Endpoint is one address that requests are sent to. It lives as long as its backend lists
// the address, through any number of tables and lists, and carries what is known about it.
// All methods are safe for any number of goroutines.
type Endpoint struct {
	// The first cache line is read by every request and hardly ever written.
	address   netip.AddrPort
	pool      *engine.Pool
	target    atomic.Pointer[Target]
	downUntil atomic.Int64 // on the clock of sinceStart; 0 means up, and costs no look at a clock
	failures  atomic.Uint32
	_         [4]byte
	// The second is written twice by every request.
	inFlight atomic.Int64
	_        [56]byte
}

func newEndpoint(t Target, pool *engine.Pool) *Endpoint {
	e := &Endpoint{address: t.Address, pool: pool}
	e.target.Store(&t)
	return e
}

// Address is where the endpoint listens.
func (e *Endpoint) Address() netip.AddrPort { return e.address }

// Name says for people what listens there.
func (e *Endpoint) Name() string { return e.target.Load().Name }

// Zone is the zone the endpoint runs in, if it is known.
func (e *Endpoint) Zone() string { return e.target.Load().Zone }

// Pool holds the connections to the endpoint.
func (e *Endpoint) Pool() *engine.Pool { return e.pool }

// InFlight is the number of exchanges that have begun and not ended.
func (e *Endpoint) InFlight() int64 { return e.inFlight.Load() }

// Begin counts an exchange in. Every Begin is followed by one End.
func (e *Endpoint) Begin() { e.inFlight.Add(1) }

// End counts an exchange out.
func (e *Endpoint) End() { e.inFlight.Add(-1) }

// Fail notes that a connection could not be made. The endpoint is down for a moment, a
// longer one each time until it succeeds. Requests that fail together count as one
// failure: a hundred at once must not send it straight to the longest.
func (e *Endpoint) Fail(now time.Time) {
	at, until := sinceStart(now), e.downUntil.Load()
	if isDown(until, at) {
		return
	}
	failures := e.failures.Load() + 1
	if e.downUntil.CompareAndSwap(until, at+int64(downFor(failures))) {
		e.failures.Store(failures)
	}
}

// Succeed notes that the endpoint answered: it is up. In the usual case it writes nothing.
func (e *Endpoint) Succeed() {
	if e.downUntil.Load() == 0 {
		return
	}
	e.failures.Store(0)
	e.downUntil.Store(0)
}

// Down tells whether the endpoint is left alone for now.
func (e *Endpoint) Down(now time.Time) bool {
	return isDown(e.downUntil.Load(), sinceStart(now))
}

func isDown(until, at int64) bool { return until != 0 && at < until }

// downFor doubles with each failure and is spread by a quarter either way, so that many
// proxies, and many endpoints of one, do not come back in step.
func downFor(failures uint32) time.Duration {
	d := maxDown
	if shift := failures - 1; shift < 6 {
		d = min(minDown<<shift, maxDown)
	}
	return d*3/4 + rand.N(d/2)
}

// start is a point on the monotonic clock: a step of the wall clock must not keep an
// endpoint down for an hour.
var start = time.Now()

func sinceStart(now time.Time) int64 { return int64(now.Sub(start)) }
