package main

import (
	"context"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/portico-ingress/portico/svcproxy"
)

// startGCPercent is for the first view of the cluster. What is read then mostly stays, and a collection
// at each step of the heap's growth, as svcproxy has it later, is more than half of the work of a start.
const startGCPercent = 200

// hurry spends memory on a fast start, until the first view is live, and spares it from then on. A limit of memory
// holds all the same, and so does GOGC.
func hurry(ctx context.Context, o *svcproxy.Observer) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(startGCPercent)
	calm := sync.OnceFunc(func() { paceCollections(ctx) })
	programmed := o.Programmed
	o.Programmed = func(compile, write, since time.Duration) {
		calm()
		programmed(compile, write, since)
	}
}
