package engine

import (
	"time"

	"golang.org/x/net/http2"
)

// h2guard bounds what one may make the proxy do for nothing: frames that cost it
// little and us more (RFC 9113 section 10.5). Each takes something from a purse, which
// honest work and time fill again. When it is empty the connection ends with
// ENHANCE_YOUR_CALM.
type h2guard struct {
	purse int
	since time.Time // the purse was last filled by time
}

// What things cost. Browsers send a few PRIORITY frames and cancel a page full of requests
// at once; some clients send one small WINDOW_UPDATE for each piece they get.
const (
	h2Purse      = 1000
	h2PerSecond  = 50
	h2CostError  = 5
	h2CostReset  = 5
	h2EarnAnswer = 6
	h2EarnData   = 2
	h2TinyFrame  = 16  // DATA and CONTINUATION below this do not pay for themselves
	h2TinyData   = 5   // DATA below this is a nuisance; an empty message of gRPC has as much
	h2TinyWindow = 256 // nor does WINDOW_UPDATE
)

func (g *h2guard) start(now time.Time) { g.purse, g.since = h2Purse, now }

func (g *h2guard) earn(n int) { g.purse = min(g.purse+n, h2Purse) }

// spend reports whether there is anything left.
func (g *h2guard) spend(n int) bool {
	g.purse -= n
	if g.purse >= 0 {
		return true
	}
	now := time.Now()
	passed := now.Sub(g.since)
	if passed < time.Second/h2PerSecond {
		return false
	}
	g.since = now
	g.earn(int(min(passed, time.Minute) / (time.Second / h2PerSecond)))
	return g.purse >= 0
}

// annoyed takes note of a frame that costs more than it is worth.
func (c *h2link) annoyed(cost int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.annoyedLocked(cost)
}

func (c *h2link) annoyedLocked(cost int) error {
	if c.guard.spend(cost) && len(c.out.pending) <= h2MaxPending {
		return nil
	}
	return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
}

// h2resets remembers the streams that were reset last, by us: what the client sent before
// it knew is no fault (RFC 9113 section 5.1).
type h2resets struct {
	ids  [h2MaxStreams]uint32
	next int
}

func (r *h2resets) add(id uint32) {
	r.ids[r.next] = id
	r.next = (r.next + 1) % len(r.ids)
}

// drop forgets a stream that the client has reset too: nothing may follow that.
func (r *h2resets) drop(id uint32) {
	for i, known := range r.ids {
		if known == id {
			r.ids[i] = 0
		}
	}
}

func (r *h2resets) has(id uint32) bool {
	for _, known := range r.ids {
		if known == id {
			return true
		}
	}
	return false
}
