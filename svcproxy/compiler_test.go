package svcproxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
)

func newService(name, clusterIP string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if change != nil {
		change(s)
	}
	return s
}

func newSlice(service, suffix string, addresses ...string) *discoveryv1.EndpointSlice {
	name, port, protocol, node := "", int32(8080), corev1.ProtocolTCP, "n"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "ns", Name: service + suffix, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a, "10.9.9.9"}, NodeName: &node})
	}
	return s
}

// compileAll gives what a fresh compiler makes of some objects.
func compileAll(t testing.TB, objects ...metav1.Object) (*compiler, *manifests.Store, Delta) {
	t.Helper()
	store := manifests.NewStore()
	store.Open()
	for _, o := range objects {
		store.Put(o)
	}
	c := newCompiler(Rules{NodeName: "n"})
	change, _ := store.Take()
	return c, store, c.apply(change)
}

func TestFrontends(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*corev1.Service)
		want    []string
		problem string
	}{
		{name: "cluster IP", want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready"}},
		{
			name: "NodePort", change: func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = "NodePort", 30080 },
			want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready", "NodePort *:30080 reject: no endpoint is ready"},
		},
		{
			name: "what is left of a NodePort", change: func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 30080 },
			want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready"},
		},
		{name: "what is left of a load balancer", change: func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
		}, want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready"}},
		{
			name: "the same address twice", change: func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.1", "192.0.2.1", "172.30.0.1"} },
			want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready", "ExternalIP 192.0.2.1:80 reject: no endpoint is ready"},
		},
		{
			name: "no address", change: func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.001"} },
			want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready"}, problem: `"192.0.2.001" is no IP address`,
		},
		{
			name: "loopback", change: func(s *corev1.Service) {
				s.Spec.ExternalIPs = []string{"127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.169.254"}
			},
			want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready"}, problem: "no Service may have it",
		},
		{
			name: "of the other family", change: func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"2001:db8::1"} },
			want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready"},
		},
		{
			name: "a bad range", change: func(s *corev1.Service) {
				s.Spec.Type, s.Spec.LoadBalancerSourceRanges = "LoadBalancer", []string{"10.0.0.0"}
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
			}, want: []string{"ClusterIP 172.30.0.1:80 reject: no endpoint is ready", "LoadBalancer 192.0.2.1:80 restricted reject: no endpoint is ready"},
			problem: `"10.0.0.0" is no range and lets nobody in`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, d := compileAll(t, newService("s", "172.30.0.1", c.change))
			var got []string
			for _, f := range d.Put[0].Ports[0].Frontends {
				r := ""
				if f.Restricted {
					r = "restricted "
				}
				got = append(got, fmt.Sprintf("%s %v %s%s: %s", f.Source, f, r, f.Action, f.Why))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			problems := fmt.Sprint(d.Put[0].Problems)
			if c.problem == "" != (len(d.Put[0].Problems) == 0) || !strings.Contains(problems, c.problem) {
				t.Errorf("problems %v, want %q", problems, c.problem)
			}
		})
	}
}

func TestEndpointsOfSlices(t *testing.T) {
	terminating := newSlice("s", "-b", "10.0.0.1")
	no, yes := false, true
	terminating.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
	fqdn := newSlice("s", "-c", "example.com")
	fqdn.AddressType = discoveryv1.AddressTypeFQDN
	portless := newSlice("s", "-d", "10.0.0.7")
	portless.Ports[0].Port = nil
	headless := newSlice("s", "-e", "10.0.0.8")
	headless.Labels[corev1.IsHeadlessService] = ""
	otherProtocol := newSlice("s", "-f", "10.0.0.9")
	udp := corev1.ProtocolUDP
	otherProtocol.Ports[0].Protocol = &udp
	nameless := newSlice("s", "-g", "10.0.0.3")
	nameless.Ports[0].Name, nameless.Ports[0].Protocol = nil, nil
	_, _, d := compileAll(t, newService("s", "172.30.0.1", nil),
		newSlice("s", "-a", "10.0.0.2", "10.0.0.1", "127.0.0.1", "nonsense", "::ffff:10.0.0.6", "2001:db8::1"),
		terminating, fqdn, portless, headless, otherProtocol, nameless)
	got := fmt.Sprint(d.Put[0].Ports[0].Endpoints)
	if want := "[10.0.0.1:8080 (ready) 10.0.0.2:8080 (ready) 10.0.0.3:8080 (ready) 127.0.0.1:8080 (the address cannot be that of an endpoint)]"; got != want {
		t.Errorf("endpoints %s\nwant      %s", got, want)
	}
}

// One changed EndpointSlice compiles one Service, whatever the number of others.
func TestOneChangeCompilesOneService(t *testing.T) {
	var objects []metav1.Object
	for i := range 500 {
		name := fmt.Sprintf("s%d", i)
		objects = append(objects, newService(name, netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)}).String(), nil), newSlice(name, "", "10.0.0.1"))
	}
	c, store, all := compileAll(t, objects...)
	if len(all.Put) != 500 {
		t.Fatalf("%d Services", len(all.Put))
	}
	store.Put(newSlice("s7", "", "10.0.0.2"))
	change, _ := store.Take()
	d := c.apply(change)
	if len(d.Put) != 1 || d.Put[0].Name != "s7" || fmt.Sprint(d.Put[0].Ports[0].Endpoints) != "[10.0.0.2:8080 (ready)]" {
		t.Errorf("%+v", d)
	}
	store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: "s7"})
	change, _ = store.Take()
	if d = c.apply(change); len(d.Put) != 0 || fmt.Sprint(d.Delete, d.Gone) != "[ns/s7:/TCP/IPv4] [ns/s7]" {
		t.Errorf("%+v", d)
	}
}

func TestHealthCheckAnswers(t *testing.T) {
	local := func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "LoadBalancer", "Local", 32000
		s.Spec.Ports = []corev1.ServicePort{{Port: 80}, {Port: 81}}
	}
	terminating := newSlice("s", "", "10.0.0.1")
	no, yes := false, true
	terminating.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
	for _, c := range []struct {
		name    string
		slice   *discoveryv1.EndpointSlice
		healthy bool
		code    int
		n       int
	}{
		{"two addresses", newSlice("s", "", "10.0.0.1", "10.0.0.2", "10.0.0.1"), true, 200, 2},
		{"terminating does not count", terminating, true, 503, 0},
		{"nothing", newSlice("s", ""), true, 503, 0},
		{"not healthy", newSlice("s", "", "10.0.0.1"), false, 503, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, d := compileAll(t, newService("s", "172.30.0.1", local), c.slice)
			s := d.Put[0]
			w := httptest.NewRecorder()
			(&healthState{s.Namespace, s.Name, s.HealthCheck.LocalEndpoints[false]}).answer(w, c.healthy)
			want := fmt.Sprintf("{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"s\"\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %v\n}", c.n, c.healthy)
			if w.Code != c.code || w.Body.String() != want {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if diff := cmp.Diff(http.Header{
				"Content-Type": {"application/json"}, "X-Content-Type-Options": {"nosniff"}, "X-Load-Balancing-Endpoint-Weight": {fmt.Sprint(c.n)},
			}, w.Header()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReservedPorts(t *testing.T) {
	for _, c := range []struct{ before, after string }{
		{"", "30000-32767"},
		{"80,443", "80,443,30000-32767"},
		{"29999,31000-40000", "29999-40000"},
	} {
		all, err := parseReserved(c.before + "\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := formatReserved(append(all, PortRange{30000, 32767})); got != c.after {
			t.Errorf("%q becomes %q, want %q", c.before, got, c.after)
		}
	}
	for _, bad := range []string{"", "a", "0", "2-1", "1-70000", "-1"} {
		if r, err := ParsePortRange(bad); err == nil {
			t.Errorf("%q is %v", bad, r)
		}
	}
}
