package balancer

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// servingNodes are the nodes with ready endpoints, of IPv4 and of IPv6; if no node has any of a family, those
// with endpoints that still serve while they end. They go by the rules of the data plane, which drops
// what comes to a node that has none.
func servingNodes(slicesOf iter.Seq[*discoveryv1.EndpointSlice]) (ipv4, ipv6 []string) {
	ready := map[bool]map[string]struct{}{false: {}, true: {}}
	ending := map[bool]map[string]struct{}{false: {}, true: {}}
	for s := range slicesOf {
		if !usable(s) {
			continue
		}
		six := s.AddressType == discoveryv1.AddressTypeIPv6
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			c := &e.Conditions
			switch {
			case e.NodeName == nil || !canServe(e, six):
			case c.Ready == nil || *c.Ready:
				ready[six][*e.NodeName] = struct{}{}
			case (c.Serving == nil || *c.Serving) && c.Terminating != nil && *c.Terminating:
				ending[six][*e.NodeName] = struct{}{}
			}
		}
	}
	for six, nodes := range ready {
		if len(nodes) == 0 {
			ready[six] = ending[six]
		}
	}
	return slices.Sorted(maps.Keys(ready[false])), slices.Sorted(maps.Keys(ready[true]))
}

// usable tells whether the data plane reads a slice.
func usable(s *discoveryv1.EndpointSlice) bool {
	_, headless := s.Labels[corev1.IsHeadlessService]
	numbered := slices.ContainsFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Port != nil })
	return !headless && numbered && (s.AddressType == discoveryv1.AddressTypeIPv4 || s.AddressType == discoveryv1.AddressTypeIPv6)
}

// canServe tells whether an endpoint has an address that something can be sent to.
func canServe(e *discoveryv1.Endpoint, ipv6 bool) bool {
	if len(e.Addresses) == 0 {
		return false
	}
	a, err := netip.ParseAddr(e.Addresses[0])
	return err == nil && a.Is6() == ipv6 && !a.Is4In6() && a.Zone() == "" &&
		!a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
