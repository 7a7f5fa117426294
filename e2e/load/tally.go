package load

import (
	"slices"
	"time"
)

// outcome is how one request ended.
type outcome struct {
	status      int
	err         error
	reused      bool
	stale       bool
	pod         string
	body        string // how the answer began, when it was not a good one
	certificate string // serial number, when there was a handshake
}

// tally counts one connection's outcomes. It has a single owner.
type tally struct {
	start     time.Time
	result    Result
	latencies []time.Duration
}

func newTally(start time.Time) *tally {
	return &tally{start: start, result: Result{Statuses: map[int]int{}, Pods: map[string]int{}, Certificates: map[string]int{}}}
}

// add counts the request that was due at the time given and has just ended.
func (t *tally) add(due time.Time, o outcome) {
	r, took := &t.result, time.Since(due)
	r.Sent++
	t.latencies = append(t.latencies, took)
	if o.stale {
		r.Stale++
	}
	if o.certificate != "" {
		r.Certificates[o.certificate]++
	}
	if o.status != 0 {
		r.Statuses[o.status]++
	}
	if o.pod != "" {
		r.Pods[o.pod]++
	}
	if o.err == nil && o.status >= 200 && o.status < 300 {
		r.OK++
		return
	}
	r.Failed++
	f := Failure{After: due.Sub(t.start), Took: took, Status: o.status, Reused: o.reused, Body: o.body}
	if o.err != nil {
		f.Error = o.err.Error()
	}
	if len(r.Failures) < maxFailures {
		r.Failures = append(r.Failures, f)
	}
}

// merge adds tallies up.
func merge(tallies []*tally, took time.Duration) *Result {
	total := newTally(time.Time{})
	r := &total.result
	r.Duration = took
	for _, t := range tallies {
		r.Sent += t.result.Sent
		r.OK += t.result.OK
		r.Failed += t.result.Failed
		r.Stale += t.result.Stale
		r.Failures = append(r.Failures, t.result.Failures...)
		sum(r.Statuses, t.result.Statuses)
		sum(r.Pods, t.result.Pods)
		sum(r.Certificates, t.result.Certificates)
		total.latencies = append(total.latencies, t.latencies...)
	}
	slices.SortFunc(r.Failures, func(a, b Failure) int { return int(a.After - b.After) })
	r.Failures = r.Failures[:min(len(r.Failures), maxFailures)]
	slices.Sort(total.latencies)
	if n := len(total.latencies); n > 0 {
		at := func(percent int) time.Duration { return total.latencies[min(n-1, n*percent/100)] }
		r.P50, r.P90, r.P99, r.Max = at(50), at(90), at(99), total.latencies[n-1]
	}
	return r
}

func sum[K comparable](into, from map[K]int) {
	for k, n := range from {
		into[k] += n
	}
}
