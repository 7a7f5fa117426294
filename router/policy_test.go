package router

import (
	"testing"
	"time"
)

// A policy costs time, and no garbage.
func TestARequestWithAPolicyAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector makes pools forget at random: nothing to measure")
		return
	}
	for _, p := range []*Policy{
		{Balance: PeakEWMA, Ejection: Ejection{Consecutive: 5}, SlowStart: time.Minute},
		{Balance: LeastOutstanding, Limits: Limits{Connections: 10, Requests: 100, Pending: 10}},
		{Balance: ConsistentHash, HashBy: HashBy{{HashCookie, "session"}, {HashURI, ""}, {HashClient, ""}}},
		{Sticky: Sticky{Mode: StickyBalanced, Cookie: "session"}, Retry: Retry{On: Retry503}},
	} {
		t.Run(p.String(), func(t *testing.T) {
			s := benchSetup
			s.route = withPolicy(p)
			f := s.start(t, bareBackend(t, headEnd), bareBackend(t, headEnd))
			a := newAsker(t, f, benchRequest)
			a.conn.SetDeadline(noDeadline)
			if n := testing.AllocsPerRun(2000, func() { a.ask(t, benchRequest) }); n > 0 {
				t.Errorf("%v allocations a request", n)
			}
		})
	}
}

func TestPolicyString(t *testing.T) {
	var none *Policy
	if none.String() != "" || (&Policy{}).String() != "" {
		t.Error("the default has something to say")
	}
	p := &Policy{
		Balance: LeastOutstanding, Sticky: Sticky{Mode: StickyPersistent, Cookie: "c"}, SlowStart: time.Minute,
		Retry: Retry{On: RetryOff}, Ejection: Ejection{Consecutive: 3}, Limits: Limits{Requests: 5}, Check: HealthCheck{Kind: CheckTCP},
	}
	want := "balance=least_outstanding sticky=persistent(c) slow-start=1m0s retry=off,tries=3,timeout=0s,budget=20%+10 " +
		"eject=3,30s-5m0s,max=50% limits=connections=0,requests=5,pending=0,5s check=tcp,10s,timeout=1s,rise=2,fall=3"
	if got := p.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
