package manifests

import (
	"fmt"
	"iter"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// packed is an EndpointSlice as a snapshot holds it: in the encoding of the Kubernetes API. A large
// cluster is mostly endpoints, and a decoded one is ten small objects. What reads slices reads
// those of a Service that has changed, and decoding them costs some microseconds.
type packed string

func pack(v *discoveryv1.EndpointSlice) packed {
	b, err := v.Marshal()
	if err != nil {
		panic(fmt.Sprintf("manifests: encode EndpointSlice %s/%s: %v", v.Namespace, v.Name, err)) // it has been decoded
	}
	return packed(b)
}

// packedSlice is an EndpointSlice on its way from a feed to the Store: encoded as soon as it arrives, so that a list of
// all of a large cluster is never decoded as a whole.
type packedSlice struct {
	metav1.ObjectMeta // the namespace and the name, nothing else
	service           string
	packed            packed
}

func packSlice(v *discoveryv1.EndpointSlice) *packedSlice {
	return &packedSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: v.Name},
		service:    v.Labels[discoveryv1.LabelServiceName], packed: pack(v),
	}
}

// compact gives obj as a feed passes it on: trimmed, and an EndpointSlice packed. Doing that twice is doing it once.
func compact(obj any) metav1.Object {
	if p, ok := obj.(*packedSlice); ok {
		return p
	}
	trimmed := trim(obj)
	if v, ok := trimmed.(*discoveryv1.EndpointSlice); ok {
		return packSlice(v)
	}
	return trimmed
}

// unpack gives a new object. Names that many endpoints have are the same string in all of them, so
// that a reader may keep one.
func (p packed) unpack() *discoveryv1.EndpointSlice {
	v := &discoveryv1.EndpointSlice{}
	if err := v.Unmarshal([]byte(p)); err != nil {
		panic(fmt.Sprintf("manifests: decode EndpointSlice: %v", err)) // pack has made it
	}
	for i := range v.Endpoints {
		e := &v.Endpoints[i]
		e.NodeName, e.Zone = internPointer(e.NodeName), internPointer(e.Zone)
	}
	return v
}

func unpackAll(all iter.Seq[packed]) iter.Seq[*discoveryv1.EndpointSlice] {
	return func(yield func(*discoveryv1.EndpointSlice) bool) {
		for p := range all {
			if !yield(p.unpack()) {
				return
			}
		}
	}
}
