package router

import (
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// pointsPerEndpoint is how many places an endpoint of average weight has on the ring: its
// share of keys is within a quarter of even, and the bound on load does the rest. It is
// 160 at nginx, too.
const pointsPerEndpoint = 160

// ring is consistent hashing: endpoints have many places each on a circle, and a key goes
// to the next place. Places depend on the address alone, so every replica has the same
// ring, and an endpoint that comes or goes moves only the keys it gets or had.
type ring struct {
	points []uint64 // place<<32 | index of the owner, sorted
	owners []*Endpoint
}

// getRing makes the ring on first use.
func (l *endpointList) getRing() *ring {
	if r := l.ring.Load(); r != nil {
		return r
	}
	l.ring.CompareAndSwap(nil, newRing(l.endpoints, l.weight))
	return l.ring.Load()
}

func newRing(endpoints []*Endpoint, weight int64) *ring {
	r := &ring{owners: endpoints, points: make([]uint64, 0, len(endpoints)*pointsPerEndpoint)}
	for i, e := range endpoints {
		var raw [32]byte
		id := e.address.Addr().As16()
		seed := append(raw[:0], id[:]...)
		seed = append(seed, byte(e.address.Port()>>8), byte(e.address.Port()))
		places := max(pointsPerEndpoint*int64(e.weight.Load())*int64(len(endpoints))/weight, 1)
		for k := range places {
			place := xxhash.Sum64(append(seed, byte(k), byte(k>>8), byte(k>>16)))
			r.points = append(r.points, place&^(1<<32-1)|uint64(i))
		}
	}
	slices.Sort(r.points)
	return r
}

// find is the place of a key.
func (r *ring) find(key uint64) int {
	i := sort.Search(len(r.points), func(i int) bool { return r.points[i] >= key })
	return i % len(r.points)
}

// owner has the key when all is well.
func (r *ring) owner(key uint64) *Endpoint { return r.at(r.find(key)) }

func (r *ring) at(i int) *Endpoint { return r.owners[uint32(r.points[i])] }

// maxPlaces bounds the walk along the ring.
const maxPlaces = 1024

// byHash goes along the ring from the key to the first endpoint that takes the request. If
// it is bounded, it passes over those that have a quarter more than their share of what is in
// flight (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads"), so that
// one busy key cannot drown one endpoint. Nil: it found none.
func (l *endpointList) byHash(q *query, bounded bool) *Endpoint {
	r := l.getRing()
	var overloaded *Endpoint
	total := int64(-1)
	for i, n := r.find(q.key), min(len(r.points), maxPlaces); n > 0; n-- {
		e := r.at(i)
		switch {
		case !q.takes(e):
		case !bounded || l.bounded(e, &total):
			return e
		case overloaded == nil:
			overloaded = e
		}
		if i++; i == len(r.points) {
			i = 0
		}
	}
	return overloaded
}

// neverBusy is how many requests in flight are no burden to any endpoint. Without it, two
// requests at once with one key would go to two endpoints when there is little else.
const neverBusy = 8

// bounded tells whether e may have a request more. One that is not busy may, and that needs
// no look at the others.
func (l *endpointList) bounded(e *Endpoint, total *int64) bool {
	load := e.inFlight.Load()
	if load < neverBusy {
		return true
	}
	if *total < 0 {
		*total = l.inFlight()
	}
	// load+1 <= ceil(1.25 * (total+1) * weight / sum of weights)
	most := (5*(*total+1)*int64(e.weight.Load()) + 4*l.weight - 1) / (4 * l.weight)
	return load < most
}

// inFlight is the sum over all endpoints.
func (l *endpointList) inFlight() (n int64) {
	for _, e := range l.endpoints {
		n += e.inFlight.Load()
	}
	return n
}
