package manifests

import (
	"cmp"
	"fmt"
	"strings"
)

// Kinds of objects Portico reads, as they stand in Ref.Kind.
const (
	KindIngress       = "Ingress"
	KindIngressClass  = "IngressClass"
	KindService       = "Service"
	KindEndpointSlice = "EndpointSlice"
	KindSecret        = "Secret"
	KindConfigMap     = "ConfigMap"
	KindPod           = "Pod"
	KindNamespace     = "Namespace"
	KindNode          = "Node"
	KindServiceCIDR   = "ServiceCIDR"
	// KindFile is not a Kubernetes kind: it names a manifest file that could not be read.
	KindFile = "File"
	// KindAccess is not a Kubernetes kind: it names a resource (secrets, or
	// ingresses.networking.k8s.io) that Portico's Role or ClusterRole has to grant.
	KindAccess = "Access"
)

// Ref names one object. Namespace is empty for cluster-scoped kinds and for files.
type Ref struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String gives "Kind namespace/name", or "Kind name" where there is no namespace.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Compare orders by kind, namespace and name; less than, equal to and greater than zero as
// in cmp.Compare.
func (r Ref) Compare(other Ref) int {
	return cmp.Or(strings.Compare(r.Kind, other.Kind), strings.Compare(r.Namespace, other.Namespace), strings.Compare(r.Name, other.Name))
}

// Problem tells a user what is wrong with one object and what to do about it. The
// object is dropped, wholly or in the named field; everything else keeps working.
type Problem struct {
	// Object is what the user has to edit.
	Object Ref `json:"object"`
	// Field is the path inside it, as kubectl explain spells it
	// (spec.rules[0].http.paths[1].backend), or "line 12" for a file. May be empty.
	Field string `json:"field,omitempty"`
	// Text says what is wrong, what Portico does instead, and the fix.
	Text string `json:"text"`
}

// String gives one line for a log.
func (p Problem) String() string {
	if p.Field == "" {
		return fmt.Sprintf("%s: %s", p.Object, p.Text)
	}
	return fmt.Sprintf("%s: %s: %s", p.Object, p.Field, p.Text)
}
