package ingress

import (
	"iter"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/portico-ingress/portico/router"
)

// endpointReason says why an endpoint gets requests or not.
type endpointReason uint8

const (
	endpointReady       endpointReason = iota // it is ready
	endpointDraining                          // it is terminating but serves, and nothing is ready
	endpointSuperfluous                       // the same, but others are ready
	endpointNotServing                        // it says that it does not serve
	endpointNotReady                          // it serves but is not ready, and is not terminating either
	endpointDuplicate                         // its address is listed a second time
	endpointBadAddress                        // its address is no IP address with a port
)

// used tells whether requests go to the endpoint.
func (r endpointReason) used() bool { return r <= endpointDraining }

// judgedEndpoint is one endpoint of an EndpointSlice, and what became of it.
type judgedEndpoint struct {
	router.Target
	terminating bool
	reason      endpointReason
}

// judgeEndpoints decides which endpoints of a Service's slices get the requests of one of its
// ports, as KEP-1669 says: those that are ready, and if there is none, those that are
// terminating but still serve. The slice's port with the name of the Service's port tells
// where an endpoint listens.
func judgeEndpoints(slices iter.Seq[*discoveryv1.EndpointSlice], portName string) []judgedEndpoint {
	var all []judgedEndpoint
	for slice := range slices {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 && slice.AddressType != discoveryv1.AddressTypeIPv6 {
			continue // FQDN slices mean nothing to a proxy
		}
		port, ok := slicePort(slice, portName)
		if !ok {
			continue
		}
		for i := range slice.Endpoints {
			all = append(all, judgeEndpoint(&slice.Endpoints[i], port))
		}
	}
	mergeDuplicates(all)
	chooseReady(all)
	return all
}

// slicePort is the slice's TCP port of that name. One without number means all ports, which
// leads nowhere.
func slicePort(slice *discoveryv1.EndpointSlice, name string) (uint16, bool) {
	for i := range slice.Ports {
		p := &slice.Ports[i]
		if value(p.Name, "") == name && value(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP && p.Port != nil {
			return uint16(*p.Port), *p.Port > 0 && *p.Port <= 65535
		}
	}
	return 0, false
}

// judgeEndpoint judges one endpoint by itself. What is not said about its conditions is
// taken as kube-proxy takes it: ready, serving, not terminating.
func judgeEndpoint(e *discoveryv1.Endpoint, port uint16) judgedEndpoint {
	j := judgedEndpoint{terminating: value(e.Conditions.Terminating, false)}
	j.Zone = value(e.Zone, "")
	if e.TargetRef != nil {
		j.Name, j.ID = e.TargetRef.Name, string(e.TargetRef.UID)
	}
	if len(e.Addresses) == 0 {
		j.reason = endpointBadAddress
		return j
	}
	// More addresses than one are allowed to exist and mean the same: the first will do.
	address, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || address.Zone() != "" {
		j.reason = endpointBadAddress
		return j
	}
	j.Address = netip.AddrPortFrom(address.Unmap(), port)
	serving := value(e.Conditions.Serving, true)
	switch {
	case value(e.Conditions.Ready, true):
		j.reason = endpointReady
	case !serving:
		j.reason = endpointNotServing
	case j.terminating:
		j.reason = endpointDraining
	default:
		j.reason = endpointNotReady
	}
	return j
}

// mergeDuplicates leaves one endpoint of each address: while a Pod moves between slices it
// may be in two. One that is not terminating wins, then one that gets requests.
func mergeDuplicates(all []judgedEndpoint) {
	best := make(map[netip.AddrPort]int, len(all))
	for i := range all {
		if all[i].reason == endpointBadAddress {
			continue
		}
		j, twice := best[all[i].Address]
		switch {
		case !twice:
			best[all[i].Address] = i
		case better(&all[i], &all[j]):
			all[j].reason = endpointDuplicate
			best[all[i].Address] = i
		default:
			all[i].reason = endpointDuplicate
		}
	}
}

func better(a, b *judgedEndpoint) bool {
	if a.terminating != b.terminating {
		return !a.terminating
	}
	return a.reason < b.reason
}

// chooseReady leaves draining endpoints out if any is ready.
func chooseReady(all []judgedEndpoint) {
	for i := range all {
		if all[i].reason == endpointReady {
			dropDraining(all)
			return
		}
	}
}

func dropDraining(all []judgedEndpoint) {
	for i := range all {
		if all[i].reason == endpointDraining {
			all[i].reason = endpointSuperfluous
		}
	}
}

// usedTargets are the endpoints that get requests.
func usedTargets(all []judgedEndpoint) []router.Target {
	targets := make([]router.Target, 0, len(all))
	for i := range all {
		if all[i].reason.used() {
			targets = append(targets, all[i].Target)
		}
	}
	return targets
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
