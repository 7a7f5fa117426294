package manifests

import (
	"fmt"
	"maps"
	"strings"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trim gives a copy of obj with only what a proxy reads, so that a big cluster costs little
// memory: managedFields alone are often more than half of an object. obj is one that this
// process has decoded itself and nobody else holds: the copy shares its parts. Trimming
// twice is trimming once. A type that no Source has is a bug, and panics.
func trim(obj any) metav1.Object {
	switch v := obj.(type) {
	case *networkingv1.Ingress:
		return trimIngress(v)
	case *networkingv1.IngressClass:
		return &networkingv1.IngressClass{ObjectMeta: trimMeta(&v.ObjectMeta), Spec: v.Spec}
	case *corev1.Service:
		return trimService(v)
	case *discoveryv1.EndpointSlice:
		return trimEndpointSlice(v)
	case *corev1.Secret:
		return &corev1.Secret{ObjectMeta: trimMeta(&v.ObjectMeta), Type: corev1.SecretType(intern(string(v.Type))), Data: v.Data}
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: trimMeta(&v.ObjectMeta), Data: v.Data}
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: trimMetaLabels(&v.ObjectMeta)}
	case *corev1.Node:
		return trimNode(v)
	case *networkingv1.ServiceCIDR:
		return &networkingv1.ServiceCIDR{ObjectMeta: trimMeta(&v.ObjectMeta), Spec: v.Spec}
	case *corev1.Pod:
		return trimPod(v)
	case *metav1.PartialObjectMetadata:
		return trimMetadata(v)
	}
	panic(fmt.Sprintf("manifests: trim of %T", obj))
}

// trimMeta drops managedFields, ownerReferences, finalizers, labels, and what kubectl
// apply remembers.
func trimMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:              m.Name,
		Namespace:         intern(m.Namespace),
		UID:               m.UID,
		ResourceVersion:   m.ResourceVersion,
		Generation:        m.Generation,
		CreationTimestamp: m.CreationTimestamp,
		DeletionTimestamp: m.DeletionTimestamp,
		Annotations:       trimAnnotations(m.Annotations),
	}
}

func trimMetaLabels(m *metav1.ObjectMeta) metav1.ObjectMeta {
	t := trimMeta(m)
	t.Labels = internKeys(m.Labels)
	return t
}

func trimAnnotations(a map[string]string) map[string]string {
	if _, ok := a[corev1.LastAppliedConfigAnnotation]; ok {
		a = maps.Clone(a)
		delete(a, corev1.LastAppliedConfigAnnotation)
	}
	return internKeys(a)
}

func trimIngress(v *networkingv1.Ingress) *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: trimMeta(&v.ObjectMeta),
		Spec:       v.Spec,
		Status:     networkingv1.IngressStatus{LoadBalancer: v.Status.LoadBalancer},
	}
}

// serviceLabels are the labels of a Service that are read: who serves it.
var serviceLabels = []string{"service.kubernetes.io/service-proxy-name"}

// ConditionPrefix begins the types of the conditions that Portico writes.
const ConditionPrefix = "portico.dev/"

// trimService keeps the whole spec, which is small and which L4 reads nearly all of, the labels
// of a load balancer, because pools of addresses select by them, and the finalizers, one of which
// is the load balancer's. Of the conditions it keeps Portico's own.
func trimService(v *corev1.Service) *corev1.Service {
	t := &corev1.Service{
		ObjectMeta: trimMeta(&v.ObjectMeta),
		Spec:       v.Spec,
		Status:     corev1.ServiceStatus{LoadBalancer: v.Status.LoadBalancer},
	}
	t.Finalizers = v.Finalizers
	for _, c := range v.Status.Conditions {
		if strings.HasPrefix(c.Type, ConditionPrefix) {
			t.Status.Conditions = append(t.Status.Conditions, c)
		}
	}
	if v.Spec.Type == corev1.ServiceTypeLoadBalancer {
		t.Labels = internKeys(v.Labels)
	} else {
		t.Labels = only(v.Labels, serviceLabels)
	}
	return t
}

// sliceLabels are the labels of an EndpointSlice that are read.
var sliceLabels = []string{discoveryv1.LabelServiceName, corev1.IsHeadlessService, discoveryv1.LabelManagedBy}

// sliceAnnotations are the annotations of an EndpointSlice that are read: when the Pod
// change that it stands for happened.
var sliceAnnotations = []string{corev1.EndpointsLastChangeTriggerTime}

func trimEndpointSlice(v *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	t := &discoveryv1.EndpointSlice{
		ObjectMeta:  trimMeta(&v.ObjectMeta),
		AddressType: discoveryv1.AddressType(intern(string(v.AddressType))),
		Ports:       v.Ports,
	}
	t.Labels = only(v.Labels, sliceLabels)
	t.Annotations = only(v.Annotations, sliceAnnotations)
	if len(v.Endpoints) > 0 {
		t.Endpoints = make([]discoveryv1.Endpoint, len(v.Endpoints))
	}
	for i := range v.Endpoints {
		t.Endpoints[i] = trimEndpoint(&v.Endpoints[i])
	}
	return t
}

func trimEndpoint(e *discoveryv1.Endpoint) discoveryv1.Endpoint {
	t := discoveryv1.Endpoint{
		Addresses:  e.Addresses,
		Conditions: e.Conditions,
		Hostname:   e.Hostname,
		NodeName:   internPointer(e.NodeName),
		Zone:       internPointer(e.Zone),
		Hints:      e.Hints,
	}
	if e.TargetRef != nil {
		t.TargetRef = &corev1.ObjectReference{
			Kind:      intern(e.TargetRef.Kind),
			Namespace: intern(e.TargetRef.Namespace),
			Name:      e.TargetRef.Name,
		}
	}
	return t
}

// trimNode keeps where a node is, its addresses, and what says that it is about to go. Most changes
// of a Node are of its conditions, which nobody here reads: those look like no change.
func trimNode(v *corev1.Node) *corev1.Node {
	t := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: v.Name, UID: v.UID, DeletionTimestamp: v.DeletionTimestamp,
		Labels: only(v.Labels, []string{corev1.LabelTopologyZone}),
	}}
	t.Spec = corev1.NodeSpec{PodCIDRs: v.Spec.PodCIDRs, Taints: v.Spec.Taints}
	t.Status.Addresses = v.Status.Addresses
	return t
}

// trimPod keeps what EndpointSlices are made from.
func trimPod(v *corev1.Pod) *corev1.Pod {
	t := &corev1.Pod{ObjectMeta: trimMetaLabels(&v.ObjectMeta)}
	t.Annotations = nil
	t.Spec = corev1.PodSpec{
		NodeName:   v.Spec.NodeName,
		Hostname:   v.Spec.Hostname,
		Subdomain:  v.Spec.Subdomain,
		Containers: trimContainers(v.Spec.Containers),
		// A sidecar is an init container that restarts; it may own a named port.
		InitContainers: trimContainers(v.Spec.InitContainers),
	}
	t.Status = corev1.PodStatus{Phase: v.Status.Phase, PodIP: v.Status.PodIP, PodIPs: v.Status.PodIPs}
	for _, c := range v.Status.Conditions {
		t.Status.Conditions = append(t.Status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status})
	}
	return t
}

func trimContainers(containers []corev1.Container) []corev1.Container {
	var t []corev1.Container
	for i := range containers {
		c := &containers[i]
		t = append(t, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
	}
	return t
}

// trimMetadata keeps what tells whether a Secret is there and is still the same.
func trimMetadata(v *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name:            v.Name,
		Namespace:       intern(v.Namespace),
		ResourceVersion: v.ResourceVersion,
	}}
}

// intern gives the one copy of a string that many objects have, like a namespace or a node.
func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

func internPointer(s *string) *string {
	if s == nil {
		return nil
	}
	v := intern(*s)
	return &v
}

// internKeys copies m; its keys are few in a cluster, its values are not.
func internKeys(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	t := make(map[string]string, len(m))
	for k, v := range m {
		t[intern(k)] = v
	}
	return t
}

// only copies the named keys of m.
func only(m map[string]string, keys []string) map[string]string {
	var t map[string]string
	for _, k := range keys {
		v, ok := m[k]
		if !ok {
			continue
		}
		if t == nil {
			t = make(map[string]string, len(keys))
		}
		t[k] = v
	}
	return t
}
