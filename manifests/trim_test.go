package manifests

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func fullMeta() metav1.ObjectMeta {
	now := metav1.NewTime(time.Unix(1000, 0))
	return metav1.ObjectMeta{
		Name: "x", Namespace: "a", UID: "u", ResourceVersion: "7", Generation: 3, CreationTimestamp: now, DeletionTimestamp: &now,
		Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "keep": "me"},
		Labels:      map[string]string{"l": "v", discoveryv1.LabelServiceName: "web", "service.kubernetes.io/service-proxy-name": "p"},
		Finalizers:  []string{"f"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		OwnerReferences: []metav1.OwnerReference{{Name: "o"}}, GenerateName: "x-",
	}
}

func trimmedMeta(labels map[string]string) metav1.ObjectMeta {
	m := fullMeta()
	m.Annotations = map[string]string{"keep": "me"}
	m.Labels, m.Finalizers, m.ManagedFields, m.OwnerReferences, m.GenerateName = labels, nil, nil, nil, ""
	return m
}

func TestTrim(t *testing.T) {
	all := fullMeta().Labels
	lb := corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "10.0.0.1"}}}
	node := "n"
	sliceMeta := trimmedMeta(map[string]string{discoveryv1.LabelServiceName: "web"})
	sliceMeta.Annotations = nil
	serviceMeta, balancerMeta := trimmedMeta(map[string]string{"service.kubernetes.io/service-proxy-name": "p"}), trimmedMeta(all)
	serviceMeta.Finalizers, balancerMeta.Finalizers = []string{"f"}, []string{"f"}
	podMeta := trimmedMeta(all)
	podMeta.Annotations = nil
	for name, c := range map[string]struct{ in, want metav1.Object }{
		"Ingress": {
			&networkingv1.Ingress{TypeMeta: metav1.TypeMeta{Kind: "Ingress"}, ObjectMeta: fullMeta(), Spec: networkingv1.IngressSpec{IngressClassName: &node}},
			&networkingv1.Ingress{ObjectMeta: trimmedMeta(nil), Spec: networkingv1.IngressSpec{IngressClassName: &node}},
		},
		"Service": {
			&corev1.Service{ObjectMeta: fullMeta(), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.2", HealthCheckNodePort: 5}, Status: corev1.ServiceStatus{LoadBalancer: lb, Conditions: []metav1.Condition{{Type: "Ready"}, {Type: "portico.dev/x"}}}},
			&corev1.Service{ObjectMeta: serviceMeta, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.2", HealthCheckNodePort: 5}, Status: corev1.ServiceStatus{LoadBalancer: lb, Conditions: []metav1.Condition{{Type: "portico.dev/x"}}}},
		},
		"a load balancer": {
			&corev1.Service{ObjectMeta: fullMeta(), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}},
			&corev1.Service{ObjectMeta: balancerMeta, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}},
		},
		"EndpointSlice": {
			&discoveryv1.EndpointSlice{ObjectMeta: fullMeta(), AddressType: "IPv4", Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"10.0.0.1"}, NodeName: &node,
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p", UID: "u", ResourceVersion: "5"}, DeprecatedTopology: all,
			}}},
			&discoveryv1.EndpointSlice{ObjectMeta: sliceMeta, AddressType: "IPv4", Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"10.0.0.1"}, NodeName: &node,
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p"},
			}}},
		},
		"Secret": {
			&corev1.Secret{ObjectMeta: fullMeta(), Type: "t", Data: map[string][]byte{"a": nil}, StringData: all},
			&corev1.Secret{ObjectMeta: trimmedMeta(nil), Type: "t", Data: map[string][]byte{"a": nil}},
		},
		"ConfigMap": {
			&corev1.ConfigMap{ObjectMeta: fullMeta(), Data: all, BinaryData: map[string][]byte{"a": nil}},
			&corev1.ConfigMap{ObjectMeta: trimmedMeta(nil), Data: all},
		},
		"Namespace": {
			&corev1.Namespace{ObjectMeta: fullMeta(), Status: corev1.NamespaceStatus{Phase: "Active"}},
			&corev1.Namespace{ObjectMeta: trimmedMeta(all)},
		},
		"Pod": {
			&corev1.Pod{
				ObjectMeta: fullMeta(), Spec: corev1.PodSpec{NodeName: "n", ServiceAccountName: "s", Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "p"}}}}},
				Status: corev1.PodStatus{PodIP: "10.0.0.1", Phase: "Running", HostIP: "h", Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True", Message: "m"}}},
			},
			&corev1.Pod{
				ObjectMeta: podMeta, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "p"}}}}},
				Status: corev1.PodStatus{PodIP: "10.0.0.1", Phase: "Running", Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}}},
			},
		},
		"metadata": {
			&metav1.PartialObjectMetadata{ObjectMeta: fullMeta()},
			&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "a", ResourceVersion: "7"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			once := trim(c.in)
			equal(t, "once", once, c.want)
			equal(t, "twice", trim(once), c.want)
			if len(c.in.GetFinalizers()) != 1 || len(c.in.GetAnnotations()) != 2 {
				t.Error("the object itself was written to")
			}
		})
	}
}
