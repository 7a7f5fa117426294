package main

import (
	"runtime/debug"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy"
)

// Memory is spent until the first view is live, and spared from then on.
func TestHurry(t *testing.T) {
	const asItWas = 91
	before := debug.SetGCPercent(asItWas)
	defer debug.SetGCPercent(before)
	percent := func() int {
		now := debug.SetGCPercent(asItWas)
		debug.SetGCPercent(now)
		return now
	}
	for _, c := range []struct {
		name, gogc string
		hurries    bool
	}{
		{"as it is", "", true},
		{"GOGC knows better", "50", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			debug.SetGCPercent(asItWas)
			t.Setenv("GOGC", c.gogc)
			told := 0
			o := &svcproxy.Observer{Programmed: func(_, _, _ time.Duration) { told++ }}
			hurry(t.Context(), o)
			if got := percent(); (got == startGCPercent) != c.hurries || (got == asItWas) == c.hurries {
				t.Errorf("%d%% at the start", got)
			}
			o.Programmed(0, 0, 0)
			o.Programmed(0, 0, 0)
			// The heap of a test is small.
			if got := percent(); (got > startGCPercent) != c.hurries || (got == asItWas) == c.hurries || told != 2 {
				t.Errorf("then %d%%, and told %d times", got, told)
			}
		})
	}
}
