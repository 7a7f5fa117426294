package router

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// maxChecks bounds how many checks run at the same time, and checkTick is how often the
// Checker looks which are due.
const (
	maxChecks = 64
	checkTick = 100 * time.Millisecond
)

// Checker asks the endpoints of backends that have a HealthCheck, and takes those out that
// are not well. One goroutine decides, and up to 64 ask.
type Checker struct {
	backends *Backends
	ask      func(ctx context.Context, c question, e *Endpoint) error
}

// NewChecker returns a Checker of these backends, whose Run has to be called.
func NewChecker(backends *Backends) *Checker {
	return &Checker{backends: backends, ask: askEndpoint}
}

// checked is what the Checker knows of an endpoint.
type checked struct {
	check   question
	due     time.Time
	running bool
	// streak counts results in a row that speak against the present state.
	streak  int
	healthy bool
}

// result is the end of a check.
type result struct {
	endpoint *Endpoint
	check    question
	err      error
}

// Run checks until ctx ends, and then waits for the checks under way.
func (k *Checker) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	r := round{Checker: k, endpoints: map[*Endpoint]*checked{}, results: make(chan result, maxChecks)}
	defer r.under.Wait()
	defer cancel()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case found := <-r.results:
			r.running--
			r.note(found)
			continue
		case <-k.backends.checksChanged:
			r.survey()
		case <-tick.C:
		}
		r.start(ctx)
		if len(r.endpoints) > 0 {
			tick.Reset(checkTick)
		}
	}
}

// round is the state of a Checker that runs.
type round struct {
	*Checker
	endpoints map[*Endpoint]*checked
	results   chan result // has room for all that run
	running   int
	under     sync.WaitGroup
}

// start begins the checks that are due, as far as there is room; the others are late.
func (r *round) start(ctx context.Context) {
	now := time.Now()
	for e, c := range r.endpoints {
		if r.running == maxChecks {
			return
		}
		if c.running || now.Before(c.due) {
			continue
		}
		c.running = true
		r.running++
		check := c.check
		r.under.Go(func() { r.results <- result{e, check, r.timed(ctx, check, e)} })
	}
}

func (k *Checker) timed(ctx context.Context, c question, e *Endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return k.ask(ctx, c, e)
}

// survey brings the endpoints that are checked to those that should be.
func (r *round) survey() {
	endpoints, wanted := r.endpoints, map[*Endpoint]question{}
	for b := range r.backends.All() {
		if check := b.check.Load(); check != nil {
			for _, e := range b.Endpoints() {
				wanted[e] = questionOf(*check, b.Transport())
			}
		}
	}
	for e := range endpoints {
		if _, ok := wanted[e]; !ok {
			delete(endpoints, e)
			e.setHealthy(true) // nobody would say so later
		}
	}
	for e, check := range wanted {
		if c := endpoints[e]; c == nil {
			endpoints[e] = &checked{check: check, healthy: true}
		} else if c.check != check {
			c.check, c.due, c.streak = check, time.Time{}, 0
		}
	}
}

// note takes in what a check has found.
func (r *round) note(found result) {
	c := r.endpoints[found.endpoint]
	if c == nil {
		return // it has gone meanwhile
	}
	c.running = false
	if c.check != found.check {
		return // the other check is due
	}
	// A tenth of jitter: many proxies must not ask in step.
	c.due = time.Now().Add(c.check.Interval*9/10 + rand.N(c.check.Interval/5+1))
	if c.judge(found.err == nil) {
		found.endpoint.setHealthy(c.healthy)
	}
}

// judge counts a result, and tells whether the state has changed by it.
func (c *checked) judge(well bool) (changed bool) {
	if well == c.healthy {
		c.streak = 0
		return false
	}
	needed := c.check.Rise
	if c.healthy {
		needed = c.check.Fall
	}
	if c.streak++; c.streak < needed {
		return false
	}
	c.healthy, c.streak = well, 0
	return true
}
