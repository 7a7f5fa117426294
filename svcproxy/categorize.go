package svcproxy

import "slices"

// policies are those that the frontends of a Service port need endpoints for.
type policies struct{ cluster, local bool }

// place is where this node is.
type place struct{ node, zone string }

// topology is which hints count.
type topology int

const (
	anywhere topology = iota
	sameZone
	sameNode
)

// categorize says of each endpoint whether the two traffic policies choose from it, and why.
// It returns whether there is any usable endpoint in the cluster, be it reachable from this node
// or not.
//
// The rules are those of Kubernetes (KEP-1669, KEP-2433, KEP-3015): ready endpoints, or, where
// there is none, those that terminate and still serve; for each of the policies independently.
// Hints count for policy Cluster only, and only if every ready endpoint has one and some are for
// this place.
func categorize(all []Endpoint, need policies, at place) (usable bool) {
	mode := topologyOf(all, at)
	ready, localReady := false, false
	for i := range all {
		e := &all[i]
		usable = usable || e.Ready || e.Serving && e.Terminating
		ready = ready || e.Ready
		localReady = localReady || e.Ready && e.Local
	}
	if !need.cluster && !need.local {
		return false
	}
	for i := range all {
		e := &all[i]
		fallback := !e.Ready && e.Serving && e.Terminating
		e.Cluster = need.cluster && (e.Ready && e.isFor(mode, at) || !ready && fallback)
		e.ForLocal = need.local && e.Local && (e.Ready || !localReady && fallback)
		if e.Why == "" {
			e.Why = e.reason(need, mode, at)
		}
	}
	return usable
}

// topologyOf says which hints count. Those for nodes come first.
func topologyOf(all []Endpoint, at place) topology {
	nodes, zones, here, near := true, true, false, false
	for i := range all {
		e := &all[i]
		if !e.Ready {
			continue
		}
		h := e.hinted()
		nodes, zones = nodes && len(h.nodes) > 0, zones && len(h.zones) > 0
		here = here || slices.Contains(h.nodes, at.node)
		near = near || slices.Contains(h.zones, at.zone)
	}
	switch {
	case nodes && here:
		return sameNode
	case zones && near:
		return sameZone
	}
	return anywhere
}

func (e *Endpoint) hinted() hints {
	if e.hints == nil {
		return hints{}
	}
	return *e.hints
}

// isFor tells whether hints leave an endpoint to this place.
func (e *Endpoint) isFor(mode topology, at place) bool {
	switch mode {
	case sameNode:
		return slices.Contains(e.hinted().nodes, at.node)
	case sameZone:
		return slices.Contains(e.hinted().zones, at.zone)
	default:
		return true
	}
}

func (e *Endpoint) reason(need policies, mode topology, at place) Reason {
	switch {
	case e.Cluster && e.Ready:
		return ReasonReady
	case e.Cluster:
		return ReasonFallback
	case e.ForLocal && e.Ready && need.cluster:
		return ReasonLocalOnly
	case e.ForLocal && e.Ready:
		return ReasonReady
	case e.ForLocal:
		return ReasonLocalBackup
	case e.Ready && !need.cluster:
		return ReasonElsewhere
	case e.Ready && mode == sameNode && !e.isFor(mode, at):
		return ReasonOtherNode
	case e.Ready:
		return ReasonOtherZone
	case e.Serving && e.Terminating:
		return ReasonTerminating
	}
	return ReasonNotReady
}
