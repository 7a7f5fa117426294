//go:build !race

package svcproxy

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// The figures that this is built for, generous ones: 10,000 Services of 10 endpoints.
func TestBudgetOfTenThousandServices(t *testing.T) {
	const services, endpoints = 10_000, 10
	h := netlab.NewHost(t)
	store := manifests.NewStore()
	name := func(i int) string { return fmt.Sprintf("service-%d", i) }
	addresses := func(i, first int) (all []string) {
		for j := range endpoints {
			if j == 0 {
				j = first
			}
			all = append(all, netip.AddrFrom4([4]byte{10, byte(100 + j), byte(i >> 8), byte(i)}).String())
		}
		return all
	}
	store.Open()
	programmed := make(chan time.Duration, 2*services)
	cpu := cpuSeconds()
	c := startController(t, h, store, nft.Config{}, programmed)
	for i := range services {
		store.Put(newService(name(i), netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)}).String(), nil))
		store.Put(newSlice(name(i), "", addresses(i, 0)...))
	}
	filled(t, c, services, endpoints)
	for len(programmed) > 0 {
		<-programmed
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fill := cpuSeconds() - cpu
	t.Logf("fill: %.1f s of CPU; heap %d MB, from the system %d MB", fill, m.HeapAlloc>>20, m.Sys>>20)
	const switches = 100
	times := make([]time.Duration, 0, switches)
	cpu = cpuSeconds()
	for i := range switches {
		store.Put(newSlice(name(i), "", addresses(i, 20+i%2)...))
		times = append(times, <-programmed)
	}
	each := (cpuSeconds() - cpu) / switches
	slices.Sort(times)
	good := times[switches/10] // the others are as much the machine's as ours
	t.Logf("switch of one endpoint, from the Store to the kernel: %.1f ms of CPU; %v, median %v, worst %v", 1000*each, good, times[switches/2], times[switches-1])
	if m.HeapAlloc > 150<<20 {
		t.Errorf("the heap is %d MB, want 150 at most", m.HeapAlloc>>20)
	}
	if good > 15*time.Millisecond || each > 0.015 {
		t.Errorf("a switch takes %v and %.1f ms of CPU, want 15 ms at most", good, 1000*each)
	}
}

// filled waits until so many Services with so many endpoints are in the kernel.
func filled(t *testing.T, c *Controller, services, endpoints int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		n := 0
		for s := range c.State().Services() {
			if len(s.Ports) == 1 && len(s.Ports[0].Endpoints) == endpoints {
				n++
			}
		}
		if n == services {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d Services are programmed", n, services)
		}
	}
}
