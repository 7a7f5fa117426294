package outlier

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	web   = Endpoint{"default/web:/TCP/IPv4", netip.MustParseAddrPort("10.0.0.1:80")}
	other = Endpoint{"default/web:/TCP/IPv4", netip.MustParseAddrPort("10.0.0.2:80")}
)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// story is a Decider and what has to come of each thing that it is told.
type story struct {
	*testing.T
	*Decider
}

func (s story) failed(e Endpoint, when float64, ask bool) {
	s.Helper()
	if got := s.Failed(e, at(when)); got != ask {
		s.Errorf("%v s: failed: ask %v, want %v", when, got, ask)
	}
}

func (s story) probed(e Endpoint, said Answer, others bool, when float64, changed bool, why string, until float64) {
	s.Helper()
	if got := s.Probed(e, said, others, at(when)); got != changed {
		s.Errorf("%v s: probed: changed %v, want %v", when, got, changed)
	}
	f := s.Failing(e.Port)
	switch {
	case why == "" && len(f) > 0:
		s.Errorf("%v s: skipped: %+v", when, f)
	case why != "" && (len(f) != 1 || f[0].Why != why || !f[0].Until.Equal(at(until))):
		s.Errorf("%v s: %+v, want %q until %v s", when, f, why, until)
	}
}

func (s story) due(when float64, want int) {
	s.Helper()
	if got := s.Due(at(when)); len(got) != want {
		s.Errorf("%v s: due %v, want %d", when, got, want)
	}
}

func newStory(t *testing.T) story {
	t.Helper()
	return story{t, New(Config{})}
}

func TestThreeFailuresWithinTheWindowAndAProbe(t *testing.T) {
	s := newStory(t)
	s.failed(web, 0, false)
	s.failed(web, 1, false)
	s.failed(web, 12, false) // the first two are too long ago
	s.failed(web, 13, false)
	s.failed(other, 13, false)
	s.failed(web, 14, true)
	s.failed(web, 14, false) // the answer is on its way
	s.probed(web, Refused, false, 14.1, true, "refused 3 connections in 2s", 24.1)
	s.failed(web, 15, false) // a connection that began before
	if next := s.Next(); !next.Equal(at(24.1)) {
		t.Errorf("next %v", next)
	}
}

func TestWhoAnswersIsNotSkippedWhateverClientsSay(t *testing.T) {
	s := newStory(t)
	for i := range 100 {
		when := float64(i)
		s.failed(web, when, i%3 == 2)
		if i%3 == 2 {
			s.probed(web, Accepted, true, when, false, "", 0)
		}
	}
}

func TestSilenceTakesAWitness(t *testing.T) {
	s := newStory(t)
	for i := range 3 {
		s.failed(web, float64(i), i == 2)
	}
	s.probed(web, Silent, false, 4, false, "", 0)
	for i := range 3 {
		s.failed(web, 5+float64(i), i == 2)
	}
	s.probed(web, Silent, true, 9, true, "did not answer 3 connections in 4s", 19)
	// The way to all of them is broken: it is asked again soon, and not skipped for longer and longer.
	for i := range 5 {
		when := 19 + 10*float64(i)
		s.due(when, 1)
		s.probed(web, Silent, false, when, true, "did not answer 3 connections in 4s", when+10)
	}
}

func TestSkippedForLongerEachTimeAndBackByATrial(t *testing.T) {
	s := newStory(t)
	now := 0.0
	fail := func(want float64) {
		for i := range 3 {
			s.failed(web, now, i == 2)
		}
		s.probed(web, Refused, false, now, true, "refused 3 connections in 1s", now+want)
	}
	fail(10)
	for _, want := range []float64{20, 40, 80, 160, 300, 300} {
		now = s.Next().Sub(start).Seconds()
		s.due(now-0.1, 0)
		s.due(now, 1)
		s.due(now, 0) // it has been asked
		s.probed(web, Refused, false, now, true, "refused 3 connections in 1s", now+want)
	}
	now += 300
	s.due(now, 1)
	s.probed(web, Accepted, false, now, true, "", 0)
	if !s.Next().IsZero() {
		t.Error("next", s.Next())
	}
	now += 5
	fail(300) // it has not been well for long
	now += 300
	s.due(now, 1)
	s.probed(web, Accepted, false, now, true, "", 0)
	now += 301
	fail(10)
}

func TestForgotten(t *testing.T) {
	s := newStory(t)
	for i := range 3 {
		s.failed(web, 0, i == 2)
	}
	s.Keep(web.Port, func(a netip.AddrPort) bool { return a != web.Addr })
	s.probed(web, Refused, true, 1, false, "", 0)
	if s.size != 0 || len(s.Ports()) != 0 {
		t.Error(s.size, s.Ports())
	}
}

// What is remembered is bounded, one Service cannot have all of it, and what is over makes room.
func TestBounds(t *testing.T) {
	s := newStory(t)
	fill := func(when float64) {
		for port := range 20 {
			for i := range 300 {
				e := Endpoint{fmt.Sprint(port), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)}
				s.Failed(e, at(when))
			}
		}
	}
	fill(0)
	if s.size != maxEndpoints || len(s.ports["0"]) != maxPerPort || s.Ignored() != 20*300-maxEndpoints {
		t.Errorf("%d endpoints, %d of one port, ignored %d", s.size, len(s.ports["0"]), s.Ignored())
	}
	s.failed(web, 1, false)
	if len(s.ports[web.Port]) != 0 {
		t.Error("there was room")
	}
	s.failed(web, 11, false)
	if len(s.ports[web.Port]) != 1 || s.size != 1 {
		t.Errorf("no room was made: %d", s.size)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{Failures: -1}, {Failures: 101}, {Window: -1}, {Ejection: -1}, {MaxEjection: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if err := (&Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

// Who makes connections fail on purpose causes no more than one probe a second.
func TestFewProbes(t *testing.T) {
	s := newStory(t)
	probes := 0
	for i := range 1000 {
		if when := float64(i) / 100; s.Failed(web, at(when)) {
			probes++
			s.probed(web, Accepted, true, when, false, "", 0)
		}
	}
	if probes < 5 || probes > 10 {
		t.Errorf("%d probes in 10 s", probes)
	}
}
