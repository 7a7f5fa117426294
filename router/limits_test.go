package router

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// holding is a backend that keeps every request until it is let go.
type holding struct {
	*rawBackend
	arrived atomic.Int32
	most    atomic.Int32 // at once
	now     atomic.Int32
	release chan struct{}
}

func startHolding(t *testing.T) *holding {
	t.Helper()
	h := &holding{release: make(chan struct{})}
	h.rawBackend = startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			n := h.now.Add(1)
			for m := h.most.Load(); n > m && !h.most.CompareAndSwap(m, n); m = h.most.Load() {
			}
			h.arrived.Add(1)
			<-h.release
			h.now.Add(-1)
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	return h
}

func TestLimitsHold(t *testing.T) {
	for name, tt := range map[string]struct {
		limits Limits
		most   int // at once, at each of two backends together
	}{
		"connections":  {Limits{Connections: 2, Pending: 20, PendingTimeout: patience}, 4},
		"requests":     {Limits{Requests: 3, Pending: 20, PendingTimeout: patience}, 3},
		"both":         {Limits{Connections: 2, Requests: 3, Pending: 20, PendingTimeout: patience}, 3},
		"more than is": {Limits{Connections: 50, Requests: 500, Pending: 20}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := startHolding(t), startHolding(t)
			f := setup{route: withPolicy(&Policy{Limits: tt.limits})}.start(t, a.addr, b.addr)
			const all = 12
			var wg sync.WaitGroup
			for range all {
				wg.Go(func() {
					if resp, _ := f.talk(t, getIt); resp.StatusCode != 200 {
						t.Errorf("status %d", resp.StatusCode)
					}
				})
			}
			eventually(t, "the limit is reached and the others wait", func() bool {
				return int(a.now.Load()+b.now.Load()) == tt.most && f.backend.Counts().Pending == all-tt.most
			})
			for range all {
				select {
				case a.release <- struct{}{}:
				case b.release <- struct{}{}:
				}
			}
			wg.Wait()
			if n := a.most.Load(); tt.limits.Connections == 2 && n > 2 {
				t.Errorf("%d at once at one endpoint", n)
			}
			f.log.await(t, all)
			if n := f.backend.running.Load(); n != 0 {
				t.Errorf("%d are running when all is over", n)
			}
			if c := f.backend.Counts(); c.Pending != 0 || c.Rejected != [Rejections]uint64{} {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestLimitsReject(t *testing.T) {
	t.Parallel()
	h := startHolding(t)
	f := setup{route: withPolicy(&Policy{Limits: Limits{Connections: 1, Pending: 1, PendingTimeout: 3 * time.Second}})}.start(t, h.addr)
	first := f.dial(t).send(getIt)
	eventually(t, "one is under way", func() bool { return h.now.Load() == 1 })
	second := f.dial(t).send(getIt)
	eventually(t, "one waits", func() bool { return f.backend.Counts().Pending == 1 })
	// The queue is full.
	if resp, _ := f.talk(t, getIt); resp.StatusCode != 503 {
		t.Errorf("status %d, want 503", resp.StatusCode)
	}
	// It takes too long.
	if resp, _ := second.answer("GET"); resp.StatusCode != 503 {
		t.Errorf("status %d, want 503", resp.StatusCode)
	}
	h.release <- struct{}{}
	if resp, _ := first.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if c := f.backend.Counts(); c.Rejected != [Rejections]uint64{RejectedFull: 1, RejectedTimeout: 1} {
		t.Errorf("counted %v", c.Rejected)
	}
	notes := 0
	for _, e := range f.log.await(t, 3) {
		if strings.HasPrefix(e.Note, "circuit open: ") {
			notes++
		}
	}
	if notes != 2 {
		t.Errorf("%d of the log's entries say what happened", notes)
	}
	if n := h.arrived.Load(); n != 1 {
		t.Errorf("%d requests came to the backend, want 1", n)
	}
}

func TestAClientThatGoesLeavesTheQueue(t *testing.T) {
	h := startHolding(t)
	f := setup{route: withPolicy(&Policy{Limits: Limits{Connections: 1, Pending: 5, PendingTimeout: patience}})}.start(t, h.addr)
	first := f.dial(t).send(getIt)
	eventually(t, "one is under way", func() bool { return h.now.Load() == 1 })
	second := f.dial(t).send(getIt)
	eventually(t, "one waits", func() bool { return f.backend.Counts().Pending == 1 })
	third := f.dial(t).send(getIt)
	eventually(t, "two wait", func() bool { return f.backend.Counts().Pending == 2 })
	second.Close()
	eventually(t, "it is gone", func() bool { return f.backend.Counts().Pending == 1 })
	h.release <- struct{}{}
	first.answer("GET")
	h.release <- struct{}{}
	if resp, _ := third.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("status %d of the one behind it", resp.StatusCode)
	}
	if c := f.backend.Counts(); c.Rejected != [Rejections]uint64{RejectedGone: 1} {
		t.Errorf("counted %v", c.Rejected)
	}
}

// Those who wait are served when endpoints come.
func TestANewEndpointServesTheQueue(t *testing.T) {
	h := startHolding(t)
	f := setup{route: withPolicy(&Policy{Limits: Limits{Connections: 1, Pending: 5, PendingTimeout: patience}})}.start(t, h.addr)
	first := f.dial(t).send(getIt)
	eventually(t, "one is under way", func() bool { return h.now.Load() == 1 })
	second := f.dial(t).send(getIt)
	eventually(t, "one waits", func() bool { return f.backend.Counts().Pending == 1 })
	other := startBackend(t, answerAll)
	f.targets(h.addr, other.addr)
	if resp, _ := second.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	h.release <- struct{}{}
	first.answer("GET")
}

// Many come and go at a small limit: nobody is forgotten, and it is never exceeded.
func TestLimitsUnderPressure(t *testing.T) {
	var now, most atomic.Int32
	b := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			now.Add(-1)
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	f := setup{route: withPolicy(&Policy{Limits: Limits{Connections: 2, Requests: 2, Pending: 100, PendingTimeout: patience}})}.start(t, b.addr)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := f.dial(t)
			for range 30 {
				c.get("/", 200)
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 2 {
		t.Errorf("%d at once, want 2 at most", n)
	}
}

// broke is a listener that has no descriptors left, a few times.
type broke struct {
	net.Listener
	times atomic.Int32
}

func (l *broke) Accept() (net.Conn, error) {
	if l.times.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// Without descriptors clients wait to be accepted; requests that need a new connection are 503,
// and no endpoint is blamed.
func TestOutOfDescriptors(t *testing.T) {
	var dials atomic.Int32
	s := setup{
		listen: func(ln net.Listener) net.Listener {
			l := &broke{Listener: ln}
			l.times.Store(3)
			return l
		},
		pool: engine.PoolConfig{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1) <= 4 { // both endpoints, twice
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}},
	}
	f := s.start(t, startBackend(t, answerAll).addr, startBackend(t, answerAll).addr)
	c := f.dial(t)
	c.get("/", 503)
	c.get("/", 503)
	for range 4 {
		c.get("/", 200)
	}
	ups := map[string]bool{}
	for _, e := range f.log.await(t, 6) {
		if e.Status == 503 && !strings.Contains(e.Note, "too many open files") {
			t.Errorf("note %q", e.Note)
		}
		if e.Status == 200 {
			ups[e.Upstream] = true
		}
	}
	if len(ups) != 2 {
		t.Errorf("of two endpoints these are used: %v", ups)
	}
}
