package router

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStatsCountWhatIsObserved(t *testing.T) {
	var s Stats
	s.Observe(0, Observation{Method: MethodGet, Status: 200, Duration: 3 * time.Millisecond, ResponseBytes: 10, Tries: 1, Upstream: time.Millisecond})
	s.Observe(1, Observation{Method: MethodPost, Status: 502, Duration: time.Hour, RequestBytes: 7, Tries: 3, Faults: [Faults]uint8{FaultConnect: 2, FaultReset: 1}})
	s.Observe(1<<31, Observation{Method: 99})

	var want StatsSnapshot
	want.Requests[MethodGet][2] = 1
	want.Requests[MethodPost][5] = 1
	want.Requests[MethodOther][0] = 1
	want.Duration.Buckets[bucketOf(3*time.Millisecond)] = 1
	want.Duration.Buckets[histogramBounds] = 1
	want.Duration.Buckets[0] = 1
	want.Duration.Sum = time.Hour + 3*time.Millisecond
	want.Upstream.Buckets[1] = 1
	want.Upstream.Sum = time.Millisecond
	want.RequestBytes, want.ResponseBytes = 7, 10
	want.Tries, want.Retries = 4, 2
	want.Faults = [Faults]uint64{FaultConnect: 2, FaultReset: 1}
	if diff := cmp.Diff(want, s.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

func TestStatsNilCountsNothing(t *testing.T) {
	var s *Stats
	s.Observe(0, Observation{Status: 200})
	if got := s.Snapshot(); got != (StatsSnapshot{}) {
		t.Errorf("got %+v", got)
	}
}

func TestStatsConcurrently(t *testing.T) {
	const workers, requests = 16, 2_000
	var s Stats
	var wg sync.WaitGroup
	for w := range uint32(workers) {
		wg.Go(func() {
			for range requests {
				s.Observe(w, Observation{Method: MethodGet, Status: 200, Tries: 1, Upstream: time.Second})
			}
		})
	}
	for range 100 {
		_ = s.Snapshot()
	}
	wg.Wait()
	got := s.Snapshot()
	const want = workers * requests
	if got.Requests[MethodGet][2] != want || got.Duration.Count() != want || got.Upstream.Count() != want || got.Tries != want {
		t.Errorf("got %+v, want %d of each", got, want)
	}
}

func TestStatsObserveAllocatesOnlyOnce(t *testing.T) {
	var s Stats
	o := Observation{Method: MethodGet, Status: 200, Duration: time.Second, Tries: 2, Upstream: time.Second}
	if n := testing.AllocsPerRun(1000, func() { s.Observe(5, o) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestShardsFor(t *testing.T) {
	for cores, want := range map[int]int{1: 1, 2: 2, 3: 4, 8: 8, 64: maxStatsShards} {
		if got := shardsFor(cores); got != want {
			t.Errorf("%d cores: got %d shards, want %d", cores, got, want)
		}
	}
}

func TestHistogramBuckets(t *testing.T) {
	if len(HistogramBounds) != histogramBounds {
		t.Fatalf("%d bounds, want %d", len(HistogramBounds), histogramBounds)
	}
	for i, d := range histogramDurations {
		if bucketOf(d) != i || bucketOf(d+1) != i+1 {
			t.Errorf("%v: in bucket %d, and just above in %d", d, bucketOf(d), bucketOf(d+1))
		}
	}
}

func TestHistogramCumulative(t *testing.T) {
	h := Histogram{}
	h.Buckets[0], h.Buckets[2], h.Buckets[histogramBounds] = 1, 2, 4
	got := h.Cumulative()
	for bound, want := range map[float64]uint64{.0005: 1, .001: 1, .0025: 3, 60: 3} {
		if got[bound] != want {
			t.Errorf("at most %v: got %d, want %d", bound, got[bound], want)
		}
	}
	if len(got) != histogramBounds || h.Count() != 7 {
		t.Errorf("%d bounds and %d times, want %d and 7", len(got), h.Count(), histogramBounds)
	}
}
