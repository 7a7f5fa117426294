package manifests

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a feed passes on is the object, and passing it on once more changes nothing.
func TestCompact(t *testing.T) {
	slice := testSlice("a", "web-1", "web")
	slice.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	p, ok := compact(slice).(*packedSlice)
	if !ok || p.Namespace != "a" || p.Name != "web-1" || p.service != "web" {
		t.Fatalf("%+v", p)
	}
	if again := compact(p); again != metav1.Object(p) {
		t.Errorf("once more: %v", again)
	}
	if v := p.packed.unpack(); v.Name != "web-1" || v.ManagedFields != nil {
		t.Errorf("%+v", v)
	}
}

// Of a list after a pause only what is another EndpointSlice than before is a change.
func TestListOfTheSameSlicesIsNoChange(t *testing.T) {
	s := NewStore()
	s.Open()
	sink := newStoreSink(s, KindEndpointSlice)
	list := func(address string) (changed int) {
		one, other := testSlice("a", "web-1", "web"), testSlice("a", "api-1", "api")
		other.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{address}}}
		sink.replace([]metav1.Object{compact(one), compact(other)})
		c, _ := s.Take()
		return len(c.Refs)
	}
	for i, c := range []struct {
		address string
		want    int
	}{{"10.0.0.1", 2}, {"10.0.0.1", 0}, {"10.0.0.2", 1}} {
		if got := list(c.address); got != c.want {
			t.Errorf("list %d: %d changes, want %d", i, got, c.want)
		}
	}
}
