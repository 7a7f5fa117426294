package manifests

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// setDefaults fills in what the API server would, as far as it is read, so that the same YAML
// means the same from a folder.
func setDefaults(obj metav1.Object) {
	switch v := obj.(type) {
	case *corev1.Service:
		defaultService(v)
	case *discoveryv1.EndpointSlice:
		for i := range v.Ports {
			p := &v.Ports[i]
			p.Name = orPointer(p.Name, "")
			p.Protocol = orPointer(p.Protocol, corev1.ProtocolTCP)
		}
	case *corev1.Secret:
		defaultSecret(v)
	case *corev1.Pod:
		defaultContainers(v.Spec.Containers)
		defaultContainers(v.Spec.InitContainers)
	}
}

func defaultService(v *corev1.Service) {
	s := &v.Spec
	s.Type = cmp.Or(s.Type, corev1.ServiceTypeClusterIP)
	s.SessionAffinity = cmp.Or(s.SessionAffinity, corev1.ServiceAffinityNone)
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		if s.SessionAffinityConfig == nil || s.SessionAffinityConfig.ClientIP == nil || s.SessionAffinityConfig.ClientIP.TimeoutSeconds == nil {
			timeout := corev1.DefaultClientIPServiceAffinitySeconds
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
	if s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer {
		s.ExternalTrafficPolicy = cmp.Or(s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if s.Type != corev1.ServiceTypeExternalName {
		s.InternalTrafficPolicy = orPointer(s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		p.Protocol = cmp.Or(p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

// defaultSecret also does what the API server does with stringData: it wins over data.
func defaultSecret(v *corev1.Secret) {
	v.Type = cmp.Or(v.Type, corev1.SecretTypeOpaque)
	if len(v.StringData) > 0 && v.Data == nil {
		v.Data = make(map[string][]byte, len(v.StringData))
	}
	for k, s := range v.StringData {
		v.Data[k] = []byte(s)
	}
	v.StringData = nil
}

func defaultContainers(containers []corev1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			p := &containers[i].Ports[j]
			p.Protocol = cmp.Or(p.Protocol, corev1.ProtocolTCP)
		}
	}
}

func orPointer[T any](p *T, otherwise T) *T {
	if p == nil {
		return &otherwise
	}
	return p
}
