package router

import (
	"math"
	"sync/atomic"
	"time"
)

// latencyMemory is the time in which what was measured loses all but 1/e of its weight.
const latencyMemory = 10 * time.Second

// latency is a moving average of the time to the head of an answer, that follows a peak at
// once and forgets it slowly. Its zero value knows nothing. Two that are counted at the
// same moment may count as one: it is an estimate, and no lock is worth it.
type latency struct {
	mean atomic.Uint64 // the bits of a float64, in nanoseconds; 0: unknown
	at   atomic.Int64  // on the clock of sinceStart
}

// observe counts a measurement.
func (l *latency) observe(took time.Duration, now time.Time) {
	at, sample := sinceStart(now), float64(max(took, 1))
	mean := math.Float64frombits(l.mean.Load())
	if sample < mean {
		w := math.Exp(-float64(max(at-l.at.Load(), 0)) / float64(latencyMemory))
		sample = mean*w + sample*(1-w)
	}
	l.at.Store(at)
	l.mean.Store(math.Float64bits(sample))
}

// worsen counts a failure: however quickly it came, it makes the endpoint no better, and
// one of which nothing else is known bad.
func (l *latency) worsen(took time.Duration, now time.Time) {
	mean := math.Float64frombits(l.mean.Load())
	l.observe(max(took, time.Duration(mean), failedLatency), now)
}

const failedLatency = time.Second

// estimate is the average as it counts now, in nanoseconds: what was long ago counts less,
// or an endpoint would be shunned for one slow answer for ever. 0: nothing is known.
func (l *latency) estimate(now time.Time) float64 {
	mean := math.Float64frombits(l.mean.Load())
	if mean == 0 {
		return 0
	}
	age := float64(max(sinceStart(now)-l.at.Load(), 0))
	return mean * math.Exp(-age/float64(latencyMemory))
}
