package ingress

import (
	"time"

	"github.com/portico-ingress/portico/manifests"
)

// patience is how long a host stays as it was for a Secret that the Source cannot tell
// about. After that it is served as if the Secret did not exist: one Secret that may not be
// read must not keep a host, or all of Portico, from being ready.
const patience = 10 * time.Second

// pendingRefs are the wanted objects that are not known yet, and since when.
type pendingRefs struct {
	since map[manifests.Ref]time.Time
}

// set replaces the whole set.
func (p *pendingRefs) set(refs map[manifests.Ref]struct{}, now time.Time) {
	next := make(map[manifests.Ref]time.Time, len(refs))
	for ref := range refs {
		next[ref] = now
		if since, ok := p.since[ref]; ok {
			next[ref] = since
		}
	}
	p.since = next
}

// has tells whether ref is still worth waiting for.
func (p *pendingRefs) has(ref manifests.Ref, now time.Time) bool {
	since, ok := p.since[ref]
	return ok && now.Sub(since) < patience
}

// next is when the first wait ends; false if nothing is waited for.
func (p *pendingRefs) next(now time.Time) (after time.Duration, ok bool) {
	for _, since := range p.since {
		left := since.Add(patience).Sub(now)
		if left <= 0 {
			continue
		}
		if !ok || left < after {
			after, ok = left, true
		}
	}
	return after, ok
}
