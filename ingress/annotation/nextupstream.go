package annotation

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/portico-ingress/portico/router"
)

// nextUpstream says when another endpoint is asked.
var nextUpstream = policyAnnotation(
	Annotation{
		Keys:    both("proxy-next-upstream"),
		Help:    "When another endpoint is tried: " + router.RetryOnNames() + ", separated by spaces.",
		Default: "error timeout",
	},
	parseNextUpstream,
	func(p *router.Policy, on router.RetryOn) { p.Retry.On = on },
)

func parseNextUpstream(value string) (all router.RetryOn, err error) {
	words := strings.Fields(value)
	for _, w := range words {
		on, ok := router.ParseRetryOn(w)
		if !ok {
			return 0, fmt.Errorf("has %.40q, which is none of %s", w, router.RetryOnNames())
		}
		all |= on
	}
	switch {
	case all == 0:
		return 0, errors.New(`is empty; to try no other endpoint, write "off"`)
	case all&router.RetryOff != 0 && len(words) > 1:
		return 0, errors.New(`has "off" beside others`)
	}
	return all, nil
}

// maxTries is what a request may be sent at most; 0 asks for it.
const maxTries = 8

var nextUpstreamTries = policyAnnotation(
	Annotation{
		Keys:    both("proxy-next-upstream-tries"),
		Help:    "How often a request is sent at most, the first time included; 0 means 8, the most there is.",
		Default: "3",
	},
	number(0, 1<<30),
	func(p *router.Policy, n int) {
		if n == 0 || n > maxTries {
			n = maxTries
		}
		p.Retry.Tries = n
	},
)

var nextUpstreamTimeout = policyAnnotation(
	Annotation{
		Keys:    both("proxy-next-upstream-timeout"),
		Help:    "How long after its first try a request may be sent again; 0 is no limit, so that three tries may take three read timeouts.",
		Default: "0",
	},
	span(0, time.Hour),
	func(p *router.Policy, d time.Duration) { p.Retry.Timeout = d },
)

var retryBudget = policyAnnotation(
	Annotation{
		Keys:    ours("retry-budget"),
		Help:    "How many requests may be under way again, in percent of those in flight to the backend.",
		Default: "20",
	},
	number(0, 100),
	func(p *router.Policy, n int) { p.Retry.Budget = orNone(n) },
)

var retryBudgetFloor = policyAnnotation(
	Annotation{
		Keys:    ours("retry-budget-floor"),
		Help:    "How many requests may be under way again however few are in flight.",
		Default: "10",
	},
	number(0, 10_000),
	func(p *router.Policy, n int) { p.Retry.BudgetFloor = orNone(n) },
)

// orNone writes zero as the router does.
func orNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}
