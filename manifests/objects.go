// Package manifests holds the Kubernetes objects that Portico serves, wherever they come
// from: a read-only snapshot of them, and the two sources that keep it current, a cluster
// and a folder of YAML. The README has the picture.
package manifests

import (
	"iter"
	"strings"

	"github.com/tidwall/btree"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
	ingresses  *tree[*networkingv1.Ingress]
	classes    *tree[*networkingv1.IngressClass]
	services   *tree[*corev1.Service]
	slices     *tree[packed] // by namespace/service/name
	sliceOwner *tree[string] // service of a slice, by namespace/name
	secrets    *tree[*corev1.Secret]
	configMaps *tree[*corev1.ConfigMap]
	pods       *tree[*corev1.Pod]
	namespaces *tree[*corev1.Namespace]
	nodes      *tree[*corev1.Node]
	cidrs      *tree[*networkingv1.ServiceCIDR]
}

// tree is in the order of its keys. Its Copy costs nothing, and shares all that neither of the two changes afterwards.
type tree[T any] = btree.Map[string, T]

// treeDegree makes nodes of up to 31 objects: what is copied of a tree for a change.
const treeDegree = 16

func newTree[T any]() *tree[T] { return btree.NewMap[string, T](treeDegree) }

func newObjects() *Objects {
	return &Objects{
		ingresses:  newTree[*networkingv1.Ingress](),
		classes:    newTree[*networkingv1.IngressClass](),
		services:   newTree[*corev1.Service](),
		slices:     newTree[packed](),
		sliceOwner: newTree[string](),
		secrets:    newTree[*corev1.Secret](),
		configMaps: newTree[*corev1.ConfigMap](),
		pods:       newTree[*corev1.Pod](),
		namespaces: newTree[*corev1.Namespace](),
		nodes:      newTree[*corev1.Node](),
		cidrs:      newTree[*networkingv1.ServiceCIDR](),
	}
}

// snapshot gives what o is now. It stays as it is when o changes.
func (o *Objects) snapshot() *Objects {
	return &Objects{
		ingresses:  o.ingresses.Copy(),
		classes:    o.classes.Copy(),
		services:   o.services.Copy(),
		slices:     o.slices.Copy(),
		sliceOwner: o.sliceOwner.Copy(),
		secrets:    o.secrets.Copy(),
		configMaps: o.configMaps.Copy(),
		pods:       o.pods.Copy(),
		namespaces: o.namespaces.Copy(),
		nodes:      o.nodes.Copy(),
		cidrs:      o.cidrs.Copy(),
	}
}

// Ingress returns the named Ingress, or nil.
func (o *Objects) Ingress(namespace, name string) *networkingv1.Ingress {
	return get(o.ingresses, key(namespace, name))
}

// Ingresses walks all Ingresses, of every class.
func (o *Objects) Ingresses() iter.Seq[*networkingv1.Ingress] { return all(o.ingresses, "") }

// IngressClass returns the named IngressClass, or nil.
func (o *Objects) IngressClass(name string) *networkingv1.IngressClass {
	return get(o.classes, key("", name))
}

// IngressClasses walks all IngressClasses.
func (o *Objects) IngressClasses() iter.Seq[*networkingv1.IngressClass] { return all(o.classes, "") }

// Service returns the named Service, or nil.
func (o *Objects) Service(namespace, name string) *corev1.Service {
	return get(o.services, key(namespace, name))
}

// Services walks all Services.
func (o *Objects) Services() iter.Seq[*corev1.Service] { return all(o.services, "") }

// EndpointSlices walks the EndpointSlices of one Service (by the label
// kubernetes.io/service-name), of every address type. Each walk makes new objects.
func (o *Objects) EndpointSlices(namespace, service string) iter.Seq[*discoveryv1.EndpointSlice] {
	return unpackAll(all(o.slices, key(namespace, service)+keySeparator))
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
	return all(o.pods, namespace+keySeparator)
}

// Namespace returns the named Namespace, or nil.
func (o *Objects) Namespace(name string) *corev1.Namespace { return get(o.namespaces, key("", name)) }

// Node returns the named Node, or nil. Of a cluster only the one is here that a Source was made
// for: see ClusterConfig.Node.
func (o *Objects) Node(name string) *corev1.Node { return get(o.nodes, key("", name)) }

// ServiceCIDRs walks all ServiceCIDRs. Of a cluster they are here with ClusterConfig.Node only.
func (o *Objects) ServiceCIDRs() iter.Seq[*networkingv1.ServiceCIDR] { return all(o.cidrs, "") }

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

// same tells whether obj is what ref names already.
func (o *Objects) same(ref Ref, obj metav1.Object) bool {
	if v, ok := obj.(*packedSlice); ok {
		old, had := o.slices.Get(sliceKey(v.Namespace, v.service, v.Name))
		return had && old == v.packed
	}
	old := o.lookup(ref)
	return old != nil && equality.Semantic.DeepEqual(old, obj)
}

// object keeps a missing value from becoming a non-nil interface.
func object[T metav1.Object](t *tree[T], k string) metav1.Object {
	if v, ok := t.Get(k); ok {
		return v
	}
	return nil
}

// keySeparator orders before every character that a name may have, so that a walk goes
// in the order of namespace, then name, and a prefix walk meets whole names only.
const keySeparator = "\x00"

func key(namespace, name string) string { return namespace + keySeparator + name }

func sliceKey(namespace, service, name string) string {
	return namespace + keySeparator + service + keySeparator + name
}

func remove[T any](t *tree[T], k string) (had bool) {
	_, had = t.Delete(k)
	return had
}

func get[T any](t *tree[T], k string) T {
	v, _ := t.Get(k)
	return v
}

func all[T any](t *tree[T], prefix string) iter.Seq[T] {
	return func(yield func(T) bool) {
		t.Ascend(prefix, func(k string, v T) bool { return strings.HasPrefix(k, prefix) && yield(v) })
	}
}
