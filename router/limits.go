package router

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// Limits bound what is sent to a backend at the same time. Its zero value has no limits, and
// costs nothing.
//
// What is over a limit waits, if it may, and is answered 503 otherwise: a backend that is
// slow because it has too much to do gets no more of it.
type Limits struct {
	// Connections is how many requests each endpoint has at most. Over HTTP/1.1 each has a
	// connection for itself, so that it bounds these, but for a few that are just being given
	// back. 0: no limit.
	Connections int64
	// Requests is how many requests the backend has at most, of all routes with such a limit.
	// 0: no limit.
	Requests int64
	// Pending is how many requests may wait for one of these, and PendingTimeout for how long.
	// Defaults 0: none, and 5 s.
	Pending        int
	PendingTimeout time.Duration
}

// String tells all that holds.
func (l Limits) String() string {
	return fmt.Sprintf("connections=%d,requests=%d,pending=%d,%s", l.Connections, l.Requests, l.Pending, l.pendingTimeout())
}

func (l *Limits) pendingTimeout() time.Duration {
	if l.PendingTimeout == 0 {
		return 5 * time.Second
	}
	return l.PendingTimeout
}

// Rejection is why a limit kept a request out.
type Rejection uint8

// The rejections that are counted apart.
const (
	RejectedFull    Rejection = iota // there was no room, neither to run nor to wait
	RejectedTimeout                  // it waited too long
	RejectedGone                     // its client went away while it waited
	Rejections                       // the number of them
)

var rejectionNames = [Rejections]string{"full", "timeout", "client_gone"}

// String is the rejection as a metric label has it.
func (r Rejection) String() string {
	if r >= Rejections {
		return "unknown"
	}
	return rejectionNames[r]
}

// notes are what the access log says of a rejection.
var rejectionNotes = [Rejections]string{
	RejectedFull:    "circuit open: the backend is at its limit, and so is its queue",
	RejectedTimeout: "circuit open: the backend stayed at its limit for too long",
	RejectedGone:    "the client went away while the request was waiting for the backend",
}

// enterBackend counts a request in that has a limit, unless there are too many.
func (b *Backend) enter(most int64) bool {
	if b.running.Add(1) <= most {
		return true
	}
	b.running.Add(-1)
	return false
}

// queue is the requests that wait for a limit of a backend, first come, first served. Only
// the first of them looks for room, and when it leaves, for whatever reason, the next one
// does: so nobody has to be told exactly how much room there is.
type queue struct {
	mu      sync.Mutex
	waiters []*waiter
}

// waiter is one request in the queue.
type waiter struct {
	turn chan struct{} // of one: look again
}

// join adds w at the end, unless most are waiting.
func (q *queue) join(b *Backend, w *waiter, most int) (joined bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiters) >= most {
		return false
	}
	select {
	case <-w.turn: // of another time
	default:
	}
	q.waiters = append(q.waiters, w)
	b.waiting.Store(int32(len(q.waiters)))
	return true
}

func (q *queue) first(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiters[0] == w
}

// leave takes w out, and has the next one look.
func (q *queue) leave(b *Backend, w *waiter) {
	q.mu.Lock()
	i := slices.Index(q.waiters, w)
	q.waiters = slices.Delete(q.waiters, i, i+1)
	b.waiting.Store(int32(len(q.waiters)))
	q.mu.Unlock()
	q.wake(b)
}

// wake has the first one look for room. Whoever makes some calls it; where nobody waits, it
// is the look at one word.
func (q *queue) wake(b *Backend) {
	if b.waiting.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiters) > 0 {
		select {
		case q.waiters[0].turn <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// clientGlance is how often one who waits looks whether its client is still there, where
// nobody can tell it.
const clientGlance = time.Second

// await is take for a request that finds no room: it waits for some, as long as there is
// somebody to answer.
func (s *passage) await(x *engine.Exchange, q *query) (e *Endpoint, why Rejection) {
	b, l := s.route.Backend, &s.policy.Limits
	if s.waiter.turn == nil {
		s.waiter.turn = make(chan struct{}, 1)
	}
	if !b.queue.join(b, &s.waiter, l.Pending) {
		return nil, RejectedFull
	}
	defer b.queue.leave(b, &s.waiter)
	until := time.Now().Add(l.pendingTimeout())
	if by := x.Deadline(); !by.IsZero() && by.Before(until) {
		until = by
	}
	watched := x.WatchClient(s.waiter.turn)
	defer x.UnwatchClient(s.waiter.turn)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if x.ClientGone() {
			return nil, RejectedGone
		}
		if b.queue.first(&s.waiter) {
			if e, full := s.take(q); !full {
				return e, Rejections
			}
		}
		left := time.Until(until)
		if left <= 0 {
			return nil, RejectedTimeout
		}
		if !watched {
			left = min(left, clientGlance)
		}
		timer.Reset(left)
		select {
		case <-s.waiter.turn:
		case <-timer.C:
		}
		q.now = time.Time{}
	}
}

// take finds an endpoint and counts the request in, unless the limits are reached. The
// endpoint is nil if there is none at all.
func (s *passage) take(q *query) (e *Endpoint, full bool) {
	b, l := s.route.Backend, &s.policy.Limits
	if l.Requests > 0 && !b.enter(l.Requests) {
		return nil, true
	}
	s.running = l.Requests > 0
	for range 3 { // others may take the room that was seen
		if e = b.choose(q); e == nil {
			s.release()
			return nil, false
		}
		if e.beginBelow(l.Connections) {
			s.endpoint = e
			return e, false
		}
	}
	s.release()
	return nil, true
}

// enter finds an endpoint that may have the request, and counts it in there. It tells why if
// there is none: Rejections if there is none at all.
func (s *passage) enter(x *engine.Exchange) (e *Endpoint, why Rejection) {
	s.release()
	b := s.route.Backend
	if s.route.Policy == nil {
		if e = b.Pick(&s.tried); e != nil {
			e.Begin()
			s.endpoint = e
		}
		return e, Rejections
	}
	q := query{policy: s.policy, avoid: &s.tried, key: s.key, keyed: s.keyed, session: &s.session}
	limits := &s.policy.Limits
	if limits.Pending == 0 || b.waiting.Load() == 0 {
		e, full := s.take(&q)
		if !full {
			return e, Rejections
		}
	}
	e, why = s.await(x, &q)
	if e == nil && why != Rejections {
		b.counts.rejected[why].Add(1)
	}
	return e, why
}

// release counts the request out where it was counted in last.
func (s *passage) release() {
	if s.endpoint == nil && !s.running {
		return
	}
	b := s.route.Backend
	if s.endpoint != nil {
		s.endpoint.End()
		s.endpoint = nil
	}
	if s.running {
		b.running.Add(-1)
		s.running = false
	}
	b.queue.wake(b)
}
