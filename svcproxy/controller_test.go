package svcproxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

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
	c := New(Config{Store: store, Plane: Kernel{plane}, Rules: Rules{NodeName: "n", Hold: 10 * time.Second}, Observe: &Observer{
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
	faults := &netlab.Saboteur{Every: 3}
	programmed := make(chan time.Duration, 100)
	c := startController(t, l.Nodes[0], store, nft.Config{Socket: func(kernel nft.Socket) nft.Socket { return faults.Between(kernel) }}, programmed)
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
	if !c.Ready() {
		t.Error("not healthy")
	}
}
