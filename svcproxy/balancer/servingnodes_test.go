package balancer

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A node counts if its data plane has an endpoint to send to, in the family of the address.
func TestServingNodesAreThoseOfTheDataPlane(t *testing.T) {
	yes, no := new(true), new(false)
	slice := func(family discoveryv1.AddressType, node, address string, change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{
			AddressType: family, Ports: []discoveryv1.EndpointPort{{Port: new(int32(8080))}},
			Endpoints: []discoveryv1.Endpoint{{NodeName: &node, Addresses: []string{address, "10.0.0.99"}}},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	conditions := func(ready, serving, terminating *bool) func(*discoveryv1.EndpointSlice) {
		return func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}
		}
	}
	const v4, v6 = discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6
	for name, c := range map[string]struct {
		slices    []*discoveryv1.EndpointSlice
		want, six []string
	}{
		"nothing said":                  {[]*discoveryv1.EndpointSlice{slice(v4, "a", "10.0.0.1", nil)}, []string{"a"}, nil},
		"serving not said, terminating": {[]*discoveryv1.EndpointSlice{slice(v4, "a", "10.0.0.1", conditions(no, nil, yes))}, []string{"a"}, nil},
		"serving, not terminating":      {[]*discoveryv1.EndpointSlice{slice(v4, "a", "10.0.0.1", conditions(no, yes, no))}, nil, nil},
		"serves no more":                {[]*discoveryv1.EndpointSlice{slice(v4, "a", "10.0.0.1", conditions(no, no, yes))}, nil, nil},
		"names":                         {[]*discoveryv1.EndpointSlice{slice(discoveryv1.AddressTypeFQDN, "a", "example.com", nil)}, nil, nil},
		"headless": {[]*discoveryv1.EndpointSlice{slice(v4, "a", "10.0.0.1", func(s *discoveryv1.EndpointSlice) {
			s.Labels = map[string]string{corev1.IsHeadlessService: ""}
		})}, nil, nil},
		"without a port":      {[]*discoveryv1.EndpointSlice{slice(v4, "a", "10.0.0.1", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = nil })}, nil, nil},
		"without an address":  {[]*discoveryv1.EndpointSlice{slice(v4, "a", "", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = nil })}, nil, nil},
		"no address":          {[]*discoveryv1.EndpointSlice{slice(v4, "a", "nonsense", nil)}, nil, nil},
		"of the other family": {[]*discoveryv1.EndpointSlice{slice(v4, "a", "fd00::1", nil), slice(v6, "b", "10.0.0.1", nil)}, nil, nil},
		"loopback and such":   {[]*discoveryv1.EndpointSlice{slice(v4, "a", "127.0.0.1", nil), slice(v4, "b", "169.254.1.1", nil), slice(v6, "c", "ff02::1", nil), slice(v6, "d", "::", nil), slice(v6, "e", "::ffff:10.0.0.1", nil)}, nil, nil},
		"each family for itself": {[]*discoveryv1.EndpointSlice{
			slice(v4, "a", "10.0.0.1", nil), slice(v6, "b", "fd00::1", nil), slice(v4, "c", "10.0.0.2", conditions(no, yes, yes)), slice(v6, "a", "fd00::2", conditions(no, yes, yes)),
		}, []string{"a"}, []string{"b"}},
	} {
		got, ok := claimOf(balanced("p", "192.0.2.1", "2001:db8::1"), slices.Values(c.slices))
		if diff := cmp.Diff([][]string{c.want, c.six}, [][]string{got.serving, got.serving6}); !ok || diff != "" {
			t.Errorf("%s: %v %s", name, ok, diff)
		}
		all := settings{}
		p := all.pooled([]string{"192.0.2.0/24", "2001:db8::/64"})
		got.pool = "flags"
		desired, _, _ := all.desired(&p, map[string]serviceClaim{"x": got})
		for addr, want := range map[string][]string{"192.0.2.1": c.want, "2001:db8::1": c.six} {
			if claim, ok := desired.Claims[netip.MustParseAddr(addr)]; !ok || !slices.Equal(claim.Serving, want) {
				t.Errorf("%s: %s is served by %v (%v), want %v", name, addr, claim.Serving, ok, want)
			}
		}
	}
}
