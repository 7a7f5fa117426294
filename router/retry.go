package router

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// Retry says when a request that failed is sent to another endpoint. Its zero value is that
// of ingress-nginx: errors and timeouts, three tries.
//
// Only a request that is still here as a whole is sent again, and one that may have been
// acted on only if doing so twice does no harm, or if RetryNonIdempotent says that it does not.
type Retry struct {
	// On are the reasons; 0 means RetryErrors | RetryTimeouts.
	On RetryOn
	// Tries is how often a request is sent at most, 8 at most. 0 means ProxyConfig.MaxTries.
	Tries int
	// Timeout is how long after its first try a request may still be sent again, as nginx's
	// proxy_next_upstream_timeout. A try that has begun goes on. 0: no limit but that of Tries,
	// so that three tries at endpoints that never answer take three read timeouts.
	Timeout time.Duration
	// Budget is how many requests may be under way again, in percent of those in flight to
	// the backend, and BudgetFloor how many always may. 0 means 20 and 10; -1 means none.
	// Retries that burden nobody are free: of requests of which nothing was sent, and the first
	// one of each request that met a kept connection the endpoint had closed.
	Budget, BudgetFloor int
}

// RetryOn is a set of reasons to retry, named as in nginx's proxy_next_upstream.
type RetryOn uint16

// The reasons.
const (
	RetryErrors         RetryOn = 1 << iota // connecting, sending or reading failed
	RetryTimeouts                           // the same, because it took too long
	RetryInvalidHeaders                     // the answer was empty or not HTTP
	Retry500
	Retry502
	Retry503
	Retry504
	Retry403
	Retry404
	Retry429
	RetryNonIdempotent // also POST, PATCH and the like, which may then be done twice
	RetryOff           // never
)

var retryNames = [...]string{
	"error", "timeout", "invalid_header", "http_500", "http_502", "http_503", "http_504",
	"http_403", "http_404", "http_429", "non_idempotent", "off",
}

// ParseRetryOn reads one reason as nginx spells it.
func ParseRetryOn(name string) (RetryOn, bool) {
	for i, n := range retryNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// RetryOnNames are the reasons as nginx spells them.
func RetryOnNames() string { return strings.Join(retryNames[:], ", ") }

func (r RetryOn) has(o RetryOn) bool { return r&o != 0 }

// String lists the reasons.
func (r RetryOn) String() string {
	var words []string
	for i, n := range retryNames {
		if r.has(1 << i) {
			words = append(words, n)
		}
	}
	return strings.Join(words, ",")
}

func (r Retry) withDefaults(tries int) Retry {
	if r.On == 0 || r.On == RetryNonIdempotent {
		r.On |= RetryErrors | RetryTimeouts
	}
	if r.Tries == 0 {
		r.Tries = tries
	}
	r.Tries = min(r.Tries, maxTried)
	if r.Budget == 0 {
		r.Budget = 20
	}
	if r.BudgetFloor == 0 {
		r.BudgetFloor = 10
	}
	return r
}

// String tells all that holds.
func (r Retry) String() string {
	r = r.withDefaults(3)
	return fmt.Sprintf("%s,tries=%d,timeout=%s,budget=%d%%+%d", r.On, r.Tries, r.Timeout, max(r.Budget, 0), max(r.BudgetFloor, 0))
}

// onStatus is the reason that an answer is.
func onStatus(status int) RetryOn {
	switch status {
	case 500:
		return Retry500
	case 502:
		return Retry502
	case 503:
		return Retry503
	case 504:
		return Retry504
	case 403:
		return Retry403
	case 404:
		return Retry404
	case 429:
		return Retry429
	}
	return 0
}

// RetryReason is why a request was sent again, as it is counted.
type RetryReason uint8

// The reasons that are counted apart.
const (
	RetriedConnect RetryReason = iota // no connection could be made
	RetriedStale                      // a kept connection had been closed
	RetriedError                      // the connection broke
	RetriedTimeout                    // no answer in time
	RetriedInvalid                    // the answer was not HTTP
	RetriedStatus                     // the answer was of a status that is retried
	RetryReasons                      // the number of them
)

var reasonNames = [RetryReasons]string{"connect", "stale", "error", "timeout", "invalid_header", "status"}

// String is the reason as a metric label has it.
func (r RetryReason) String() string {
	if r >= RetryReasons {
		return "unknown"
	}
	return reasonNames[r]
}

// failure is what went wrong with a try, as far as trying again goes by it.
type failure struct {
	on     RetryOn
	reason RetryReason
	// unsent: nothing can have been done.
	unsent bool
	// stale: it says nothing about the endpoint.
	stale bool
}

// failureOf sorts an error. Its On is 0 if it is the client's.
func failureOf(err *engine.UpstreamError) failure {
	f := failure{unsent: err.Unsent}
	switch err.Cause {
	case engine.CauseConnect:
		f.on, f.reason = RetryErrors, RetriedConnect
		if errors.Is(err.Err, os.ErrDeadlineExceeded) {
			f.on = RetryTimeouts
		}
	case engine.CauseWrite, engine.CauseClosed:
		f.on, f.reason, f.stale = RetryErrors, RetriedError, err.Reused
		if f.stale {
			f.reason = RetriedStale
		}
	case engine.CauseTimeout:
		f.on, f.reason = RetryTimeouts, RetriedTimeout
	case engine.CauseProtocol:
		f.on, f.reason = RetryInvalidHeaders, RetriedInvalid
	}
	return f
}

// retries decides whether a request that failed is sent once more, and counts it: never if
// that could do something twice (RFC 9110 section 9.2.2), never if part of an answer has come.
func (p *Proxy) retries(x *engine.Exchange, s *passage, f failure) bool {
	r := s.policy.Retry.withDefaults(p.cfg.MaxTries)
	switch {
	case f.on == 0, s.tries >= r.Tries, !x.Replayable():
		return false
	case !f.unsent && !x.Idempotent() && !r.On.has(RetryNonIdempotent):
		return false
	case r.Timeout > 0 && time.Since(s.firstTry) >= r.Timeout:
		return false
	}
	b := s.route.Backend
	if f.stale && !s.stale { // the first is free, and the same endpoint is as good as any
		s.stale = true
		b.counts.retries[f.reason].Add(1)
		return true
	}
	if r.On.has(RetryOff) || !r.On.has(f.on) || !f.stale && !s.othersLeft() {
		return false
	}
	if !f.unsent && !s.retrying {
		if !b.retry(r.Budget, r.BudgetFloor) {
			b.counts.budgetExhausted.Add(1)
			s.overBudget = true
			return false
		}
		s.retrying = true
	}
	b.counts.retries[f.reason].Add(1)
	return true
}

func (s *passage) othersLeft() bool {
	for _, e := range s.route.Backend.Endpoints() {
		if !s.tried.Has(e) {
			return true
		}
	}
	return false
}

// retry counts a request in that is sent again, if the budget has room for it. A backend in
// trouble must not get several times the requests for that: it would never recover.
func (b *Backend) retry(percent, floor int) bool {
	n := b.retrying.Add(1)
	if n <= int64(floor) || percent > 0 && n*100 <= b.list.Load().inFlight()*int64(percent) {
		return true
	}
	b.retrying.Add(-1)
	return false
}

// backendCounts are of what happens seldom: one word each is enough.
type backendCounts struct {
	retries         [RetryReasons]atomic.Uint64
	budgetExhausted atomic.Uint64
	ejections       atomic.Uint64
	spared          atomic.Uint64
	rejected        [Rejections]atomic.Uint64
}

// BackendCounts is what has happened at a backend, all routes together.
type BackendCounts struct {
	// Retries counts requests that were sent again, by why.
	Retries [RetryReasons]uint64
	// BudgetExhausted counts those that were not, because too many were.
	BudgetExhausted uint64
	// Ejections counts endpoints that were taken out for bad answers; EjectionsSpared those
	// that were not, because too many are out.
	Ejections, EjectionsSpared uint64
	// Rejected counts requests that a limit has kept out.
	Rejected [Rejections]uint64
	// Pending is the number of requests that wait for a limit at this moment.
	Pending int
}

// Counts returns what was counted until now.
func (b *Backend) Counts() (c BackendCounts) {
	for i := range c.Retries {
		c.Retries[i] = b.counts.retries[i].Load()
	}
	for i := range c.Rejected {
		c.Rejected[i] = b.counts.rejected[i].Load()
	}
	c.BudgetExhausted = b.counts.budgetExhausted.Load()
	c.Ejections, c.EjectionsSpared = b.counts.ejections.Load(), b.counts.spared.Load()
	c.Pending = int(b.waiting.Load())
	return c
}
