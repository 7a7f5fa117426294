package svcproxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// startController runs one with the kernel of a namespace.
func startController(t testing.TB, h *netlab.Host, store *manifests.Store, kernel nft.Config, programmed chan time.Duration) *Controller {
	t.Helper()
	var plane *nft.Plane
	var err error
	h.Do(t, func() { plane, err = nft.New(kernel) })
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{Store: store, Plane: plane, Rules: Rules{NodeName: "n"}, Observe: &Observer{
		Programmed: func(_, _, since time.Duration) { programmed <- since },
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		plane.Close()
	})
	return c
}

// Changes that the kernel refuses are made later, by themselves, and meanwhile what was there is.
func TestControllerTriesAgain(t *testing.T) {
	l := netlab.New(t, 1)
	l.Pods[0][0].Serve(t, 8080)
	l.Pods[1][0].Serve(t, 8080)
	store := manifests.NewStore()
	store.Put(newService("s", "172.30.0.1", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.1"} }))
	store.Put(newSlice("s", "", "10.180.0.10"))
	store.Open()
	fail := func() error {
		if rand.IntN(5) == 0 {
			return errors.New("injected")
		}
		return nil
	}
	programmed := make(chan time.Duration, 100)
	c := startController(t, l.Nodes[0], store, nft.Config{BeforeWrite: fail, AfterWrite: fail}, programmed)
	for i, want := range []string{"pod0-0", "pod1-0", "pod0-0", "pod1-0"} {
		store.Put(newSlice("s", "", fmt.Sprintf("10.180.%d.10", i%2)))
		for deadline := time.Now().Add(20 * time.Second); ; {
			a, err := l.Client.Ask(t, "tcp", netip.MustParseAddrPort("192.0.2.1:80"))
			if err == nil && a.Server == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v %v, want %s: %+v", a, err, want, c.State().Err)
			}
		}
	}
	if !c.State().Healthy() {
		t.Error("not healthy")
	}
}

// The figures that this is built for, generous ones: 10,000 Services of 10 endpoints.
func TestTenThousandServices(t *testing.T) {
	if raceEnabled {
		t.Skip("figures; the race detector changes them")
	}
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
	startController(t, h, store, nft.Config{}, programmed)
	for i := range services {
		store.Put(newService(name(i), netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)}).String(), nil))
		store.Put(newSlice(name(i), "", addresses(i, 0)...))
	}
	settle(programmed)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fill := cpuSeconds() - cpu
	t.Logf("fill: %.1f s of CPU; heap %d MB, from the system %d MB", fill, m.HeapAlloc>>20, m.Sys>>20)
	var worst, sum time.Duration
	const switches = 100
	for i := range switches {
		store.Put(newSlice(name(i), "", addresses(i, 20+i%2)...))
		took := <-programmed
		worst, sum = max(worst, took), sum+took
	}
	t.Logf("switch of one endpoint, from the Store to the kernel: mean %v, worst %v", sum/switches, worst)
	if m.HeapAlloc > 150<<20 {
		t.Errorf("the heap is %d MB, want 150 at most", m.HeapAlloc>>20)
	}
	if sum/switches > 15*time.Millisecond {
		t.Errorf("a switch takes %v, want 15 ms at most", sum/switches)
	}
}

// settle waits until nothing has been programmed for a while.
func settle(programmed chan time.Duration) {
	<-programmed
	for {
		select {
		case <-programmed:
		case <-time.After(3 * time.Second):
			return
		}
	}
}

func cpuSeconds() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
