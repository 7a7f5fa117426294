package router

import (
	"runtime"
	"sync/atomic"
	"time"
)

// StatsKey says what is counted apart: the requests of one host pattern that one object
// asked for and that went to one service. All three come from routes, never from requests,
// so that clients cannot make up new ones.
type StatsKey struct {
	Host, Origin, Service string
}

// maxStatsShards bounds what a busy route costs: eight shards are 6 KB.
const maxStatsShards = 8

// statsShardMask is one less than the number of shards in use: a power of two that is
// enough for the cores of this process.
var statsShardMask = uint32(shardsFor(runtime.GOMAXPROCS(0)) - 1)

func shardsFor(cores int) int {
	n := 1
	for n < cores && n < maxStatsShards {
		n *= 2
	}
	return n
}

// Stats counts the requests of one StatsKey. Its zero value is ready, and small: a shard is
// made by the first request that needs it, so that 20,000 idle routes cost next to nothing.
// It goes on counting for the requests that hold it even if its set has dropped it.
type Stats struct {
	shards [maxStatsShards]atomic.Pointer[statsShard]
}

// statsShard is what the connections of one shard write. It is whole cache lines.
type statsShard struct {
	requests      [Methods][Classes]atomic.Uint64
	duration      histogramCounter
	upstream      histogramCounter
	requestBytes  atomic.Uint64
	responseBytes atomic.Uint64
	tries         atomic.Uint64
	retries       atomic.Uint64
	faults        [Faults]atomic.Uint64
	_             [48]byte
}

// Observe counts one request. The shard is any number that differs between connections,
// and stays the same on one: then cores seldom write the same words. It takes no lock, and
// does nothing on a nil Stats.
func (s *Stats) Observe(shard uint32, o Observation) {
	if s == nil {
		return
	}
	s.shard(shard & statsShardMask).observe(&o)
}

func (s *Stats) shard(i uint32) *statsShard {
	if c := s.shards[i].Load(); c != nil {
		return c
	}
	s.shards[i].CompareAndSwap(nil, new(statsShard))
	return s.shards[i].Load() // ours, or that of the request that was faster
}

func (c *statsShard) observe(o *Observation) {
	c.requests[o.Method.known()][ClassOf(o.Status)].Add(1)
	c.duration.observe(o.Duration)
	addTo(&c.requestBytes, o.RequestBytes)
	addTo(&c.responseBytes, o.ResponseBytes)
	if o.Tries == 0 {
		return
	}
	addTo(&c.tries, int64(o.Tries))
	addTo(&c.retries, int64(o.Tries-1))
	if o.Upstream > 0 {
		c.upstream.observe(o.Upstream)
	}
	for i, n := range o.Faults {
		addTo(&c.faults[i], int64(n))
	}
}

// addTo spares the write when there is nothing to add, and keeps counters from going back.
func addTo(c *atomic.Uint64, n int64) {
	if n > 0 {
		c.Add(uint64(n))
	}
}

// histogramCounter is a Histogram that is being counted.
type histogramCounter struct {
	buckets [histogramBounds + 1]atomic.Uint64
	sum     atomic.Uint64
}

func (h *histogramCounter) observe(d time.Duration) {
	h.buckets[bucketOf(d)].Add(1)
	addTo(&h.sum, int64(d))
}

func (h *histogramCounter) addInto(sum *Histogram) {
	for i := range h.buckets {
		sum.Buckets[i] += h.buckets[i].Load()
	}
	sum.Sum += time.Duration(h.sum.Load())
}

// StatsSnapshot is what a Stats had counted at one moment, all shards together.
type StatsSnapshot struct {
	// Requests counts by method and status class.
	Requests [Methods][Classes]uint64
	// Duration is how long requests took, and Upstream how long endpoints took to the head
	// of their answer.
	Duration, Upstream Histogram
	// RequestBytes and ResponseBytes are what clients sent and got.
	RequestBytes, ResponseBytes uint64
	// Tries counts requests sent to endpoints; Retries those that were not the first.
	Tries, Retries uint64
	// Faults counts the tries that failed.
	Faults [Faults]uint64
}

// Snapshot sums up what was counted until now. Requests that end meanwhile may be in it in
// part, never twice. A nil Stats has counted nothing.
func (s *Stats) Snapshot() StatsSnapshot {
	var sum StatsSnapshot
	if s == nil {
		return sum
	}
	for i := range s.shards {
		if c := s.shards[i].Load(); c != nil {
			c.addInto(&sum)
		}
	}
	return sum
}

func (c *statsShard) addInto(sum *StatsSnapshot) {
	for m := range c.requests {
		for class := range c.requests[m] {
			sum.Requests[m][class] += c.requests[m][class].Load()
		}
	}
	c.duration.addInto(&sum.Duration)
	c.upstream.addInto(&sum.Upstream)
	sum.RequestBytes += c.requestBytes.Load()
	sum.ResponseBytes += c.responseBytes.Load()
	sum.Tries += c.tries.Load()
	sum.Retries += c.retries.Load()
	for i := range c.faults {
		sum.Faults[i] += c.faults[i].Load()
	}
}
