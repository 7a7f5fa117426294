package router

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// endpointList is the endpoints of a backend at a moment, and what is derived from them. It
// is immutable; the ring and the session tags are made by the first who needs them.
type endpointList struct {
	endpoints []*Endpoint // sorted by address
	// turns is the order in which they are taken, each as often as its weight says. With
	// equal weights it is endpoints.
	turns []*Endpoint
	// weight is the sum of the weights.
	weight   int64
	ring     atomic.Pointer[ring]
	sessions atomic.Pointer[sessions]
}

func newEndpointList(endpoints []*Endpoint) *endpointList {
	l := &endpointList{endpoints: endpoints, turns: endpoints}
	equal := true
	for _, e := range endpoints {
		l.weight += int64(e.weight.Load())
		equal = equal && e.weight.Load() == endpoints[0].weight.Load()
	}
	if !equal {
		l.turns = turnsByWeight(endpoints, l.weight)
	}
	return l
}

// maxTurnsListed bounds the order of turns. Beyond it weights are rounded, to 1 at least.
const maxTurnsListed = 4096

// turnsByWeight places each endpoint as often as its weight says, spread evenly over the
// whole: one of weight w stands at the middle of each of w equal parts.
func turnsByWeight(endpoints []*Endpoint, sum int64) []*Endpoint {
	type place struct {
		at       float64
		endpoint *Endpoint
	}
	divisor := int64(0)
	for _, e := range endpoints {
		divisor = gcd(int64(e.weight.Load()), divisor)
	}
	var places []place
	for _, e := range endpoints {
		n := int64(e.weight.Load()) / divisor
		if whole := sum / divisor; whole > maxTurnsListed {
			n = max(n*maxTurnsListed/whole, 1)
		}
		for i := range n {
			places = append(places, place{(float64(i) + 0.5) / float64(n), e})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	turns := make([]*Endpoint, len(places))
	for i := range places {
		turns[i] = places[i].endpoint
	}
	return turns
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
