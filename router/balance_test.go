package router

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// targetsAt makes targets at 10.0.0.n:80.
func targetsAt(n ...byte) []Target {
	var targets []Target
	for _, i := range n {
		targets = append(targets, Target{Address: addressAt(i)})
	}
	return targets
}

func addressAt(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 80)
}

// backendAt makes a backend with endpoints at 10.0.0.n:80.
func backendAt(t testing.TB, n ...byte) *Backend {
	t.Helper()
	r := NewBackends(BackendsConfig{})
	r.SetTargets("b", targetsAt(n...))
	return r.Get("b")
}

// share counts picks by endpoint.
func share(b *Backend, picks int, avoid *Tried) map[*Endpoint]int {
	counts := map[*Endpoint]int{}
	for range picks {
		counts[b.Pick(avoid)]++
	}
	return counts
}

func TestPickWithoutEndpoints(t *testing.T) {
	if e := newBackend("b", Transport{}).Pick(nil); e != nil {
		t.Errorf("got %v, want nil", e.Address())
	}
}

func TestPickReachesEachEndpointInEveryRound(t *testing.T) {
	b := backendAt(t, 1, 2, 3, 4, 5)
	for round := range 100 {
		b.Pick(nil) // a round may begin anywhere
		for e, n := range share(b, 5, nil) {
			if n != 1 {
				t.Fatalf("round %d: %v picked %d times, want once", round, e.Address(), n)
			}
		}
	}
}

func TestPickIsEvenUnderConcurrency(t *testing.T) {
	const workers, picks, endpoints = 32, 3_000, 5
	b := backendAt(t, 1, 2, 3, 4, 5)
	var counts [endpoints + 1]atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range picks {
				counts[b.Pick(nil).Address().Addr().As4()[3]].Add(1)
			}
		})
	}
	wg.Wait()
	for i := 1; i <= endpoints; i++ {
		if got, want := counts[i].Load(), int64(workers*picks/endpoints); got != want {
			t.Errorf("endpoint %d: picked %d times, want exactly %d", i, got, want)
		}
	}
}

// Lists that change with every request must not send all of them to the first endpoint.
func TestPickGoesOnWhenTheListChanges(t *testing.T) {
	r := NewBackends(BackendsConfig{})
	counts := map[byte]int{}
	for i := range 300 {
		r.SetTargets("b", targetsAt(1, 2, 3, byte(4+i%2)))
		counts[r.Get("b").Pick(nil).Address().Addr().As4()[3]]++
	}
	for _, i := range []byte{1, 2, 3} {
		if counts[i] != 75 {
			t.Errorf("endpoint %d: picked %d times of 300, want 75", i, counts[i])
		}
	}
}

func TestPickStartsAnywhere(t *testing.T) {
	first := map[netip.AddrPort]bool{}
	for range 200 {
		first[backendAt(t, 1, 2, 3).Pick(nil).Address()] = true
	}
	if len(first) != 3 {
		t.Errorf("200 new backends began at %d of 3 endpoints", len(first))
	}
}

func TestPickPassesOverEndpointsThatAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backendAt(t, 1, 2, 3, 4)
		down := b.Endpoints()[1]
		down.Fail(time.Now())
		counts := share(b, 300, nil)
		if counts[down] != 0 {
			t.Errorf("the one that is down was picked %d times", counts[down])
		}
		for e, n := range counts {
			if n != 100 {
				t.Errorf("%v: picked %d times of 300, want 100: the others share evenly", e.Address(), n)
			}
		}
		time.Sleep(time.Second)
		if n := share(b, 40, nil)[down]; n != 10 {
			t.Errorf("after a while it was picked %d times of 40, want 10", n)
		}
	})
}

func TestPickTakesWhatIsDownWhenAllAre(t *testing.T) {
	b := backendAt(t, 1, 2, 3)
	for _, e := range b.Endpoints() {
		e.Fail(time.Now().Add(time.Hour))
	}
	if counts := share(b, 30, nil); counts[nil] != 0 || len(counts) != 3 {
		t.Errorf("got %v, want all three endpoints", counts)
	}
}

func TestPickAvoidsWhatWasTried(t *testing.T) {
	b := backendAt(t, 1, 2, 3)
	var tried Tried
	for range 3 {
		e := b.Pick(&tried)
		if tried.Has(e) {
			t.Fatalf("%v was picked again after %d tries", e.Address(), tried.Len())
		}
		tried.Add(e)
	}
	if b.Pick(&tried) == nil {
		t.Error("got none when all were tried, want any")
	}
}

func TestPickPreference(t *testing.T) {
	for _, tt := range []struct {
		name                         string
		triedA, downA, triedB, downB bool
	}{
		{name: "up before down", downA: true},
		{name: "untried before tried", triedA: true},
		{name: "untried and down before tried and up", triedA: true, downB: true},
		{name: "of tried ones, up before down", triedA: true, downA: true, triedB: true},
		{name: "of down ones, untried before tried", triedA: true, downA: true, downB: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := backendAt(t, 1, 2)
			var tried Tried
			for i, s := range []struct{ tried, down bool }{{tt.triedA, tt.downA}, {tt.triedB, tt.downB}} {
				if s.tried {
					tried.Add(b.Endpoints()[i])
				}
				if s.down {
					b.Endpoints()[i].Fail(time.Now().Add(time.Hour))
				}
			}
			if n := share(b, 20, &tried)[b.Endpoints()[1]]; n != 20 {
				t.Errorf("the better one was picked %d times of 20", n)
			}
		})
	}
}

// With one endpoint up among very many, it is still found every time.
func TestPickFindsTheOneThatIsUp(t *testing.T) {
	r := NewBackends(BackendsConfig{})
	var targets []Target
	for i := range 500 {
		targets = append(targets, Target{Address: netip.AddrPortFrom(addressAt(1).Addr(), uint16(1+i))})
	}
	r.SetTargets("b", targets)
	b := r.Get("b")
	for _, e := range b.Endpoints()[1:] {
		e.Fail(time.Now().Add(time.Hour))
	}
	if n := share(b, 50, nil)[b.Endpoints()[0]]; n != 50 {
		t.Errorf("picked %d times of 50", n)
	}
}

func TestPickWhileTheListChanges(t *testing.T) {
	r := NewBackends(BackendsConfig{})
	r.SetTargets("b", targetsAt(1, 2))
	b := r.Get("b")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 2_000 {
				e := b.Pick(nil)
				if e == nil {
					t.Error("got none from a list that is never empty")
					return
				}
				e.Begin()
				if i%10 == 0 {
					e.Fail(time.Now())
				}
				e.Succeed()
				e.End()
			}
		})
	}
	for i := range 500 {
		r.SetTargets("b", targetsAt(byte(i%7), byte(i%5+10), 20))
		for b := range r.All() {
			_ = b.Endpoints()
		}
	}
	wg.Wait()
}

func TestPickAllocatesNothing(t *testing.T) {
	b := backendAt(t, 1, 2, 3)
	b.Endpoints()[0].Fail(time.Now().Add(time.Hour))
	if n := testing.AllocsPerRun(1000, func() {
		var tried Tried
		tried.Add(b.Pick(&tried))
		tried.Add(b.Pick(&tried))
		b.Pick(&tried)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
