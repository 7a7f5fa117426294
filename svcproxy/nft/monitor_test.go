package nft

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// breakable panics in the middle of a repair.
type breakable struct {
	Socket
	broken atomic.Bool
}

func (b *breakable) Send(data []byte) error {
	if b.broken.Load() {
		panic("broken")
	}
	return b.Socket.Send(data)
}

// A defect in a repair ends the process, which is started again: it must not be left with nobody
// repairing, and nobody told.
func TestPanicEndsWatch(t *testing.T) {
	h := netlab.NewHost(t)
	b := &breakable{}
	p := newPlane(t, h, Config{Socket: func(kernel Socket) Socket { b.Socket = kernel; return b }})
	apply(t, p, Changes{Complete: true, Put: steadyServices(), Node: node})
	ended := make(chan any, 1)
	go func() {
		defer func() { ended <- recover() }()
		p.watch(t.Context())
	}()
	b.broken.Store(true)
	foreign(t, h, "flush set inet portico-a cluster-ips4")
	select {
	case got := <-ended:
		if got != "broken" {
			t.Errorf("watch ended with %v", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
}
