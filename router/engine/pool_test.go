package engine

import (
	"net"
	"sync"
	"testing"
	"time"
)

// silent listens and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	})
	return ln.Addr().String()
}

func mustDial(t *testing.T, p *Pool) *clientConn {
	t.Helper()
	u, failed := p.dial(nil, time.Minute)
	if failed != nil {
		t.Fatal(failed)
	}
	return u
}

func TestPoolKeepsTheFirstOnesBusy(t *testing.T) {
	p := NewPool(silent(t), PoolConfig{MaxIdle: 2})
	defer p.Close()
	a, b, c := mustDial(t, p), mustDial(t, p), mustDial(t, p)
	now := time.Now()
	a.rest(now)
	b.rest(now)
	c.rest(now) // one too many
	if n := p.Open(); n != 2 {
		t.Errorf("%d open, want 2", n)
	}
	for range 3 {
		if u := p.get(); u != a {
			t.Fatal("not the first one")
		}
		a.rest(now)
	}
	if p.get() != a || p.get() != b || p.get() != nil {
		t.Error("not the two that are there")
	}
	a.close()
	b.close()
	if n := p.Open(); n != 0 {
		t.Errorf("%d open, want 0", n)
	}
}

func TestPoolClosesWhatIsOldAndAllAtTheEnd(t *testing.T) {
	p := NewPool(silent(t), PoolConfig{IdleTimeout: 50 * time.Millisecond})
	mustDial(t, p).rest(time.Now())
	for deadline := time.Now().Add(5 * time.Second); p.Open() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the old one stays open")
		}
	}
	idle, busy := mustDial(t, p), mustDial(t, p)
	idle.rest(time.Now())
	p.Close()
	if n := p.Open(); n != 1 {
		t.Errorf("%d open, want the busy one", n)
	}
	busy.rest(time.Now())
	if n := p.Open(); n != 0 {
		t.Errorf("%d open, want 0", n)
	}
}

// A sweep that has a connection in its hands while the pool is closed does not leave it there.
func TestPoolIsClosedWhileItIsSwept(t *testing.T) {
	p := NewPool(silent(t), PoolConfig{})
	u := mustDial(t, p)
	u.rest(time.Now())
	slot := &(*p.slots.Load())[0]
	slot.Store(nil) // the sweep has it
	p.Close()
	slot.Store(u)
	p.closeIdle(time.Now().Add(-time.Hour)) // it is not as old, and is put back
	if n := p.Open(); n != 0 {
		t.Errorf("%d open after the end", n)
	}
}

func TestPoolGivesAConnectionToOneAtATime(t *testing.T) {
	p := NewPool(silent(t), PoolConfig{MaxIdle: 8, IdleTimeout: 2 * time.Millisecond})
	var mu sync.Mutex
	inUse := map[*clientConn]bool{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 200 {
				u := p.get()
				if u == nil {
					var err *UpstreamError
					if u, err = p.dial(nil, time.Minute); err != nil {
						t.Error(err)
						return
					}
				}
				mu.Lock()
				if inUse[u] {
					t.Error("two have the same connection")
				}
				inUse[u] = true
				mu.Unlock()
				if i%50 == 0 {
					time.Sleep(3 * time.Millisecond) // let the sweep come
				}
				mu.Lock()
				inUse[u] = false
				mu.Unlock()
				u.rest(time.Now())
			}
		})
	}
	wg.Wait()
	p.Close()
	for deadline := time.Now().Add(10 * time.Second); p.Open() > 0; time.Sleep(time.Millisecond) { // what the sweep has in its hands
		if time.Now().After(deadline) {
			t.Fatalf("%d open after the end", p.Open())
		}
	}
	if n := p.idle.Load(); n != 0 {
		t.Errorf("%d idle after the end", n)
	}
}
