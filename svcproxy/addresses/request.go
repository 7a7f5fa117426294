package addresses

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Annotations of Services that are read: Portico's, MetalLB's, and MetalLB's older ones. The
// first that is there counts.
var prefixes = []string{"portico.dev/", "metallb.io/", "metallb.universe.tf/"}

const (
	annotationIPs   = "loadBalancerIPs"
	annotationPool  = "address-pool"
	annotationShare = "allow-shared-ip"
	// annotationMetalLB is what MetalLB writes for the same.
	annotationMetalLB = "ip-allocated-from-pool"
	// AnnotationFrom is written to Services: the pool that their addresses are from.
	AnnotationFrom = "portico.dev/allocated-from-pool"
)

// annotation gives the value of an annotation, and its full name.
func annotation(svc *corev1.Service, name string) (value, key string) {
	for _, p := range prefixes {
		if v := strings.TrimSpace(svc.Annotations[p+name]); v != "" {
			return v, p + name
		}
	}
	return "", ""
}

// Given says whether the addresses in the status of a Service are Portico's. The annotation alone does not: users write it. They do
// not write the condition, which comes in one patch with the addresses.
func Given(svc *corev1.Service) bool {
	_, marked := svc.Annotations[AnnotationFrom]
	c := conditionIn(svc)
	return marked && c != nil && c.Status == metav1.ConditionTrue
}

// allocatedFrom is the pool that the addresses of a Service are from, as Portico or MetalLB wrote it down, and whether
// they are. One that Portico has said something about is MetalLB's no more.
func allocatedFrom(svc *corev1.Service) (pool string, given bool) {
	metalLB, key := annotation(svc, annotationMetalLB)
	given = Given(svc) || key != "" && !Explained(svc)
	if pool, marked := svc.Annotations[AnnotationFrom]; marked {
		return pool, given
	}
	return metalLB, given
}

// request is what a Service asks for.
type request struct {
	// ips are the addresses that it wants, and no others.
	ips []netip.Addr
	// field is where that, or the pool, is written.
	field string
	pool  string
	// v4, v6 are the families that it wants; both says that one alone will not do.
	v4, v6, both bool
	share        shareKey
	ports        []portKey
	// had are the addresses that the Service has.
	had []netip.Addr
	// given says that the addresses in its status are from Portico or MetalLB, also if they are in no pool any more.
	given bool
}

// shareKey must be the same for Services that share an address.
type shareKey struct {
	// key is what the users chose. Without one, nothing is shared.
	key string
	// backends is the selector under externalTrafficPolicy Local: the node that answers for the
	// address must have endpoints of each of the Services.
	backends string
}

type portKey struct {
	protocol corev1.Protocol
	port     int32
}

// readRequest reads a Service. The error names the field.
func readRequest(svc *corev1.Service) (request, error) {
	r := request{}
	r.pool, _ = annotation(svc, annotationPool)
	r.share.key, _ = annotation(svc, annotationShare)
	_, r.given = allocatedFrom(svc)
	r.had = addressesOf(svc)
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		r.share.backends = labels.Set(svc.Spec.Selector).String()
	}
	for _, p := range svc.Spec.Ports {
		r.ports = append(r.ports, portKey{p.Protocol, p.Port})
	}
	r.readFamilies(svc)
	return r, r.readIPs(svc)
}

func (r *request) readFamilies(svc *corev1.Service) {
	for _, f := range svc.Spec.IPFamilies {
		r.v4 = r.v4 || f == corev1.IPv4Protocol
		r.v6 = r.v6 || f == corev1.IPv6Protocol
	}
	if !r.v4 && !r.v6 { // a Service from a file, which no API server has completed
		a, err := netip.ParseAddr(svc.Spec.ClusterIP)
		r.v6 = err == nil && a.Is6()
		r.v4 = !r.v6
	}
	policy := svc.Spec.IPFamilyPolicy
	r.both = r.v4 && r.v6 && (policy == nil || *policy != corev1.IPFamilyPolicyPreferDualStack)
}

func (r *request) readIPs(svc *corev1.Service) error {
	text, key := annotation(svc, annotationIPs)
	r.field = "metadata.annotations[" + key + "]"
	field := svc.Spec.LoadBalancerIP
	if text == "" {
		text, r.field = field, "spec.loadBalancerIP"
	} else if field != "" && !slices.ContainsFunc(strings.Split(text, ","), func(s string) bool { return strings.TrimSpace(s) == field }) {
		return fmt.Errorf("%q is another wish than %q of spec.loadBalancerIP; leave the field, which is deprecated, empty", text, field)
	}
	if text == "" {
		r.field = ""
		return nil
	}
	seen := map[bool]bool{}
	for one := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(one))
		switch {
		case err != nil || a.Zone() != "":
			return fmt.Errorf("%q is not an IP address", strings.TrimSpace(one))
		case a.Is4() && !r.v4 || a.Is6() && !r.v6:
			return fmt.Errorf("%s is not of an address family that the Service has (spec.ipFamilies %v)", a, svc.Spec.IPFamilies)
		case seen[a.Is6()]:
			return fmt.Errorf("there are two addresses of the same family in %q; a Service has one of each", text)
		}
		seen[a.Is6()] = true
		r.ips = append(r.ips, a)
	}
	if v6First := order(svc, *r)[0]; len(r.ips) == 2 && r.ips[0].Is6() != v6First {
		slices.Reverse(r.ips)
	}
	if r.both && len(r.ips) == 1 {
		return fmt.Errorf("%s is one address, and ipFamilyPolicy RequireDualStack wants one of each family; name both", r.ips[0])
	}
	return nil
}
