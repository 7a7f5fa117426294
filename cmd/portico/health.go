package main

import "sync/atomic"

// health is what probes ask about.
type health struct {
	// configured says whether the first complete configuration, with its certificates, is live.
	configured func() bool
	draining   atomic.Bool
}

// ready is true while new requests are welcome.
func (h *health) ready() bool { return h.configured() && !h.draining.Load() }

// drain says that this process is about to end.
func (h *health) drain() { h.draining.Store(true) }
