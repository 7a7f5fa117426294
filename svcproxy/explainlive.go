package svcproxy

import (
	"context"
	"errors"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// question is one for the goroutine of Run, which has the compiled Services.
type question struct {
	packet Packet
	own    []netip.Addr
	answer chan explained
}

type explained struct {
	*Explainer
	*Explanation
}

// Explain says what becomes of a packet on this node, with the options that this Controller has, and
// compares that with what its data plane has. own are the node's addresses; nil means those of its Node
// object. It needs a running Controller.
func (c *Controller) Explain(ctx context.Context, p Packet, own []netip.Addr) (*Explanation, error) {
	if !c.State().Ready {
		return nil, errNotReady
	}
	q := question{p, own, make(chan explained, 1)}
	select {
	case c.asked <- q:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	said := <-q.answer
	live, err := c.cfg.Plane.Look()
	if err != nil {
		return nil, err
	}
	said.Compare(said.Explanation, live)
	return said.Explanation, nil
}

var (
	errNotReady = errors.New("portico svcproxy has not programmed the Services of the cluster yet")
	errNoPods   = errors.New("portico svcproxy may not, and need not; ask with --kubeconfig")
)

func (c *Controller) explain(q question) explained {
	x := newExplainer(c.compiler, c.network, q.own)
	x.Pods = func(string) ([]*corev1.Pod, error) { return nil, errNoPods }
	_, x.Userspace = c.cfg.Plane.(*Relay)
	return explained{x, x.Explain(q.packet)}
}
