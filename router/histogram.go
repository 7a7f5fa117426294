package router

import "time"

// histogramBounds is len(HistogramBounds), for array sizes.
const histogramBounds = 15

// HistogramBounds are the upper bounds of a Histogram's buckets, in seconds. They must not
// be changed.
var HistogramBounds = []float64{
	.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60,
}

var histogramDurations = func() (d [histogramBounds]time.Duration) {
	for i := range d {
		d[i] = time.Duration(HistogramBounds[i] * float64(time.Second))
	}
	return d
}()

// Histogram is a distribution of times.
type Histogram struct {
	// Buckets counts the times that were at most the bound of the same index and above the
	// one before; the last counts the times above all bounds.
	Buckets [histogramBounds + 1]uint64
	// Sum is all times together.
	Sum time.Duration
}

// Count is the number of times counted.
func (h Histogram) Count() uint64 {
	var n uint64
	for _, c := range h.Buckets {
		n += c
	}
	return n
}

// Cumulative maps each bound to the number of times that were at most that, which is how
// Prometheus wants it.
func (h Histogram) Cumulative() map[float64]uint64 {
	m := make(map[float64]uint64, histogramBounds)
	var n uint64
	for i, bound := range HistogramBounds {
		n += h.Buckets[i]
		m[bound] = n
	}
	return m
}

func bucketOf(d time.Duration) int {
	for i := range histogramDurations {
		if d <= histogramDurations[i] {
			return i
		}
	}
	return histogramBounds
}
