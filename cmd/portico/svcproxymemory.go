package main

import (
	"context"
	"os"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"time"

	"go.uber.org/zap"
)

// svcproxyGCPercent: nearly all memory is objects that stay, and tidy gives back what is free. Lower
// saves some megabytes and costs CPU while much changes: at 10,000 Services of 10 endpoints 25 is 119 MB resident after
// the fill and 123 at most, and 28% of its CPU is collecting; 75 is 126 MB and 145 at most, and 13%.
const svcproxyGCPercent = 75

// frugal keeps memory low, unless GOGC says otherwise.
func frugal(log *zap.Logger) {
	limitMemory(os.DirFS("/"), os.Getenv, log)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(svcproxyGCPercent)
	}
}

const (
	tidyEvery = 2 * time.Second
	// Fewer bytes than tidyQuiet made within tidyEvery are quiet, and more than tidyWorth since the
	// last time are worth the trouble, which is one collection.
	tidyQuiet = 4 << 20
	tidyWorth = 64 << 20
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
