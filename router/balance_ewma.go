package router

// wait is the time a request would take at an endpoint, in nanoseconds: its latency once for
// each request that is there. One of which nothing is known is tried with a single request
// at a time.
func (q *query) wait(e *Endpoint) float64 {
	latency := e.latency.estimate(q.clock())
	if latency == 0 && e.inFlight.Load() > 0 {
		latency = float64(failedLatency)
	}
	return latency * e.load()
}
