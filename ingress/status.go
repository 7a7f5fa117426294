package ingress

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// addresses are what stands in the status of an Ingress, sorted.
type addresses []networkingv1.IngressLoadBalancerIngress

func compareAddresses(a, b networkingv1.IngressLoadBalancerIngress) int {
	return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.Hostname, b.Hostname))
}

func sameAddress(a, b networkingv1.IngressLoadBalancerIngress) bool {
	return compareAddresses(a, b) == 0
}

// sortedAddresses drops what we do not write, so that it does not count as a difference.
func sortedAddresses(all []networkingv1.IngressLoadBalancerIngress) addresses {
	var sorted addresses
	for _, a := range all {
		sorted = append(sorted, networkingv1.IngressLoadBalancerIngress{IP: a.IP, Hostname: a.Hostname})
	}
	slices.SortFunc(sorted, compareAddresses)
	return slices.CompactFunc(sorted, sameAddress)
}

func (a addresses) equal(b addresses) bool {
	return slices.EqualFunc(a, b, sameAddress)
}

// addressesOf are those that the publish options come to; none if they are not known yet.
// What counts for a Service depends on its type, as with ingress-nginx.
func addressesOf(fixed []string, svc *corev1.Service) addresses {
	var all addresses
	add := func(text string) {
		switch a, err := netip.ParseAddr(text); {
		case err == nil:
			all = append(all, networkingv1.IngressLoadBalancerIngress{IP: a.String()})
		case text != "" && text != corev1.ClusterIPNone:
			all = append(all, networkingv1.IngressLoadBalancerIngress{Hostname: text})
		}
	}
	for _, text := range fixed {
		add(text)
	}
	if svc != nil {
		addService(svc, add)
	}
	return sortedAddresses(all)
}

func addService(svc *corev1.Service, add func(string)) {
	switch svc.Spec.Type {
	case corev1.ServiceTypeExternalName:
		add(svc.Spec.ExternalName)
		return
	case corev1.ServiceTypeLoadBalancer:
		for _, in := range svc.Status.LoadBalancer.Ingress {
			add(in.IP)
			add(in.Hostname)
		}
	case corev1.ServiceTypeNodePort:
		if len(svc.Spec.ExternalIPs) == 0 {
			add(svc.Spec.ClusterIP)
		}
	default:
		add(svc.Spec.ClusterIP)
	}
	for _, ip := range svc.Spec.ExternalIPs {
		add(ip)
	}
}

// statusCase is all that the decision about one Ingress's status depends on.
type statusCase struct {
	// served: the live table has a route of it. wasServed: it had one at some time in the
	// life of this process.
	served, wasServed bool
	// current is what stands there, as read from the API server a moment ago.
	current addresses
	// wanted are our addresses; none if they are not known.
	wanted addresses
	// written is what this process wrote last, and wrote whether it did.
	written addresses
	wrote   bool
	// patient: somebody else has changed what we wrote, and not long ago.
	patient bool
}

// statusVerdict is what to do about a status, and why.
type statusVerdict uint8

const (
	statusRight     statusVerdict = iota // it is as it should be
	statusWrite                          // write our addresses
	statusClear                          // take our addresses away
	statusForeign                        // it is not ours, and what is there is not either
	statusUnknown                        // we do not know our addresses
	statusContended                      // somebody else changed it after us: leave it for a while
)

// decideStatus is never in a hurry to win: what somebody else wrote over ours is left alone
// for a while that doubles each time, and what stands in an Ingress that is not served is
// taken away only if this process has served the Ingress and the addresses are ours.
func decideStatus(c statusCase) statusVerdict {
	switch {
	case !c.served && len(c.current) == 0:
		return statusRight
	case !c.served:
		ours := c.current.equal(c.wanted) || c.wrote && c.current.equal(c.written)
		if c.wasServed && ours {
			return statusClear
		}
		return statusForeign
	case len(c.wanted) == 0:
		return statusUnknown
	case c.current.equal(c.wanted):
		return statusRight
	case c.wrote && c.written.equal(c.wanted) && c.patient:
		return statusContended
	}
	return statusWrite
}
