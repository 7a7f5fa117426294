package router

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backendAt(t, 1, 2, 3, 4)
		e, j := b.Endpoints()[0], Ejection{Consecutive: 3, Base: 10 * time.Second, Max: 40 * time.Second}
		answer := func(bad ...bool) {
			for _, x := range bad {
				b.judge(e, &j, x, time.Now())
			}
		}
		answer(true, true, false, true, true)
		if e.State(time.Now()) != Up {
			t.Fatal("ejected though not three in a row were bad")
		}
		for i, seconds := range []int{10, 20, 40, 40} {
			want := time.Duration(seconds) * time.Second
			answer(true, true, true)
			if e.State(time.Now()) != Ejected {
				t.Fatalf("%d: three in a row, and it is %v", i, e.State(time.Now()))
			}
			if got := downTime(e); got < want*3/4 || got > want*5/4+1 {
				t.Errorf("ejection %d: for %v, want about %v", i+1, got, want)
			}
			e.Succeed() // of a request that was under way
			e.Fail(time.Now())
			if e.State(time.Now()) != Ejected {
				t.Error("one answer has brought it back")
			}
			for range 100 {
				if pickAs(b, &noPolicy, 0) == e {
					t.Fatal("picked while it is out")
				}
			}
			time.Sleep(downTime(e))
			if e.State(time.Now()) != Up {
				t.Error("it does not come back")
			}
			e.Succeed()
			if e.out.Load() != 0 {
				t.Error("a success after the time leaves it suspect")
			}
		}
		time.Sleep(2 * j.Max)
		answer(true, true, true)
		if got := downTime(e); got > 13*time.Second {
			t.Errorf("after a long good time it is out for %v", got)
		}
		if n := b.Counts().Ejections; n != 5 {
			t.Errorf("counted %d ejections", n)
		}
	})
}

func TestEjectionHasAFloor(t *testing.T) {
	for _, tt := range []struct{ endpoints, percent, want int }{
		{1, 0, 0}, {2, 0, 1}, {3, 0, 1}, {4, 0, 2}, {5, 0, 2}, {10, 10, 1}, {5, 10, 0}, {4, 100, 4},
	} {
		var n []byte
		for i := range tt.endpoints {
			n = append(n, byte(i+1))
		}
		b := backendAt(t, n...)
		for _, e := range b.Endpoints() {
			b.judge(e, &Ejection{Consecutive: 1, MaxPercent: tt.percent}, true, time.Now())
		}
		out := 0
		for _, e := range b.Endpoints() {
			if e.State(time.Now()) == Ejected {
				out++
			}
		}
		if c := b.Counts(); out != tt.want || int(c.Ejections) != out || int(c.EjectionsSpared) != tt.endpoints-out {
			t.Errorf("%d endpoints, %d%%: %d ejected, want %d; %+v", tt.endpoints, tt.percent, out, tt.want, c)
		}
	}
}

func TestEndpointsThatAnswerBadlyAreEjected(t *testing.T) {
	bad := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
		}
	})
	good := startBackend(t, answerAll)
	f := setup{route: withPolicy(&Policy{Ejection: Ejection{Consecutive: 3}})}.start(t, bad.addr, good.addr)
	failed := 0
	for range 40 {
		if resp, _ := f.talk(t, getIt); resp.StatusCode != 200 {
			failed++
		}
	}
	if failed != 3 {
		t.Errorf("%d of 40 requests failed, want 3", failed)
	}
}

func TestAStateIsOneOfTheNames(t *testing.T) {
	e := backendAt(t, 1).Endpoints()[0]
	now := time.Now()
	check := func(want EndpointState) {
		t.Helper()
		if got := e.State(now); got != want || e.Down(now) != (want != Up) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	check(Up)
	e.Fail(now)
	check(Down)
	e.setHealthy(false)
	check(Unhealthy)
	e.Succeed()
	check(Unhealthy)
	e.setHealthy(true)
	check(Up)
	e.Fail(now)
	e.setHealthy(true)
	check(Down)
}
