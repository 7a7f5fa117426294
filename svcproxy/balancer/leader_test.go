package balancer

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// A Lease is given back when the work has returned, and not before; then the next one works.
func TestElectGivesBackAfterTheWork(t *testing.T) {
	client := fake.NewClientset()
	holder := func() string {
		l, err := client.CoordinationV1().Leases("ns").Get(context.Background(), LeaderLease, metav1.GetOptions{})
		if err != nil || l.Spec.HolderIdentity == nil {
			return ""
		}
		return *l.Spec.HolderIdentity
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begun, finish, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	first, stop := context.WithCancel(ctx)
	go func() {
		done <- elect(first, &Config{Client: client, Namespace: "ns", Node: "a"}, func(term context.Context) {
			close(begun)
			<-term.Done()
			<-finish
		})
	}()
	<-begun
	stop()
	if h := holder(); h != "a" {
		t.Errorf("%q has the Lease while a still works", h)
	}
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if h := holder(); h != "" {
		t.Errorf("%q has the Lease after a has stopped", h)
	}
	second, stop := context.WithCancel(ctx)
	defer stop()
	if err := elect(second, &Config{Client: client, Namespace: "ns", Node: "b"}, func(context.Context) { stop() }); err != nil || ctx.Err() != nil {
		t.Error(err, ctx.Err())
	}
}
