package svcproxy

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Endpoint is one address of a Service port, and what this node makes of it.
type Endpoint struct {
	Addr netip.AddrPort
	// Pod is the name of the Pod in the Service's namespace, if it is one.
	Pod string
	// Node is where it runs; "" is nobody's: it is never local.
	Node string
	// Local: it runs on this node.
	Local bool
	// The conditions, with what a missing one means filled in.
	Ready, Serving, Terminating bool
	// Cluster and ForLocal: it is among those that the two traffic policies choose from.
	Cluster, ForLocal bool
	// Why says why it is or is not.
	Why Reason

	hints *hints // nil: none
}

// hints are the names of the zones and nodes that an endpoint is kept for.
type hints struct{ zones, nodes []string }

// Reason says why an endpoint is used or not, in words for a user.
type Reason string

// The Reasons.
const (
	ReasonReady        Reason = "ready"
	ReasonFallback     Reason = "terminating, but still serves and no other is ready"
	ReasonNotReady     Reason = "not ready"
	ReasonTerminating  Reason = "terminating, and others are ready"
	ReasonOtherNode    Reason = "hints keep it for another node"
	ReasonOtherZone    Reason = "hints keep it for another zone"
	ReasonElsewhere    Reason = "on another node, and the traffic policy is Local"
	ReasonLocalOnly    Reason = "used for traffic policy Local only"
	ReasonLocalBackup  Reason = "terminating, but still serves and no other on this node is ready; for traffic policy Local only"
	ReasonHeld         Reason = "no longer listed, but was ready and no other can be used yet"
	ReasonUnusableAddr Reason = "the address cannot be that of an endpoint"
)

// endpoints are the endpoints of one port in one family, in order of address and without
// repetition. Only the first address of an endpoint counts: the API says that all lead to the
// same place.
func (c *pass) endpoints(port string, protocol corev1.Protocol, ipv6 bool) []Endpoint {
	family := discoveryv1.AddressTypeIPv4
	if ipv6 {
		family = discoveryv1.AddressTypeIPv6
	}
	var all []Endpoint
	for _, s := range c.slices {
		if s.AddressType != family {
			continue
		}
		if _, headless := s.Labels[corev1.IsHeadlessService]; headless {
			continue
		}
		for i := range s.Ports {
			if number := portNumber(&s.Ports[i], port, protocol); number != 0 {
				all = appendEndpoints(all, s, number, c.rules)
			}
		}
	}
	return unique(all)
}

// portNumber is that of a port of a slice if it is the wanted one, or 0. A slice without a
// number means all ports, which no frontend can.
func portNumber(p *discoveryv1.EndpointPort, name string, protocol corev1.Protocol) uint16 {
	switch {
	case value(p.Name, "") != name, value(p.Protocol, corev1.ProtocolTCP) != protocol, p.Port == nil, *p.Port < 1, *p.Port > 65535:
		return 0
	}
	return uint16(*p.Port)
}

func appendEndpoints(all []Endpoint, s *discoveryv1.EndpointSlice, port uint16, rules *Rules) []Endpoint {
	all = slices.Grow(all, len(s.Endpoints)) // they stay: no room for more
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if len(e.Addresses) == 0 {
			continue
		}
		addr, err := netip.ParseAddr(e.Addresses[0])
		if err != nil || addr.Is6() != (s.AddressType == discoveryv1.AddressTypeIPv6) || addr.Is4In6() || addr.Zone() != "" {
			continue
		}
		all = append(all, newEndpoint(e, netip.AddrPortFrom(addr, port), rules))
	}
	return all
}

func newEndpoint(e *discoveryv1.Endpoint, addr netip.AddrPort, rules *Rules) Endpoint {
	n := Endpoint{
		Addr:        addr,
		Node:        value(e.NodeName, ""),
		Ready:       value(e.Conditions.Ready, true),
		Serving:     value(e.Conditions.Serving, true),
		Terminating: value(e.Conditions.Terminating, false),
	}
	n.Local = n.Node != "" && n.Node == rules.NodeName
	if t := e.TargetRef; t != nil && t.Kind == "Pod" {
		n.Pod = t.Name
	}
	n.hints = newHints(e.Hints)
	if a := addr.Addr(); a.IsLoopback() && !rules.LoopbackEndpoints || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		n.Ready, n.Serving, n.Why = false, false, ReasonUnusableAddr
	}
	return n
}

func newHints(h *discoveryv1.EndpointHints) *hints {
	if h == nil || len(h.ForZones)+len(h.ForNodes) == 0 {
		return nil
	}
	n := &hints{}
	for _, z := range h.ForZones {
		n.zones = append(n.zones, z.Name)
	}
	for _, f := range h.ForNodes {
		n.nodes = append(n.nodes, f.Name)
	}
	return n
}

// unique sorts by address. Of two that are the same the one that does not terminate stays, then
// the one that is ready, then the one on this node.
func unique(all []Endpoint) []Endpoint {
	rank := func(e *Endpoint) (n int) {
		for _, bad := range []bool{e.Terminating, !e.Ready, !e.Serving, !e.Local} {
			n *= 2
			if bad {
				n++
			}
		}
		return n
	}
	slices.SortStableFunc(all, func(a, b Endpoint) int {
		if c := a.Addr.Compare(b.Addr); c != 0 {
			return c
		}
		return rank(&a) - rank(&b)
	})
	return slices.Clip(slices.CompactFunc(all, func(a, b Endpoint) bool { return a.Addr == b.Addr }))
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// String is for tests and logs.
func (e Endpoint) String() string { return fmt.Sprintf("%v (%s)", e.Addr, e.Why) }
