package svcproxy

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ProxyHealth is what those ask about who send traffic to this node whatever the Service: the same
// as of kube-proxy (KEP-3836).
type ProxyHealth struct {
	// LastUpdated is when a change was made live last; zero: none was yet.
	LastUpdated time.Time
	// Healthy: no change has been waiting to be live for as long as Config.Late, nor the first view
	// since Run. Before that there is what the process before this one left.
	Healthy bool
	// NodeEligible is false if the node is about to be deleted, or was.
	NodeEligible bool
}

// defaultLate is that of kube-proxy.
const defaultLate = time.Minute

// taintToBeDeleted is put on a node by the cluster autoscaler before it takes the node away.
const taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"

// eligible tells whether a node stays; n is nil if there is none. One that was never seen may be one
// that cannot be read, or that of a folder.
func eligible(n *corev1.Node, seen bool) bool {
	if n == nil {
		return !seen
	}
	for _, t := range n.Spec.Taints {
		if t.Key == taintToBeDeleted {
			return false
		}
	}
	return n.DeletionTimestamp == nil
}

// Health is what there is to say now.
func (c *Controller) Health() ProxyHealth {
	s := c.state.Load()
	waiting := earlier(c.cfg.Store.Waiting(), s.FailedSince)
	if taken := c.pending.Load(); taken != nil {
		waiting = earlier(waiting, *taken)
	}
	if !s.Ready {
		waiting = c.born
	}
	return ProxyHealth{
		LastUpdated: s.Updated, Healthy: waiting.IsZero() || time.Since(waiting) < c.late(),
		NodeEligible: s.NodeEligible,
	}
}

// Ready tells whether this node serves Services as it should: the first complete view is live, and
// nothing has been waiting for long.
func (c *Controller) Ready() bool { return c.state.Load().Ready && c.Health().Healthy }

// Alive tells whether the goroutine of Run works. If it does not, only a new process helps.
func (c *Controller) Alive() bool { return time.Since(*c.beat.Load()) < c.late() }

func (c *Controller) late() time.Duration { return cmp.Or(c.cfg.Late, defaultLate) }

// alive says that the goroutine of Run works.
func (c *Controller) alive() {
	now := time.Now()
	c.beat.Store(&now)
}
