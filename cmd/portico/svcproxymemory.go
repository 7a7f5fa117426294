package main

import (
	"context"
	"runtime"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"time"
)

const (
	// gcFloor is the heap below which nothing is collected. While little is there, which is much of a fill, a share of what
	// stays would be little, and collections many.
	gcFloor = 64 << 20
	// gcPercent is by how much the heap grows at least between two collections. Nearly all memory is objects that stay, and
	// tidy gives back what is free.
	gcPercent = 50
)

// gcPercentFor is the GOGC with which a heap of which so much stays is collected at gcFloor, or later.
func gcPercentFor(live uint64) int {
	live = min(max(live, gcFloor/100), gcFloor)
	return max(gcPercent, int((gcFloor-live)*100/live))
}

// paceCollections sees to gcFloor now and after each collection, until ctx ends. A limit of memory holds all the same.
func paceCollections(ctx context.Context) {
	live := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	set := 0
	afterCollections(ctx, func() {
		rtmetrics.Read(live)
		if percent := gcPercentFor(live[0].Value.Uint64()); percent != set {
			set = percent
			debug.SetGCPercent(percent) // stops the world, for some microseconds
		}
	})
}

// afterCollections calls f now and after each collection, never twice at once.
func afterCollections(ctx context.Context, f func()) {
	if ctx.Err() != nil {
		return
	}
	f()
	type sentinel struct{ _ *byte } // with a pointer, so that it shares its place with nothing that stays
	runtime.AddCleanup(&sentinel{}, func(f func()) { afterCollections(ctx, f) }, f)
}

const (
	tidyEvery = 2 * time.Second
	// Fewer bytes than tidyQuiet made within tidyEvery are quiet, and more than tidyWorth since the
	// last time are worth the trouble, which is one collection.
	tidyQuiet = 4 << 20
	tidyWorth = 32 << 20
)

// tidy gives memory back to the system when much was made and it is quiet again: after the first
// view of the cluster, and after a great change. The runtime would keep it for the next one.
func tidy(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	made := []rtmetrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	var t tidier
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if rtmetrics.Read(made); t.due(made[0].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}

// tidier decides when to tidy, by how many bytes have ever been made.
type tidier struct{ last, tidied uint64 }

func (t *tidier) due(made uint64) bool {
	quiet := made-t.last < tidyQuiet
	t.last = made
	if !quiet || made-t.tidied < tidyWorth {
		return false
	}
	t.tidied = made
	return true
}
