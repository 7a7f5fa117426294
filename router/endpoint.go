package router

import (
	"math"
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
	address netip.AddrPort
	pool    *engine.Pool
	target  atomic.Pointer[Target]
	out     atomic.Int64 // an absence; 0 means up, and costs no look at a clock
	born    int64        // when it joined others, on the clock of sinceStart; 0: it was there from the start
	// The second is written twice by every request.
	inFlight  atomic.Int64
	latency   latency
	weight    atomic.Uint32
	failures  atomic.Uint32 // connections in a row that could not be made
	errors    atomic.Uint32 // bad answers in a row
	ejections atomic.Uint32 // without a long time between them
	back      atomic.Int64  // when the last ejection ends
	_         [16]byte
}

func newEndpoint(t Target, pool *engine.Pool, born int64) *Endpoint {
	e := &Endpoint{address: t.Address, pool: pool, born: born}
	e.setTarget(&t)
	return e
}

func (e *Endpoint) setTarget(t *Target) {
	e.target.Store(t)
	e.weight.Store(max(t.Weight, 1))
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

// beginBelow is Begin, unless there are most exchanges already. No limit is 0.
func (e *Endpoint) beginBelow(most int64) bool {
	if most == 0 {
		e.Begin()
		return true
	}
	for {
		n := e.inFlight.Load()
		if n >= most {
			return false
		}
		if e.inFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// End counts an exchange out.
func (e *Endpoint) End() { e.inFlight.Add(-1) }

// An absence says until when an endpoint is left alone, on the clock of sinceStart, and in
// its lowest two bits why. One word: there is no moment at which the two do not agree.
type absence int64

const (
	refused   absence = 1 // a connection could not be made
	ejected   absence = 2 // it answered badly
	unhealthy absence = 3 // it fails its checks
	reasons   absence = 3
)

func absentUntil(at int64, why absence) absence { return absence(at)&^reasons | why }

func (a absence) reason() absence { return a & reasons }

func (a absence) over(at int64) bool { return a == 0 || at >= int64(a) }

// EndpointState is what is known about an endpoint at a moment.
type EndpointState uint8

const (
	// Up gets requests.
	Up EndpointState = iota
	// Down is left alone for a moment, because it could not be connected to.
	Down
	// Ejected is left alone for a while, because it answered badly.
	Ejected
	// Unhealthy is left alone until it passes its checks again.
	Unhealthy
	// EndpointStates is the number of them.
	EndpointStates
)

var stateNames = [EndpointStates]string{"up", "down", "ejected", "unhealthy"}

// String is the state as the admin API and metrics have it.
func (s EndpointState) String() string {
	if s >= EndpointStates {
		return "unknown"
	}
	return stateNames[s]
}

// State tells how the endpoint is.
func (e *Endpoint) State(now time.Time) EndpointState {
	a := absence(e.out.Load())
	if a.over(sinceStart(now)) {
		return Up
	}
	return EndpointState(a.reason())
}

// Down tells whether the endpoint is left alone for now, for any reason.
func (e *Endpoint) Down(now time.Time) bool { return e.State(now) != Up }

// Fail notes that a connection could not be made. The endpoint is down for a moment, a
// longer one each time until it succeeds. Requests that fail together count as one
// failure: a hundred at once must not send it straight to the longest.
func (e *Endpoint) Fail(now time.Time) {
	at, before := sinceStart(now), e.out.Load()
	if !absence(before).over(at) {
		return
	}
	failures := e.failures.Load() + 1
	until := absentUntil(at+int64(spread(doubled(minDown, failures-1, maxDown))), refused)
	if e.out.CompareAndSwap(before, int64(until)) {
		e.failures.Store(failures)
	}
}

// Succeed notes that the endpoint answered: it is up, unless it was taken out for reasons
// that one answer does not refute. In the usual case it writes nothing.
func (e *Endpoint) Succeed() {
	a := absence(e.out.Load())
	if a == 0 || a.reason() == unhealthy || a.reason() == ejected && !a.over(sinceStart(time.Now())) {
		return
	}
	e.failures.Store(0)
	e.out.CompareAndSwap(int64(a), 0)
}

// setHealthy takes the word of a check. It ends whatever else the endpoint was out for.
func (e *Endpoint) setHealthy(healthy bool) {
	a := absence(e.out.Load())
	switch {
	case !healthy:
		e.out.Store(int64(absentUntil(math.MaxInt64, unhealthy)))
	case a.reason() == unhealthy:
		e.out.CompareAndSwap(int64(a), 0)
	}
}

// doubled is d doubled n times, most at most.
func doubled(d time.Duration, n uint32, most time.Duration) time.Duration {
	for ; n > 0 && d < most; n-- {
		d *= 2
	}
	return min(d, most)
}

// spread moves a time by up to a quarter either way, so that many proxies, and many
// endpoints of one, do not come back in step.
func spread(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// start is a point on the monotonic clock: a step of the wall clock must not keep an
// endpoint down for an hour.
var start = time.Now()

func sinceStart(now time.Time) int64 { return int64(now.Sub(start)) }
