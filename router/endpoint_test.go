package router

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

func TestEndpointIsDownForAMomentAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e Endpoint
		if e.Down(time.Now()) {
			t.Error("a new endpoint is down")
		}
		e.Fail(time.Now())
		if !e.Down(time.Now()) {
			t.Error("up right after a failure")
		}
		time.Sleep(minDown * 5 / 4)
		if e.Down(time.Now()) {
			t.Error("still down after the moment")
		}
	})
}

func TestEndpointIsDownLongerWithEachFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e Endpoint
		for i, ms := range []int{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
			want := time.Duration(ms) * time.Millisecond
			e.Fail(time.Now())
			got := downTime(&e)
			if got < want*3/4 || got > want*5/4 {
				t.Errorf("failure %d: down for %v, want about %v", i+1, got, want)
			}
			time.Sleep(got)
		}
		e.Succeed()
		e.Fail(time.Now())
		if got := downTime(&e); got > minDown*5/4 {
			t.Errorf("down for %v after a success in between", got)
		}
	})
}

// downTime is how long the endpoint will be down from now.
func downTime(e *Endpoint) time.Duration {
	return time.Duration(e.out.Load() - sinceStart(time.Now()))
}

func TestEndpointIsUpAfterSuccess(t *testing.T) {
	var e Endpoint
	e.Fail(time.Now())
	e.Succeed()
	if e.Down(time.Now()) {
		t.Error("down after a success")
	}
}

func TestEndpointManyFailuresAtOnceAreOne(t *testing.T) {
	var e Endpoint
	now := time.Now()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { e.Fail(now) })
	}
	wg.Wait()
	if got := e.failures.Load(); got != 1 {
		t.Errorf("counted %d failures, want 1", got)
	}
}

func TestTheTimeDownNeverOverflows(t *testing.T) {
	for _, failures := range []uint32{1, 6, 7, 64, 65, math.MaxUint32, 0} {
		if d := spread(doubled(minDown, failures-1, maxDown)); d < minDown*3/4 || d > maxDown*5/4 {
			t.Errorf("%d failures: down for %v", failures, d)
		}
	}
}

func TestEndpointInFlight(t *testing.T) {
	var e Endpoint
	e.Begin()
	e.Begin()
	e.End()
	if got := e.InFlight(); got != 1 {
		t.Errorf("got %d, want 1", got)
	}
}

// What every request writes does not share a cache line with what every request reads.
func TestHotFieldsHaveTheirOwnCacheLine(t *testing.T) {
	const line = 64
	for name, offset := range map[string]uintptr{
		"Endpoint.inFlight": unsafe.Offsetof(Endpoint{}.inFlight),
		"Endpoint":          unsafe.Sizeof(Endpoint{}),
		"Backend.turn":      unsafe.Offsetof(Backend{}.turn),
		"Backend":           unsafe.Sizeof(Backend{}),
		"statsShard":        unsafe.Sizeof(statsShard{}),
	} {
		if offset%line != 0 {
			t.Errorf("%s is at or ends at byte %d, no multiple of %d", name, offset, line)
		}
	}
}
