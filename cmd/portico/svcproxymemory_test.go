package main

import (
	"context"
	"runtime"
	"testing"
)

func TestTidyOnceItIsQuiet(t *testing.T) {
	var d tidier
	made := uint64(0)
	for i, step := range []struct {
		mb   uint64
		want bool
	}{
		{1, false},   // little has been made
		{200, false}, // a great change comes
		{90, false},
		{1, true}, // and is over
		{1, false},
		{0, false},
		{20, false},
		{2, false}, // not worth it
		{20, false},
		{2, true},
	} {
		made += step.mb << 20
		if got := d.due(made); got != step.want {
			t.Errorf("step %d, %d MB more: due is %v, want %v", i, step.mb, got, step.want)
		}
	}
}

// A small heap grows to gcFloor, a large one by gcPercent.
func TestCollectionsByWhatStays(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 9900},
		{gcFloor / 10, 900},
		{gcFloor / 2, 100},
		{gcFloor * 3 / 4, gcPercent},
		{gcFloor, gcPercent},
		{10 * gcFloor, gcPercent},
	} {
		if got := gcPercentFor(c.live); got < c.want-1 || got > c.want+1 {
			t.Errorf("%d MB stay: %d%%, want %d", c.live>>20, got, c.want)
		}
	}
}

func TestAfterCollections(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	called := make(chan struct{}, 1)
	afterCollections(ctx, func() {
		select {
		case called <- struct{}{}:
		default: // a collection that this test has not asked for
		}
	})
	for range 3 { // the first is not after any
		<-called
		runtime.GC()
	}
	<-called
}
