package main

import (
	"math"
	"testing"
)

func TestConnectionsFor(t *testing.T) {
	for descriptors, want := range map[uint64]int{
		0: 1, 100: 1, 130: 1, 1024: 596, 20000: 13248, 98432: 65536, 98431: 65534, 1 << 20: 65536, math.MaxUint64: 65536,
	} {
		if got := connectionsFor(descriptors); got != want {
			t.Errorf("%d descriptors: %d connections, want %d", descriptors, got, want)
		}
	}
}
