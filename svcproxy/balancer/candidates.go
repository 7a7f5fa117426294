package balancer

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
)

// candidates are the Services that the leader decides about: those of type LoadBalancer, and those
// that something was once written to. All others cost it nothing, however many there are.
type candidates map[manifests.Ref]*corev1.Service

// replace takes a Service as it is now, or nil, and says whether it is or was a candidate.
func (c candidates) replace(ref manifests.Ref, svc *corev1.Service) bool {
	_, was := c[ref]
	if svc != nil && (touched(svc) || svc.Spec.Type == corev1.ServiceTypeLoadBalancer) {
		c[ref] = svc
		return true
	}
	delete(c, ref)
	return was
}

// given says whether a Service has, or had, an address of this program.
func given(svc *corev1.Service) bool {
	_, has := svc.Annotations[addresses.AnnotationFrom]
	return has
}

// touched says whether a Service has anything that is to be taken off it when it is not Portico's any more.
func touched(svc *corev1.Service) bool { return given(svc) || addresses.Explained(svc) }

// list is in the order of namespace and name.
func (c candidates) list() []*corev1.Service {
	all := make([]*corev1.Service, 0, len(c))
	for _, ref := range slices.SortedFunc(maps.Keys(c), manifests.Ref.Compare) {
		all = append(all, c[ref])
	}
	return all
}
