package router

import (
	"fmt"
	"strings"
	"time"
)

// Policy says how the requests of a route are spread over the endpoints of its backend, and
// what happens when one of them fails. It is immutable and comparable. Its zero value is
// what a route without one gets: in turn, three tries, a retry budget, and no limits.
//
// A Policy belongs to routes, and what is known of endpoints (requests in flight, latency,
// failures) to the endpoints: routes of different policies that lead to one backend see the
// same state.
type Policy struct {
	// Balance chooses among the endpoints that are up.
	Balance Balance
	// HashBy is the key of ConsistentHash. A request whose key is empty is spread in turn.
	HashBy HashBy
	// Sticky keeps a client at its endpoint by a cookie, whatever Balance says.
	Sticky Sticky
	// SlowStart is how long the share of an endpoint that joins others rises, linearly, to
	// its full one. 0: it has its full share at once.
	SlowStart time.Duration
	// Retry says when a request is sent to another endpoint.
	Retry Retry
	// Ejection takes out endpoints that answer badly.
	Ejection Ejection
	// Limits bound what is sent at the same time.
	Limits Limits
	// Check asks the endpoints whether they are well. It is not for the path of a request:
	// whoever owns the Backends tells them (Backends.SetCheck).
	Check HealthCheck
}

// Balance is a way to choose the endpoint of a request.
type Balance uint8

const (
	// RoundRobin goes from one endpoint to the next: any N requests reach each of N once.
	RoundRobin Balance = iota
	// LeastOutstanding takes, of two endpoints chosen at random, the one with fewer requests
	// in flight: as good as looking at all, without a queue in front of the one that is
	// free (Mitzenmacher, "The power of two choices").
	LeastOutstanding
	// PeakEWMA takes, of two endpoints chosen at random, the one that promises the shorter
	// wait: its latency, a moving average that follows peaks at once, times its requests in
	// flight. ingress-nginx calls it ewma.
	PeakEWMA
	// ConsistentHash sends equal keys to the same endpoint, unless that has a quarter more
	// than its share.
	ConsistentHash
)

var balanceNames = [...]string{"round_robin", "least_outstanding", "ewma", "hash"}

// String is the word people write.
func (b Balance) String() string {
	if int(b) >= len(balanceNames) {
		return "unknown"
	}
	return balanceNames[b]
}

// String lists what is not the default, for dumps. Nil says nothing.
func (p *Policy) String() string {
	if p == nil {
		return ""
	}
	var words []string
	add := func(set bool, format string, args ...any) {
		if set {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(p.Balance == ConsistentHash, "hash=%s", p.HashBy)
	add(p.Balance != RoundRobin && p.Balance != ConsistentHash, "balance=%s", p.Balance)
	add(p.Sticky.Mode != StickyOff, "sticky=%s", p.Sticky)
	add(p.SlowStart > 0, "slow-start=%s", p.SlowStart)
	add(p.Retry != Retry{}, "retry=%s", p.Retry)
	add(p.Ejection.Consecutive > 0, "eject=%s", p.Ejection)
	add(p.Limits != Limits{}, "limits=%s", p.Limits)
	add(p.Check.Kind != CheckOff, "check=%s", p.Check)
	return strings.Join(words, " ")
}
