package ingress

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// sliceOf makes a slice with the port http 8080; each endpoint is an address and its
// conditions: r, s, t for ready, serving, terminating; upper case for true.
func sliceOf(family discoveryv1.AddressType, endpoints ...[2]string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		AddressType: family,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
	}
	for _, in := range endpoints {
		e := discoveryv1.Endpoint{Addresses: []string{in[0]}}
		for _, c := range in[1] {
			switch c {
			case 'r', 'R':
				e.Conditions.Ready = new(c == 'R')
			case 's', 'S':
				e.Conditions.Serving = new(c == 'S')
			case 't', 'T':
				e.Conditions.Terminating = new(c == 'T')
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func TestJudgeEndpoints(t *testing.T) {
	v4, v6 := discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6
	for _, tt := range []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		want   []endpointReason
	}{
		{"nothing said", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", ""})}, []endpointReason{endpointReady}},
		{"ready", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "RSt"})}, []endpointReason{endpointReady}},
		{"published though not ready", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "Rst"})}, []endpointReason{endpointReady}},
		{"not ready", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "rSt"})}, []endpointReason{endpointNotReady}},
		{"not serving", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "rsT"})}, []endpointReason{endpointNotServing}},
		{"draining, alone", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "rST"})}, []endpointReason{endpointDraining}},
		{"draining, serving not said", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "rT"})}, []endpointReason{endpointDraining}},
		{
			"draining, another ready in another slice",
			[]*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "rST"}), sliceOf(v6, [2]string{"fd00::1", "RSt"})},
			[]endpointReason{endpointSuperfluous, endpointReady},
		},
		{
			"twice, one terminating",
			[]*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "rST"}, [2]string{"10.0.0.1", "RSt"})},
			[]endpointReason{endpointDuplicate, endpointReady},
		},
		{
			"twice, the not terminating one is not ready",
			[]*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "rST"}), sliceOf(v4, [2]string{"10.0.0.1", "rSt"})},
			[]endpointReason{endpointDuplicate, endpointNotReady},
		},
		{
			"twice the same",
			[]*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"10.0.0.1", "RSt"}), sliceOf(v4, [2]string{"10.0.0.1", "RSt"})},
			[]endpointReason{endpointReady, endpointDuplicate},
		},
		{"FQDN", []*discoveryv1.EndpointSlice{sliceOf(discoveryv1.AddressTypeFQDN, [2]string{"a.example", "RSt"})}, nil},
		{"no address", []*discoveryv1.EndpointSlice{sliceOf(v4, [2]string{"a.example", "RSt"})}, []endpointReason{endpointBadAddress}},
		{"zone", []*discoveryv1.EndpointSlice{sliceOf(v6, [2]string{"fe80::1%eth0", "RSt"})}, []endpointReason{endpointBadAddress}},
		{"none", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []endpointReason
			for _, e := range judgeEndpoints(slices.Values(tt.slices), "http") {
				got = append(got, e.reason)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSlicePort(t *testing.T) {
	udp := corev1.ProtocolUDP
	s := &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{
		{Name: new("dns"), Port: new(int32(53)), Protocol: &udp},
		{Name: new("all")},
		{Name: new("zero"), Port: new(int32(0))},
		{Port: new(int32(8080))},
	}}
	for name, want := range map[string]uint16{"": 8080, "dns": 0, "all": 0, "zero": 0, "http": 0} {
		if got, ok := slicePort(s, name); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: got %d, %v, want %d", name, got, ok, want)
		}
	}
}
