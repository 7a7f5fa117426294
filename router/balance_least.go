package router

import "math/rand/v2"

// lesserOfTwo takes the better of two endpoints chosen at random by their weights, or nil if
// it finds none that may have the request.
func (l *endpointList) lesserOfTwo(q *query) *Endpoint {
	for range maxTurns {
		a, b := l.two()
		switch takesA, takesB := q.takes(a), a != b && q.takes(b); {
		case takesA && takesB:
			if q.cost(b) < q.cost(a) {
				return b
			}
			return a
		case takesA:
			return a
		case takesB:
			return b
		}
	}
	return nil
}

// two draws two places in the order of turns, different ones if there are.
func (l *endpointList) two() (a, b *Endpoint) {
	n := uint64(len(l.turns))
	if n == 1 {
		return l.turns[0], l.turns[0]
	}
	r := rand.Uint64()
	i, j := r>>32*n>>32, r&(1<<32-1)*(n-1)>>32
	if j >= i {
		j++
	}
	return l.turns[i], l.turns[j]
}

// cost is what a request more would wait for, by the policy's measure.
func (q *query) cost(e *Endpoint) float64 {
	if q.policy.Balance == PeakEWMA {
		return q.wait(e)
	}
	return e.load()
}

// load is the requests in flight, with the one to come, in relation to the weight.
func (e *Endpoint) load() float64 {
	return float64(e.inFlight.Load()+1) / float64(e.weight.Load())
}
