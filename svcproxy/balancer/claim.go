package balancer

import (
	"iter"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
	"github.com/portico-ingress/portico/svcproxy/announce"
)

// serviceClaim is what one Service wants announced.
type serviceClaim struct {
	object    corev1.ObjectReference
	pool      string
	addresses []netip.Addr
	local     bool
	// serving are the nodes with endpoints of IPv4, serving6 those of IPv6.
	serving, serving6 []string
}

// claimOf reads what a Service that is Portico's (Config.serves) wants announced: nothing, unless it has addresses that this
// program gave it. The status is what counts; users cannot write it.
func claimOf(svc *corev1.Service, slicesOf iter.Seq[*discoveryv1.EndpointSlice]) (serviceClaim, bool) {
	if !addresses.Given(svc) || svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.DeletionTimestamp != nil {
		return serviceClaim{}, false
	}
	c := serviceClaim{
		object: corev1.ObjectReference{Kind: manifests.KindService, APIVersion: "v1", Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID},
		pool:   svc.Annotations[addresses.AnnotationFrom], local: svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(in.IP); err == nil {
			c.addresses = append(c.addresses, addr)
		}
	}
	if len(c.addresses) == 0 {
		return serviceClaim{}, false
	}
	c.serving, c.serving6 = servingNodes(slicesOf)
	return c, true
}

func (c serviceClaim) equal(o serviceClaim) bool {
	return c.object == o.object && c.pool == o.pool && c.local == o.local &&
		slices.Equal(c.addresses, o.addresses) && slices.Equal(c.serving, o.serving) && slices.Equal(c.serving6, o.serving6)
}

// servingFor are the nodes with endpoints for an address.
func (c serviceClaim) servingFor(a netip.Addr) []string {
	if a.Is6() {
		return c.serving6
	}
	return c.serving
}

// merge adds what another Service wants of the same address. Those of them that are Local have
// the same endpoints (svcproxy/addresses sees to that), and decide which nodes there are.
func merge(a, b announce.Claim) announce.Claim {
	switch {
	case a.Local == b.Local:
		for _, n := range b.Serving {
			if !slices.Contains(a.Serving, n) {
				a.Serving = append(slices.Clone(a.Serving), n)
			}
		}
		slices.Sort(a.Serving)
	case b.Local:
		a.Local, a.Serving = true, b.Serving
	}
	if b.Key.Less(a.Key) {
		a.Key = b.Key
	}
	return a
}
