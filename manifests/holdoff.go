package manifests

import "time"

// holdOff waits for a burst of changes to end, so that a folder is not read while it is half
// written, but not for ever: something may write all the time.
type holdOff struct {
	quiet time.Duration
	max   time.Duration
	first time.Time // of the burst; zero if there is none
}

// touch says how long to wait from now, when one more change came.
func (h *holdOff) touch(now time.Time) time.Duration {
	if h.first.IsZero() {
		h.first = now
	}
	return max(0, min(h.quiet, h.first.Add(h.max).Sub(now)))
}

// done ends the burst.
func (h *holdOff) done() { h.first = time.Time{} }
