package manifests

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
)

// resource says how one kind is asked for.
type resource struct {
	kind    string
	name    string // as RBAC names it, with its group
	labels  string // selector
	fields  string // selector
	global  bool   // has no namespace
	client  any    // says whether it can stream lists
	example runtime.Object
	list    func(ctx context.Context, namespace string, opts metav1.ListOptions) (runtime.Object, error)
	watch   func(ctx context.Context, namespace string, opts metav1.ListOptions) (watch.Interface, error)
	// optional: without permission there are none, as far as Portico knows. These are the cluster-scoped
	// kinds, which a Role cannot grant.
	optional bool
	// recent: there are API servers in use that do not know the kind, so that there are none. From one that
	// has to know it, "not found" is an error like any other.
	recent bool
}

// typed is the part of a generated client that a resource needs. L is a list.
type typed[L runtime.Object] interface {
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

func newResource[C typed[L], L runtime.Object](client any, kind, name string, example runtime.Object, in func(namespace string) C) resource {
	return resource{
		kind: kind, name: name, client: client, example: example,
		list: func(ctx context.Context, namespace string, opts metav1.ListOptions) (runtime.Object, error) {
			return in(namespace).List(ctx, opts)
		},
		watch: func(ctx context.Context, namespace string, opts metav1.ListOptions) (watch.Interface, error) {
			return in(namespace).Watch(ctx, opts)
		},
	}
}

func ingresses(c kubernetes.Interface) resource {
	return newResource(c, KindIngress, "ingresses.networking.k8s.io", &networkingv1.Ingress{}, c.NetworkingV1().Ingresses)
}

func ingressClasses(c kubernetes.Interface) resource {
	r := newResource(c, KindIngressClass, "ingressclasses.networking.k8s.io", &networkingv1.IngressClass{},
		func(string) typed[*networkingv1.IngressClassList] { return c.NetworkingV1().IngressClasses() })
	r.global, r.optional = true, true
	return r
}

func namespaces(c kubernetes.Interface) resource {
	r := newResource(c, KindNamespace, "namespaces", &corev1.Namespace{},
		func(string) typed[*corev1.NamespaceList] { return c.CoreV1().Namespaces() })
	r.global, r.optional = true, true
	return r
}

// node is one Node.
func node(c kubernetes.Interface, name string) resource {
	r := newResource(c, KindNode, "nodes", &corev1.Node{},
		func(string) typed[*corev1.NodeList] { return c.CoreV1().Nodes() })
	r.global, r.optional, r.fields = true, true, "metadata.name="+name
	return r
}

// serviceCIDRs are where cluster IPs come from. Kubernetes has them since 1.33.
func serviceCIDRs(c kubernetes.Interface) resource {
	r := newResource(c, KindServiceCIDR, "servicecidrs.networking.k8s.io", &networkingv1.ServiceCIDR{},
		func(string) typed[*networkingv1.ServiceCIDRList] { return c.NetworkingV1().ServiceCIDRs() })
	r.global, r.optional, r.recent = true, true, true
	return r
}

func services(c kubernetes.Interface) resource {
	return newResource(c, KindService, "services", &corev1.Service{}, c.CoreV1().Services)
}

// endpointSlices are all that belong to a Service, headless ones too: an Ingress may name one.
func endpointSlices(c kubernetes.Interface) resource {
	r := newResource(c, KindEndpointSlice, "endpointslices.discovery.k8s.io", &discoveryv1.EndpointSlice{}, c.DiscoveryV1().EndpointSlices)
	r.labels = discoveryv1.LabelServiceName
	return r
}

func configMaps(c kubernetes.Interface) resource {
	return newResource(c, KindConfigMap, "configmaps", &corev1.ConfigMap{}, c.CoreV1().ConfigMaps)
}

// secrets are whole Secrets; only ever asked for by name.
func secrets(c kubernetes.Interface) resource {
	return newResource(c, KindSecret, "secrets", &corev1.Secret{}, c.CoreV1().Secrets)
}

// secretFields leaves out the two types that are many, large, and never a certificate or a password file.
const secretFields = "type!=helm.sh/release.v1,type!=" + string(corev1.SecretTypeServiceAccountToken)

// secretNames are the metadata of Secrets: the API server sends no contents.
func secretNames(c metadata.Interface) resource {
	at := c.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"})
	r := newResource(c, KindSecret, "secrets", &metav1.PartialObjectMetadata{},
		func(namespace string) typed[*metav1.PartialObjectMetadataList] { return at.Namespace(namespace) })
	r.fields = secretFields
	return r
}
