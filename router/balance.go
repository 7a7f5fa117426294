package router

import "time"

// maxTurns bounds how many turns one Pick takes before it looks at the endpoints in a row.
const maxTurns = 64

// Pick chooses the endpoint of the next request, or nil if there are no endpoints. It goes
// round robin over the endpoints that are up and that this request has not tried. If there
// is none, it takes one that is down but untried, then one that was tried: better a try
// than a 503. Whoever calls it bounds the tries.
//
// All requests share one counter, so that any N requests in a row, from whichever client
// or core, reach each of N endpoints once. It is the one word all cores write here; the
// README has what it costs.
func (b *Backend) Pick(avoid *Tried) *Endpoint {
	endpoints := *b.endpoints.Load()
	if len(endpoints) == 0 {
		return nil
	}
	e := endpoints[b.next(len(endpoints))]
	if e.downUntil.Load() == 0 && avoid.Len() == 0 {
		return e
	}
	return b.pickAround(endpoints, e, avoid)
}

// next takes a turn. The counter goes on when the list changes, so a new list does not
// start at its first endpoint.
func (b *Backend) next(n int) int { return int(b.turn.Add(1) % uint64(n)) }

// pickAround is Pick when some endpoint is out. An endpoint that is passed over uses up a
// turn: taking its neighbour without that would give the neighbour twice its share.
func (b *Backend) pickAround(endpoints []*Endpoint, e *Endpoint, avoid *Tried) *Endpoint {
	now := time.Now()
	for range min(len(endpoints), maxTurns) {
		if preference(e, avoid, now) == best {
			return e
		}
		e = endpoints[b.next(len(endpoints))]
	}
	return b.pickAny(endpoints, avoid, now)
}

// pickAny takes the most preferred endpoint, the first in turn among equals.
func (b *Backend) pickAny(endpoints []*Endpoint, avoid *Tried, now time.Time) *Endpoint {
	first := b.next(len(endpoints))
	chosen := endpoints[first]
	for i := range endpoints {
		e := endpoints[(first+i)%len(endpoints)]
		if preference(e, avoid, now) > preference(chosen, avoid, now) {
			chosen = e
		}
	}
	return chosen
}

// best is the preference of an endpoint that is up and untried.
const best = 3

// preference orders endpoints: untried before tried, then up before down.
func preference(e *Endpoint, avoid *Tried, now time.Time) int {
	p := 0
	if !avoid.Has(e) {
		p += 2
	}
	if !e.Down(now) {
		p++
	}
	return p
}
