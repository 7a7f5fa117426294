package main

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy"
)

// Memory is spent until the first view is live, and spared from then on.
func TestHurry(t *testing.T) {
	before := debug.SetGCPercent(svcproxyGCPercent)
	defer debug.SetGCPercent(before)
	percent := func() int {
		now := debug.SetGCPercent(svcproxyGCPercent)
		debug.SetGCPercent(now)
		return now
	}
	for _, c := range []struct {
		name, gogc     string
		starting, then int
	}{
		{"as it is", "", startGCPercent, svcproxyGCPercent},
		{"GOGC knows better", "50", svcproxyGCPercent, svcproxyGCPercent},
	} {
		t.Setenv("GOGC", c.gogc)
		told := 0
		o := &svcproxy.Observer{Programmed: func(_, _, _ time.Duration) { told++ }}
		hurry(o)
		if got := percent(); got != c.starting {
			t.Errorf("%s: %d%% at the start, want %d", c.name, got, c.starting)
		}
		o.Programmed(0, 0, 0)
		o.Programmed(0, 0, 0)
		if got := percent(); got != c.then || told != 2 {
			t.Errorf("%s: %d%% and told %d times, want %d and 2", c.name, got, told, c.then)
		}
	}
}
