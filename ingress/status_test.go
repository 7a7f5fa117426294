package ingress

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

func TestDecideStatus(t *testing.T) {
	ours, other := addressesOf([]string{"192.0.2.1"}, nil), addressesOf([]string{"192.0.2.9"}, nil)
	old := addressesOf([]string{"192.0.2.2"}, nil)
	for _, tt := range []struct {
		name string
		in   statusCase
		want statusVerdict
	}{
		{"served, nothing there", statusCase{served: true, wasServed: true, wanted: ours}, statusWrite},
		{"served, right", statusCase{served: true, wanted: ours, current: ours}, statusRight},
		{"served, of another before us", statusCase{served: true, wanted: ours, current: other}, statusWrite},
		{"served, address not known", statusCase{served: true, current: nil}, statusUnknown},
		{"served, address not known any more", statusCase{served: true, current: ours, written: ours, wrote: true}, statusUnknown},
		{"served, our address changed", statusCase{served: true, wanted: ours, current: old, written: old, wrote: true, patient: true}, statusWrite},
		{"somebody changed what we wrote", statusCase{served: true, wanted: ours, current: other, written: ours, wrote: true, patient: true}, statusContended},
		{"somebody cleared what we wrote", statusCase{served: true, wanted: ours, written: ours, wrote: true, patient: true}, statusContended},
		{"and a while has passed", statusCase{served: true, wanted: ours, current: other, written: ours, wrote: true}, statusWrite},
		{"not served, nothing there", statusCase{wasServed: true, wanted: ours}, statusRight},
		{"not served any more, ours there", statusCase{wasServed: true, wanted: ours, current: ours}, statusClear},
		{"not served any more, what we wrote there", statusCase{wasServed: true, wanted: ours, current: old, written: old, wrote: true}, statusClear},
		{"not served any more, another's there", statusCase{wasServed: true, wanted: ours, current: other, written: ours, wrote: true}, statusForeign},
		{"never served, another's there", statusCase{wanted: ours, current: other}, statusForeign},
		{"never served, the same address there", statusCase{wanted: ours, current: ours}, statusForeign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := decideStatus(tt.in); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestAddressesOf(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fixed []string
		svc   *corev1.Service
		want  []string
	}{
		{name: "none"},
		{name: "fixed", fixed: []string{"lb.example", "192.0.2.2", "192.0.2.1", "192.0.2.1"}, want: []string{"lb.example", "192.0.2.1", "192.0.2.2"}},
		{name: "load balancer", svc: service(corev1.ServiceTypeLoadBalancer, "192.0.2.5", "lb.example"), want: []string{"lb.example", "192.0.2.5", "198.51.100.1"}},
		{name: "pending load balancer", svc: service(corev1.ServiceTypeLoadBalancer), want: []string{"198.51.100.1"}},
		{name: "cluster IP", svc: service(corev1.ServiceTypeClusterIP), want: []string{"10.96.0.1", "198.51.100.1"}},
		{name: "node port", svc: service(corev1.ServiceTypeNodePort), want: []string{"198.51.100.1"}},
		{name: "external name", svc: service(corev1.ServiceTypeExternalName), want: []string{"ext.example"}},
		{name: "headless", svc: &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "None"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, a := range addressesOf(tt.fixed, tt.svc) {
				got = append(got, a.IP+a.Hostname)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func service(kind corev1.ServiceType, ingress ...string) *corev1.Service {
	s := &corev1.Service{Spec: corev1.ServiceSpec{Type: kind, ClusterIP: "10.96.0.1", ExternalIPs: []string{"198.51.100.1"}, ExternalName: "ext.example"}}
	for _, text := range ingress {
		in := corev1.LoadBalancerIngress{IP: text}
		if text == "lb.example" {
			in = corev1.LoadBalancerIngress{Hostname: text}
		}
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, in)
	}
	return s
}

func TestSortedAddressesIgnoresPorts(t *testing.T) {
	with := sortedAddresses([]networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1", Ports: []networkingv1.IngressPortStatus{{Port: 80}}}})
	if !with.equal(addressesOf([]string{"192.0.2.1"}, nil)) {
		t.Errorf("got %v", with)
	}
}
