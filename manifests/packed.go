package manifests

import (
	"fmt"
	"iter"

	discoveryv1 "k8s.io/api/discovery/v1"
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
