package svcproxy

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
)

// stuckPlane answers Apply when it is told how.
type stuckPlane struct {
	Plane
	asked  chan struct{}
	answer chan error
	end    chan struct{}
}

func newStuckPlane() *stuckPlane {
	return &stuckPlane{asked: make(chan struct{}), answer: make(chan error), end: make(chan struct{})}
}

func (p *stuckPlane) Apply(Update) error {
	select {
	case p.asked <- struct{}{}:
	case <-p.end:
		return nil
	}
	select {
	case err := <-p.answer:
		return err
	case <-p.end:
		return nil
	}
}

func (p *stuckPlane) Repair() error { return p.Apply(Update{}) }

func (p *stuckPlane) Run(ctx context.Context) { <-ctx.Done(); close(p.end) }

func (p *stuckPlane) Problems() []manifests.Problem { return nil }

// until waits for what has to become so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to be: %s", what)
		}
	}
}

// Changes that are not live for long are not healthy, whether they fail, or hang, or are not even taken;
// a goroutine that hangs is not alive.
func TestProxyHealth(t *testing.T) {
	store, plane := manifests.NewStore(), newStuckPlane()
	store.Open()
	c := runController(t, Config{Store: store, Plane: plane, Rules: Rules{NodeName: "n"}, Late: 300 * time.Millisecond})
	receive(t, plane.asked)
	until(t, "hangs at the first view", func() bool { return !c.Alive() && !c.Health().Healthy && !c.Ready() })
	plane.answer <- nil
	until(t, "the first view is live", func() bool { return c.Alive() && c.Health().Healthy && c.Ready() })
	first := c.Health().LastUpdated
	if first.IsZero() {
		t.Error("not updated")
	}

	store.Put(newService("s", "172.30.0.1", nil))
	receive(t, plane.asked)
	until(t, "hangs at a change", func() bool { return !c.Alive() && !c.Health().Healthy && !c.Ready() })
	plane.answer <- errors.New("injected")
	until(t, "fails, and hangs again", func() bool {
		select {
		case <-plane.asked:
			return true
		default:
			return false
		}
	})
	store.Put(newService("s2", "172.30.0.2", nil)) // nobody takes it
	plane.answer <- errors.New("injected")
	if c.Health().Healthy {
		t.Error("what fails for long is healthy")
	}
	for served := false; !served; { // whatever it tries works now
		select {
		case <-plane.asked:
			plane.answer <- nil
		default:
			served = c.Ready() && c.Alive() && store.Waiting().IsZero() && c.Health().LastUpdated.After(first)
		}
	}
}

// A node that is about to be taken away is not eligible, and goes on serving.
func TestNodeEligible(t *testing.T) {
	store, plane := manifests.NewStore(), newStuckPlane()
	store.Open()
	c := runController(t, Config{Store: store, Plane: plane, Rules: Rules{NodeName: "n"}})
	if !c.Health().NodeEligible || !c.Health().Healthy || c.Ready() || !c.Alive() {
		t.Errorf("at the start: %+v", c.Health())
	}
	live := func() {
		t.Helper()
		receive(t, plane.asked)
		plane.answer <- nil
	}
	live()
	until(t, "ready", c.Ready)
	if !c.Health().NodeEligible {
		t.Error("a node that was never seen is not eligible")
	}
	node := func(change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		change(n)
		return n
	}
	now := metav1.Now()
	for i, test := range []struct {
		node *corev1.Node
		want bool
	}{
		{node(func(*corev1.Node) {}), true},
		{node(func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: "NoSchedule"}}
		}), false},
		{node(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/unschedulable"}} }), true},
		{node(func(n *corev1.Node) { n.DeletionTimestamp, n.Finalizers = &now, []string{"example.com/hold"} }), false},
		{node(func(*corev1.Node) {}), true},
		{nil, false},
	} {
		if test.node == nil {
			store.Delete(manifests.Ref{Kind: manifests.KindNode, Name: "n"})
		} else {
			store.Put(test.node)
		}
		live()
		until(t, fmt.Sprintf("step %d: eligible %v", i, test.want), func() bool { return c.Health().NodeEligible == test.want })
		if !c.Ready() || !c.Health().Healthy {
			t.Errorf("step %d: not ready", i)
		}
	}
}
