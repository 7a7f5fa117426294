// Package manifests holds the Kubernetes objects that Portico serves, wherever they come
// from: a read-only snapshot of them, and the two sources that keep it current, a cluster
// and a folder of YAML. The README has the picture.
package manifests

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects is an immutable snapshot of the Kubernetes objects Portico serves, whatever
// source they came from. Taking one costs nothing and keeps nothing from changing: the
// next snapshot shares all that did not change. The objects inside are shared, trimmed
// and must never be written to.
//
// Every sequence is in the order of namespace and name, so that a reader that walks a
// snapshot twice does the same thing twice.
type Objects struct {
	ingresses  *iradix.Tree[*networkingv1.Ingress]
	classes    *iradix.Tree[*networkingv1.IngressClass]
	services   *iradix.Tree[*corev1.Service]
	slices     *iradix.Tree[packed] // by namespace/service/name
	sliceOwner *iradix.Tree[string] // service of a slice, by namespace/name
	secrets    *iradix.Tree[*corev1.Secret]
	configMaps *iradix.Tree[*corev1.ConfigMap]
	pods       *iradix.Tree[*corev1.Pod]
	namespaces *iradix.Tree[*corev1.Namespace]
	nodes      *iradix.Tree[*corev1.Node]
	cidrs      *iradix.Tree[*networkingv1.ServiceCIDR]
}

func newObjects() *Objects {
	return &Objects{
		ingresses:  iradix.New[*networkingv1.Ingress](),
		classes:    iradix.New[*networkingv1.IngressClass](),
		services:   iradix.New[*corev1.Service](),
		slices:     iradix.New[packed](),
		sliceOwner: iradix.New[string](),
		secrets:    iradix.New[*corev1.Secret](),
		configMaps: iradix.New[*corev1.ConfigMap](),
		pods:       iradix.New[*corev1.Pod](),
		namespaces: iradix.New[*corev1.Namespace](),
		nodes:      iradix.New[*corev1.Node](),
		cidrs:      iradix.New[*networkingv1.ServiceCIDR](),
	}
}

// Ingress returns the named Ingress, or nil.
func (o *Objects) Ingress(namespace, name string) *networkingv1.Ingress {
	return get(o.ingresses, key(namespace, name))
}

// Ingresses walks all Ingresses, of every class.
func (o *Objects) Ingresses() iter.Seq[*networkingv1.Ingress] { return all(o.ingresses, nil) }

// IngressClass returns the named IngressClass, or nil.
func (o *Objects) IngressClass(name string) *networkingv1.IngressClass {
	return get(o.classes, key("", name))
}

// IngressClasses walks all IngressClasses.
func (o *Objects) IngressClasses() iter.Seq[*networkingv1.IngressClass] { return all(o.classes, nil) }

// Service returns the named Service, or nil.
func (o *Objects) Service(namespace, name string) *corev1.Service {
	return get(o.services, key(namespace, name))
}

// Services walks all Services.
func (o *Objects) Services() iter.Seq[*corev1.Service] { return all(o.services, nil) }

// EndpointSlices walks the EndpointSlices of one Service (by the label
// kubernetes.io/service-name), of every address type. Each walk makes new objects.
func (o *Objects) EndpointSlices(namespace, service string) iter.Seq[*discoveryv1.EndpointSlice] {
	return unpackAll(all(o.slices, append(key(namespace, service), keySeparator)))
}

// Secret returns the named Secret, or nil. Only Secrets that a served object names are
// ever here; see Source.Want.
func (o *Objects) Secret(namespace, name string) *corev1.Secret {
	return get(o.secrets, key(namespace, name))
}

// ConfigMap returns the named ConfigMap, or nil; only wanted ones are here.
func (o *Objects) ConfigMap(namespace, name string) *corev1.ConfigMap {
	return get(o.configMaps, key(namespace, name))
}

// Pods walks the Pods of a namespace. Only the file source has any: in a cluster the
// EndpointSlices say all that is needed.
func (o *Objects) Pods(namespace string) iter.Seq[*corev1.Pod] {
	return all(o.pods, append([]byte(namespace), keySeparator))
}

// Namespace returns the named Namespace, or nil.
func (o *Objects) Namespace(name string) *corev1.Namespace { return get(o.namespaces, key("", name)) }

// Node returns the named Node, or nil. Of a cluster only the one is here that a Source was made
// for: see ClusterConfig.Node.
func (o *Objects) Node(name string) *corev1.Node { return get(o.nodes, key("", name)) }

// ServiceCIDRs walks all ServiceCIDRs. Of a cluster they are here with ClusterConfig.Node only.
func (o *Objects) ServiceCIDRs() iter.Seq[*networkingv1.ServiceCIDR] { return all(o.cidrs, nil) }

// lookup returns the object that ref names, an EndpointSlice by its own name, or nil.
func (o *Objects) lookup(ref Ref) metav1.Object {
	k := key(ref.Namespace, ref.Name)
	switch ref.Kind {
	case KindIngress:
		return object(o.ingresses, k)
	case KindIngressClass:
		return object(o.classes, k)
	case KindService:
		return object(o.services, k)
	case KindEndpointSlice:
		service, _ := o.sliceOwner.Get(k)
		if p, ok := o.slices.Get(sliceKey(ref.Namespace, service, ref.Name)); ok {
			return p.unpack()
		}
	case KindSecret:
		return object(o.secrets, k)
	case KindConfigMap:
		return object(o.configMaps, k)
	case KindPod:
		return object(o.pods, k)
	case KindNamespace:
		return object(o.namespaces, k)
	case KindNode:
		return object(o.nodes, k)
	case KindServiceCIDR:
		return object(o.cidrs, k)
	}
	return nil
}

// object keeps a missing value from becoming a non-nil interface.
func object[T metav1.Object](t *iradix.Tree[T], k []byte) metav1.Object {
	if v, ok := t.Get(k); ok {
		return v
	}
	return nil
}

// keySeparator orders before every character that a name may have, so that a walk goes
// in the order of namespace, then name, and a prefix walk meets whole names only.
const keySeparator = 0

func key(namespace, name string) []byte {
	k := make([]byte, 0, len(namespace)+1+len(name)+1)
	k = append(k, namespace...)
	k = append(k, keySeparator)
	return append(k, name...)
}

func sliceKey(namespace, service, name string) []byte {
	return append(append(key(namespace, service), keySeparator), name...)
}

func insert[T any](t *iradix.Tree[T], k []byte, v T) *iradix.Tree[T] {
	t, _, _ = t.Insert(k, v)
	return t
}

func get[T any](t *iradix.Tree[T], k []byte) T {
	v, _ := t.Get(k)
	return v
}

func all[T any](t *iradix.Tree[T], prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		it := t.Root().Iterator()
		it.SeekPrefix(prefix)
		for _, v, ok := it.Next(); ok; _, v, ok = it.Next() {
			if !yield(v) {
				return
			}
		}
	}
}
