package router

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
)

// pickAs picks as a request of this policy would; keyed by key unless it is 0.
func pickAs(b *Backend, p *Policy, key uint64) *Endpoint {
	return b.choose(&query{policy: p, key: key, keyed: key != 0})
}

func keyOf(i int) uint64 {
	return xxhash.Sum64([]byte{byte(i), byte(i >> 8), byte(i >> 16)}) | 1
}

// ending is a request of a simulation that ends at a time.
type ending struct {
	at       time.Time
	endpoint *Endpoint
}

type endings []ending

func (h endings) Len() int           { return len(h) }
func (h endings) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h endings) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *endings) Push(x any)        { *h = append(*h, x.(ending)) }
func (h *endings) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

// simulation is clients that each send one request after another, on the clock of a bubble.
type simulation struct {
	policy  Policy
	clients int
	// service is how long an endpoint takes; it works on one request after another if
	// serial, or on all at once.
	service func(e *Endpoint) time.Duration
	key     func() uint64
}

// run gives the number of requests each endpoint had, by the last byte of its address, and
// the highest number one had at once.
func (s *simulation) run(b *Backend, requests int) (counts, peak map[byte]int) {
	counts, peak = map[byte]int{}, map[byte]int{}
	var busy endings
	for range requests {
		if len(busy) == s.clients {
			done := heap.Pop(&busy).(ending)
			time.Sleep(time.Until(done.at))
			done.endpoint.End()
		}
		key := uint64(0)
		if s.key != nil {
			key = s.key()
		}
		e := pickAs(b, &s.policy, key)
		e.Begin()
		id := e.Address().Addr().As4()[3]
		counts[id]++
		peak[id] = max(peak[id], int(e.InFlight()))
		took := s.service(e)
		if s.policy.Balance == PeakEWMA {
			e.latency.observe(took, time.Now().Add(took))
		}
		heap.Push(&busy, ending{time.Now().Add(took), e})
	}
	for _, x := range busy {
		x.endpoint.End()
	}
	return counts, peak
}

// jittered is a service time of about d.
func jittered(d time.Duration) time.Duration { return d/2 + rand.N(d) }

func isAt(e *Endpoint, n byte) bool { return e.Address() == addressAt(n) }

func within(t *testing.T, what string, got, low, high int) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %d, want %d to %d", what, got, low, high)
	}
}

// Bounds in these tests are at least eight standard deviations away.

func TestEqualEndpointsGetEqualShares(t *testing.T) {
	for _, balance := range []Balance{RoundRobin, LeastOutstanding, PeakEWMA} {
		t.Run(balance.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulation{policy: Policy{Balance: balance}, clients: 20, service: func(*Endpoint) time.Duration { return jittered(10 * time.Millisecond) }}
				counts, _ := s.run(backendAt(t, 1, 2, 3, 4, 5), 10_000)
				for n := byte(1); n <= 5; n++ {
					within(t, "requests", counts[n], 1_600, 2_400)
				}
			})
		})
	}
}

// One endpoint of five takes ten times as long. In turn it collects nearly all clients; the
// others give it what it can do.
func TestASlowEndpointGetsLess(t *testing.T) {
	slow := func(e *Endpoint) time.Duration {
		if isAt(e, 3) {
			return jittered(100 * time.Millisecond)
		}
		return jittered(10 * time.Millisecond)
	}
	for _, tt := range []struct {
		balance        Balance
		share          [2]int // of 10,000
		peakLow, peakN int
	}{
		{RoundRobin, [2]int{1_990, 2_010}, 10, 20},
		{LeastOutstanding, [2]int{50, 900}, 1, 9},
		{PeakEWMA, [2]int{0, 400}, 0, 6},
	} {
		t.Run(tt.balance.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulation{policy: Policy{Balance: tt.balance}, clients: 20, service: slow}
				counts, peak := s.run(backendAt(t, 1, 2, 3, 4, 5), 10_000)
				within(t, "requests to the slow one", counts[3], tt.share[0], tt.share[1])
				within(t, "at once at the slow one", peak[3], tt.peakLow, tt.peakN)
				for _, n := range []byte{1, 2, 4, 5} {
					fair := (10_000 - counts[3]) / 4
					within(t, "requests to a fast one", counts[n], fair*3/4, fair*5/4)
				}
			})
		})
	}
}

// What was slow once and is not any more gets its share back.
func TestEWMAForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backendAt(t, 1, 2)
		took := 100 * time.Millisecond
		s := simulation{policy: Policy{Balance: PeakEWMA}, clients: 8, service: func(e *Endpoint) time.Duration {
			if isAt(e, 1) {
				return took
			}
			return 10 * time.Millisecond
		}}
		counts, _ := s.run(b, 2_000)
		within(t, "requests while it is slow", counts[1], 1, 600)
		took = 10 * time.Millisecond
		time.Sleep(3 * latencyMemory)
		s.run(b, 2_000)
		counts, _ = s.run(b, 2_000)
		within(t, "requests once it is not", counts[1], 600, 1_400)
	})
}

// An endpoint that fails at once must not look like the fastest.
func TestEWMAShunsWhatFailsFast(t *testing.T) {
	b := backendAt(t, 1, 2)
	now := time.Now()
	b.Endpoints()[0].latency.worsen(time.Millisecond, now)
	b.Endpoints()[1].latency.observe(50*time.Millisecond, now)
	for range 100 {
		if e := pickAs(b, &Policy{Balance: PeakEWMA}, 0); !isAt(e, 2) {
			t.Fatal("the one that fails was picked")
		}
	}
}

func weighted(weights ...uint32) []Target {
	var targets []Target
	for i, w := range weights {
		targets = append(targets, Target{Address: addressAt(byte(i + 1)), Weight: w})
	}
	return targets
}

func TestWeights(t *testing.T) {
	for _, balance := range []Balance{RoundRobin, LeastOutstanding, PeakEWMA, ConsistentHash} {
		t.Run(balance.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := NewBackends(BackendsConfig{})
				r.SetTargets("b", weighted(10, 30, 60))
				i := 0
				s := simulation{
					policy: Policy{Balance: balance}, clients: 20,
					service: func(*Endpoint) time.Duration { return jittered(10 * time.Millisecond) },
					key:     func() uint64 { i++; return keyOf(i) },
				}
				counts, _ := s.run(r.Get("b"), 10_000)
				within(t, "weight 10", counts[1], 600, 1_400)
				within(t, "weight 30", counts[2], 2_300, 3_700)
				within(t, "weight 60", counts[3], 5_000, 7_000)
			})
		})
	}
}

func TestWeightsInTurnAreExactAndSpread(t *testing.T) {
	r := NewBackends(BackendsConfig{})
	r.SetTargets("b", weighted(1, 2, 5))
	b := r.Get("b")
	for round := range 50 {
		b.Pick(nil)
		counts := map[byte]int{}
		run, last := 0, byte(0)
		for range 8 {
			id := b.Pick(nil).Address().Addr().As4()[3]
			if id != last {
				run, last = 0, id
			}
			run++
			if counts[id]++; run > 3 {
				t.Fatalf("round %d: %d in a row", round, run)
			}
		}
		if counts[1] != 1 || counts[2] != 2 || counts[3] != 5 {
			t.Fatalf("round %d: %v", round, counts)
		}
	}
}

func TestWildWeightsAreBounded(t *testing.T) {
	for _, weights := range [][]uint32{{1, 1 << 31, 1<<32 - 1}, {1<<32 - 1, 1<<32 - 2}, {0, 0, 7}, {1 << 30}} {
		r := NewBackends(BackendsConfig{})
		r.SetTargets("b", weighted(weights...))
		l := r.Get("b").list.Load()
		if len(l.turns) > maxTurnsListed+len(weights) {
			t.Errorf("%v: %d turns", weights, len(l.turns))
		}
		if n := len(l.getRing().points); n > pointsPerEndpoint*len(weights)+len(weights) {
			t.Errorf("%v: %d points", weights, n)
		}
		got := map[*Endpoint]bool{}
		for range 2 * len(l.turns) {
			got[r.Get("b").Pick(nil)] = true
		}
		if len(got) != len(weights) {
			t.Errorf("%v: %d endpoints are picked", weights, len(got))
		}
	}
}

func TestHashSpreadsKeysAndKeepsThem(t *testing.T) {
	b := backendAt(t, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	p := &Policy{Balance: ConsistentHash}
	counts := map[byte]int{}
	for i := range 20_000 {
		e := pickAs(b, p, keyOf(i))
		if again := pickAs(b, p, keyOf(i)); again != e {
			t.Fatalf("key %d: %v, then %v", i, e.Address(), again.Address())
		}
		counts[e.Address().Addr().As4()[3]]++
	}
	for n, got := range counts { // of these addresses: nothing is random here
		within(t, "keys of "+addressAt(n).String(), got, 1_500, 2_500)
	}
}

func TestHashMovesOnlyWhatItMust(t *testing.T) {
	owners := func(b *Backend) []byte {
		var all []byte
		for i := range 20_000 {
			all = append(all, pickAs(b, &Policy{Balance: ConsistentHash}, keyOf(i)).Address().Addr().As4()[3])
		}
		return all
	}
	r := NewBackends(BackendsConfig{})
	r.SetTargets("b", targetsAt(1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
	before := owners(r.Get("b"))
	r.SetTargets("b", targetsAt(1, 2, 3, 4, 6, 7, 8, 9, 10)) // 5 goes
	without := owners(r.Get("b"))
	r.SetTargets("b", targetsAt(1, 2, 3, 4, 6, 7, 8, 9, 10, 11)) // 11 comes
	with := owners(r.Get("b"))
	gone, come := 0, 0
	for i := range before {
		if before[i] != without[i] {
			gone++
			if before[i] != 5 {
				t.Fatalf("key %d moved from %d to %d though 5 went", i, before[i], without[i])
			}
		}
		if without[i] != with[i] {
			come++
			if with[i] != 11 {
				t.Fatalf("key %d moved from %d to %d though 11 came", i, without[i], with[i])
			}
		}
	}
	within(t, "keys that moved when one of ten went", gone, 1_500, 2_500)
	within(t, "keys that moved when one of ten came", come, 1_500, 2_500)
}

// Another process makes the same ring, in whatever order it hears of endpoints.
func TestHashIsTheSameAtEveryReplica(t *testing.T) {
	a, b := backendAt(t, 1, 2, 3, 4, 5), NewBackends(BackendsConfig{})
	for _, n := range [][]byte{{3}, {9, 3, 5}, {5, 4, 3, 2, 1}} {
		b.SetTargets("b", targetsAt(n...))
		b.Get("b").list.Load().getRing()
	}
	for i := range 1_000 {
		x, y := pickAs(a, &Policy{Balance: ConsistentHash}, keyOf(i)), pickAs(b.Get("b"), &Policy{Balance: ConsistentHash}, keyOf(i))
		if x.Address() != y.Address() {
			t.Fatalf("key %d: %v here, %v there", i, x.Address(), y.Address())
		}
	}
}

// One key is all there is. Its endpoint gets a quarter more than its share, not all.
func TestHashIsBoundedUnderOneBusyKey(t *testing.T) {
	b := backendAt(t, 1, 2, 3, 4, 5)
	p := &Policy{Balance: ConsistentHash}
	first := pickAs(b, p, keyOf(7))
	for range 100 {
		pickAs(b, p, keyOf(7)).Begin()
	}
	for _, e := range b.Endpoints() {
		within(t, "in flight", int(e.InFlight()), 0, 25)
	}
	if first.InFlight() != 25 {
		t.Errorf("the key's own endpoint has %d of 100, want the 25 it may have", first.InFlight())
	}
}

// A few requests at once with one key stay together.
func TestHashKeepsAFewTogether(t *testing.T) {
	b := backendAt(t, 1, 2, 3, 4, 5)
	first := pickAs(b, &Policy{Balance: ConsistentHash}, keyOf(7))
	for i := range neverBusy {
		e := pickAs(b, &Policy{Balance: ConsistentHash}, keyOf(7))
		if e.Begin(); e != first {
			t.Errorf("request %d is at %v, and the first at %v", i+1, e.Address(), first.Address())
		}
	}
	if pickAs(b, &Policy{Balance: ConsistentHash}, keyOf(7)) == first {
		t.Errorf("%d at one endpoint, and none at others", neverBusy+1)
	}
}

func TestHashPassesOverWhatIsOut(t *testing.T) {
	b := backendAt(t, 1, 2, 3, 4)
	p := &Policy{Balance: ConsistentHash}
	down := b.Endpoints()[1]
	before := map[int]*Endpoint{}
	for i := range 1_000 {
		before[i] = pickAs(b, p, keyOf(i))
	}
	down.Fail(time.Now().Add(time.Hour))
	for i := range 1_000 {
		switch e := pickAs(b, p, keyOf(i)); {
		case e == down:
			t.Fatal("it was picked")
		case before[i] != down && e != before[i]:
			t.Fatalf("key %d moved though its endpoint is up", i)
		}
	}
}

func TestSlowStart(t *testing.T) {
	for _, balance := range []Balance{RoundRobin, LeastOutstanding, PeakEWMA, ConsistentHash} {
		t.Run(balance.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := NewBackends(BackendsConfig{})
				r.SetTargets("b", targetsAt(1, 2, 3))
				b, p := r.Get("b"), &Policy{Balance: balance, SlowStart: 10 * time.Second}
				share := func() int {
					n := 0
					for i := range 8_000 {
						if isAt(pickAs(b, p, keyOf(i)), 4) {
							n++
						}
					}
					return n
				}
				for _, e := range b.Endpoints() {
					if q := (query{policy: p}); !q.takes(e) {
						t.Error("the first endpoints leave requests to nobody")
					}
				}
				time.Sleep(time.Minute)
				r.SetTargets("b", targetsAt(1, 2, 3, 4))
				full := 2_000
				if balance == ConsistentHash {
					full = 0
					for i := range 8_000 {
						if isAt(b.list.Load().getRing().owner(keyOf(i)), 4) {
							full++
						}
					}
				}
				within(t, "at first", share(), full/20, full/4)
				time.Sleep(5 * time.Second)
				within(t, "half way", share(), full*3/10, full*3/4)
				time.Sleep(5 * time.Second)
				within(t, "in the end", share(), full*4/5, full*6/5)
			})
		})
	}
}

func TestChoosingAvoids(t *testing.T) {
	for _, balance := range []Balance{RoundRobin, LeastOutstanding, PeakEWMA, ConsistentHash} {
		t.Run(balance.String(), func(t *testing.T) {
			p := &Policy{Balance: balance}
			if e := pickAs(newBackend("b", Transport{}), p, 1); e != nil {
				t.Errorf("got %v of no endpoints", e)
			}
			if e := pickAs(backendAt(t, 1), p, 1); !isAt(e, 1) {
				t.Error("the only endpoint is not picked")
			}
			b := backendAt(t, 1, 2, 3, 4)
			b.Endpoints()[0].Fail(time.Now().Add(time.Hour))
			b.Endpoints()[1].setHealthy(false)
			var tried Tried
			tried.Add(b.Endpoints()[2])
			for i := range 200 {
				if e := b.choose(&query{policy: p, avoid: &tried, key: keyOf(i), keyed: true}); !isAt(e, 4) {
					t.Fatalf("%v was picked", e.Address())
				}
			}
			// All are out: all are used.
			b.Endpoints()[2].Fail(time.Now().Add(time.Hour))
			b.Endpoints()[3].setHealthy(false)
			used := map[*Endpoint]bool{}
			for i := range 400 {
				used[pickAs(b, p, keyOf(i))] = true
			}
			if len(used) != 4 {
				t.Errorf("%d of 4 endpoints are used when all are out", len(used))
			}
		})
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	b := backendAt(t, 1, 2, 3, 4, 5)
	b.Endpoints()[0].Fail(time.Now().Add(time.Hour))
	for _, p := range []*Policy{
		{Balance: LeastOutstanding},
		{Balance: PeakEWMA},
		{Balance: ConsistentHash},
		{SlowStart: time.Hour},
		{Limits: Limits{Connections: 5}},
	} {
		pickAs(b, p, 5)
		if n := testing.AllocsPerRun(1_000, func() { pickAs(b, p, 5) }); n != 0 {
			t.Errorf("%v: %v allocations", p, n)
		}
	}
}

func BenchmarkPickBy(b *testing.B) {
	for _, p := range []*Policy{
		{Balance: RoundRobin},
		{Balance: LeastOutstanding},
		{Balance: PeakEWMA},
		{Balance: ConsistentHash},
		{SlowStart: time.Second},
		{Limits: Limits{Connections: 1000}},
	} {
		for _, n := range []int{10, 100} {
			r := NewBackends(BackendsConfig{})
			var targets []Target
			for i := range n {
				targets = append(targets, Target{Address: addressAt(byte(i + 1))})
			}
			r.SetTargets("b", targets)
			backend := r.Get("b")
			for _, e := range backend.Endpoints() {
				e.latency.observe(time.Millisecond, time.Now())
				e.inFlight.Store(neverBusy) // so that the bound of hashing has to look at all
			}
			name := p.String()
			if name == "" {
				name = "round_robin"
			}
			pickAs(backend, p, 1)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					pickAs(backend, p, uint64(i)*0x9e3779b97f4a7c15|1)
				}
			})
		}
	}
}
