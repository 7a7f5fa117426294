package router

import "slices"

// maxTried is more than any request's retries; if it were not, the oldest is forgotten.
const maxTried = 8

// Tried is the small set of endpoints one request has been sent to. Its zero value is
// empty, it is a plain value, and it allocates nothing.
type Tried struct {
	endpoints [maxTried]*Endpoint
	added     int
}

// Add notes that the request was sent to e.
func (t *Tried) Add(e *Endpoint) {
	if t.Has(e) {
		return
	}
	t.endpoints[t.added%maxTried] = e
	t.added++
}

// Has tells whether the request was sent to e. A nil Tried is empty.
func (t *Tried) Has(e *Endpoint) bool {
	if t == nil {
		return false
	}
	return slices.Contains(t.endpoints[:t.Len()], e)
}

// Len is the number of endpoints in the set.
func (t *Tried) Len() int {
	if t == nil {
		return 0
	}
	return min(t.added, maxTried)
}
