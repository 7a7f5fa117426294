package ingress

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

const many = 10_000

// bigStore has n Ingresses of two paths each, with a host and a Service of their own.
func bigStore(n int) *manifests.Store {
	store := manifests.NewStore()
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "portico"}}
	class.Spec.Controller = "portico.dev/ingress"
	store.Put(class)
	for i := range n {
		store.Put(bigIngress(i, "/api"))
		name := fmt.Sprintf("svc-%d", i)
		store.Put(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "big", Name: name},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		})
		store.Put(bigSlice(name, i, 2))
	}
	store.Open()
	return store
}

func bigIngress(i int, second string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "big", Name: fmt.Sprintf("ing-%d", i)}}
	ing.Spec.IngressClassName = new("portico")
	prefix := networkingv1.PathTypePrefix
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: fmt.Sprintf("svc-%d", i), Port: networkingv1.ServiceBackendPort{Number: 80},
	}}
	ing.Spec.Rules = []networkingv1.IngressRule{{Host: fmt.Sprintf("host-%d.example", i)}}
	ing.Spec.Rules[0].HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
		{Path: "/", PathType: &prefix, Backend: backend},
		{Path: second, PathType: &prefix, Backend: backend},
	}}
	return ing
}

func bigSlice(service string, i, endpoints int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "big", Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
	}
	for e := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, e+1)}})
	}
	return s
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func compileAll(change manifests.Change) *compiler {
	c := testCompiler(testConfig())
	c.note(change)
	c.build()
	c.problems.all()
	return c
}

// BenchmarkCompile10k compiles 10,000 Ingresses of two paths from scratch: under 1 s, and
// under 60 MB kept (the objects themselves not counted).
func BenchmarkCompile10k(b *testing.B) {
	change, _ := bigStore(many).Take()
	b.ReportAllocs()
	for b.Loop() {
		compileAll(change)
	}
	b.StopTimer()
	before := heap()
	c := compileAll(change)
	b.ReportMetric(float64(heap()-before)/(1<<20), "MB-kept")
	runtime.KeepAlive(c)
	runtime.KeepAlive(change)
}

// BenchmarkChangeOne changes one of 10,000 Ingresses: under 2 ms to the next table.
func BenchmarkChangeOne(b *testing.B) {
	store := bigStore(many)
	change, _ := store.Take()
	c := compileAll(change)
	paths := []string{"/one", "/two"}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		store.Put(bigIngress(4711, paths[i%2]))
		change, _ := store.Take()
		c.note(change)
		if c.build().table == nil {
			b.Fatal("no new table")
		}
		c.problems.all()
	}
}

// BenchmarkChangeEndpoints changes the endpoints of one of 10,000 Services.
func BenchmarkChangeEndpoints(b *testing.B) {
	store := bigStore(many)
	change, _ := store.Take()
	c := compileAll(change)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		store.Put(bigSlice("svc-4711", 4711, 3+i%2))
		change, _ := store.Take()
		if n := c.note(change); !n.endpoints || n.structure {
			b.Fatalf("noted %+v", n)
		}
	}
}

// One change makes one Host anew; all others are the very same.
func TestChangeSharesTheRest(t *testing.T) {
	store := bigStore(100)
	change, _ := store.Take()
	c := compileAll(change)
	before := hostsOf(c.table)
	store.Put(bigIngress(7, "/changed"))
	change, _ = store.Take()
	c.note(change)
	c.build()
	for name, host := range hostsOf(c.table) {
		if same := host == before[name]; same == (name == "host-7.example") {
			t.Errorf("%s: same %v", name, same)
		}
	}
}

func hostsOf(t *router.Table) map[string]*router.Host {
	hosts := map[string]*router.Host{}
	for h := range t.Hosts() {
		hosts[h.Name()] = h
	}
	return hosts
}

// Neither endpoints, nor our own status writes, nor a Service that comes to the same, make a
// new table.
func TestWhatMakesNoTable(t *testing.T) {
	store := bigStore(3)
	change, _ := store.Take()
	c := compileAll(change)
	for name, put := range map[string]func(){
		"endpoints": func() { store.Put(bigSlice("svc-1", 1, 5)) },
		"status": func() {
			ing := bigIngress(1, "/api")
			ing.ResourceVersion = "2"
			ing.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}
			store.Put(ing)
		},
		"port name": func() {
			store.Put(&corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "big", Name: "svc-1"},
				Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "more", Port: 81}}},
			})
		},
		"service of nobody": func() {
			store.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "big", Name: "nobody"}})
		},
	} {
		put()
		change, _ := store.Take()
		c.note(change)
		if b := c.build(); b.table != nil || b.set != nil {
			t.Errorf("%s: a new table or set", name)
		}
	}
	if n := len(c.table.Host("host-1.example").Routes()[0].Backend.Endpoints()); n != 5 {
		t.Errorf("%d endpoints, want 5", n)
	}
}
