package services

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// probe asks without pause from several clients at once: for each address one that keeps its
// connection and one that makes a new one each time. No question may fail. stop ends it and says
// how many there were.
func probe(t *testing.T, host string, addresses ...string) (stop func() (asked int64)) {
	t.Helper()
	var clients sync.WaitGroup
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	for _, at := range addresses {
		for _, keep := range []bool{true, false} {
			clients.Go(func() {
				c := httpFrom(host, 5*time.Second, keep)
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for ctx.Err() == nil {
					_, err := ask(context.WithoutCancel(ctx), c, at)
					asked.Add(1)
					if err != nil {
						t.Errorf("%s from %s, connection kept: %v: %v", at, host, keep, err)
						return
					}
					<-tick.C
				}
			})
		}
	}
	stop = func() int64 {
		cancel()
		clients.Wait()
		return asked.Load()
	}
	t.Cleanup(func() { stop() })
	return stop
}
