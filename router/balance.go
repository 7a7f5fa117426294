package router

import (
	"math/rand/v2"
	"time"
)

// maxTurns bounds how many turns one Pick takes before it looks at the endpoints in a row.
const maxTurns = 64

// Pick chooses the endpoint of the next request of a route without a Policy, or nil if there
// are no endpoints. It goes round robin over the endpoints that are up and that this request
// has not tried. If there is none, it takes one that is down but untried, then one that was
// tried: better a try than a 503. Whoever calls it bounds the tries.
//
// All requests share one counter, so that any N requests in a row, from whichever client
// or core, reach each of N endpoints once. It is the one word all cores write here; the
// README has what it costs.
func (b *Backend) Pick(avoid *Tried) *Endpoint {
	turns := b.list.Load().turns
	if len(turns) == 0 {
		return nil
	}
	e := turns[b.next(len(turns))]
	if e.out.Load() == 0 && avoid.Len() == 0 {
		return e
	}
	q := query{policy: &noPolicy, avoid: avoid}
	return b.pickAround(turns, e, &q)
}

var noPolicy Policy

// query is what one pick goes by.
type query struct {
	policy *Policy
	avoid  *Tried
	// key is what ConsistentHash goes by, if keyed.
	key   uint64
	keyed bool
	// settled is a client that is where it belongs: no slow start for it.
	settled bool
	session *session  // of Sticky; nil: none
	now     time.Time // once somebody has asked for it
}

func (q *query) clock() time.Time {
	if q.now.IsZero() {
		q.now = time.Now()
	}
	return q.now
}

// choose is Pick for any Policy.
func (b *Backend) choose(q *query) *Endpoint {
	l := b.list.Load()
	if len(l.turns) == 0 {
		return nil
	}
	var e *Endpoint
	switch {
	case q.session != nil && q.session.known:
		e = l.resume(q, q.session)
	case q.policy.Balance == ConsistentHash && q.keyed:
		e = l.byHash(q, true)
	case q.policy.Balance == LeastOutstanding, q.policy.Balance == PeakEWMA:
		e = l.lesserOfTwo(q)
	default:
		return b.pickAround(l.turns, l.turns[b.next(len(l.turns))], q)
	}
	if e == nil {
		e = pickAny(l.turns, q)
	}
	return e
}

// next takes a turn. The counter goes on when the list changes, so a new list does not
// start at its first endpoint.
func (b *Backend) next(n int) int { return int(b.turn.Add(1) % uint64(n)) }

// pickAround is Pick when some endpoint is out. An endpoint that is passed over uses up a
// turn: taking its neighbour without that would give the neighbour twice its share.
func (b *Backend) pickAround(turns []*Endpoint, e *Endpoint, q *query) *Endpoint {
	for range min(len(turns), maxTurns) {
		if q.takes(e) {
			return e
		}
		e = turns[b.next(len(turns))]
	}
	return pickAny(turns, q)
}

// pickAny takes the most preferred endpoint, and among equals any: if all are out, all are
// used, because what is broken may as well be the proxy's view. It does not go by turns: so
// many were used up on the way that the next ones would be those of the same few each time.
func pickAny(turns []*Endpoint, q *query) *Endpoint {
	first := rand.IntN(len(turns))
	chosen := turns[first]
	for i := range turns {
		e := turns[(first+i)%len(turns)]
		if q.preference(e) > q.preference(chosen) {
			chosen = e
		}
	}
	return chosen
}

// takes tells whether e is up, untried, with room and, if it is fresh, to have this request.
func (q *query) takes(e *Endpoint) bool {
	if e.out.Load() != 0 && e.Down(q.clock()) || q.avoid.Len() > 0 && q.avoid.Has(e) {
		return false
	}
	return !q.full(e) && (q.policy.SlowStart == 0 || e.born == 0 || q.settled || q.warm(e))
}

func (q *query) full(e *Endpoint) bool {
	most := q.policy.Limits.Connections
	return most > 0 && e.inFlight.Load() >= most
}

// preference orders endpoints: with room before full, then untried before tried, then up
// before down.
func (q *query) preference(e *Endpoint) int {
	p := 0
	if !q.full(e) {
		p += 4
	}
	if !q.avoid.Has(e) {
		p += 2
	}
	if e.out.Load() == 0 || !e.Down(q.clock()) {
		p++
	}
	return p
}

// minWarmth is the share of an endpoint that has just come: with none at all a quiet backend
// would not get to know it.
const minWarmth = 0.1

// warm tells whether a request goes to an endpoint that may still be warming up. A key that
// has moved to it stays.
func (q *query) warm(e *Endpoint) bool {
	age := time.Duration(sinceStart(q.clock()) - e.born)
	if age >= q.policy.SlowStart {
		return true
	}
	share := max(minWarmth, float64(age)/float64(q.policy.SlowStart))
	if q.keyed {
		return float64(uint32(q.key))/(1<<32) < share
	}
	return rand.Float64() < share
}
