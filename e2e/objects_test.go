package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/e2e/suite"
)

// rule is one path of an Ingress.
type rule struct {
	host, path string
	kind       networkingv1.PathType // empty: Prefix
	backend    string                // service, service:80 or service:name; without a port it is http
}

// newIngress describes an Ingress of Portico's class. Rules with the same host
// that follow one another are one rule.
func newIngress(name string, rules ...rule) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       networkingv1.IngressSpec{IngressClassName: new(porticoClass)},
	}
	for i, r := range rules {
		if r.kind == "" {
			r.kind = networkingv1.PathTypePrefix
		}
		if i == 0 || rules[i-1].host != r.host {
			ing.Spec.Rules = append(ing.Spec.Rules, networkingv1.IngressRule{Host: r.host, IngressRuleValue: networkingv1.IngressRuleValue{
				HTTP: &networkingv1.HTTPIngressRuleValue{},
			}})
		}
		h := ing.Spec.Rules[len(ing.Spec.Rules)-1].HTTP
		h.Paths = append(h.Paths, networkingv1.HTTPIngressPath{Path: r.path, PathType: &r.kind, Backend: *backendOf(r.backend)})
	}
	return ing
}

// backendOf reads rule.backend.
func backendOf(s string) *networkingv1.IngressBackend {
	name, port, _ := strings.Cut(s, ":")
	svc := &networkingv1.IngressServiceBackend{Name: name}
	switch n, err := strconv.Atoi(port); {
	case err == nil:
		svc.Port.Number = int32(n)
	case port != "":
		svc.Port.Name = port
	default:
		svc.Port.Name = "http"
	}
	return &networkingv1.IngressBackend{Service: svc}
}

// createIngress creates an Ingress and returns what the API server made of it.
func createIngress(t *testing.T, namespace string, ing *networkingv1.Ingress) *networkingv1.Ingress {
	t.Helper()
	made, err := client.NetworkingV1().Ingresses(namespace).Create(t.Context(), ing, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// patchIngress changes an Ingress by a JSON merge patch.
func patchIngress(t *testing.T, namespace, name, patch string) {
	t.Helper()
	if _, err := client.NetworkingV1().Ingresses(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func deleteIngress(t *testing.T, namespace, name string) {
	t.Helper()
	if err := client.NetworkingV1().Ingresses(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// The echo Pods that tests share which are about Ingresses and not about Pods.
// In its own namespace each test has Services that lead there.
var colours = []string{"blue", "green", "red"}

var painted = struct {
	sync.Once
	err       error
	namespace string
	ips       map[string]string
}{}

// paint returns the IP addresses of the shared Pods by their names.
func paint(t *testing.T) map[string]string {
	t.Helper()
	painted.Do(func() { painted.namespace, painted.ips, painted.err = paintOnce(context.Background()) })
	if painted.err != nil {
		t.Fatal("shared Pods: ", painted.err)
	}
	return painted.ips
}

func paintOnce(ctx context.Context) (namespace string, ips map[string]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "colours-", Labels: map[string]string{testLabel: ""}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", nil, err
	}
	var yaml []string
	for _, name := range colours {
		yaml = append(yaml, echoBackend{name: name, replicas: 1}.yaml())
	}
	if _, err := up.KubectlInput(ctx, strings.Join(yaml, "\n---\n"), "apply", "-n", ns.Name, "-f", "-"); err != nil {
		return "", nil, err
	}
	if _, err := up.Kubectl(ctx, "wait", "--for=condition=Available", "deployments", "--all", "-n", ns.Name, "--timeout=90s"); err != nil {
		return "", nil, err
	}
	pods, err := client.CoreV1().Pods(ns.Name).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", nil, err
	}
	ips = map[string]string{}
	for _, p := range pods.Items {
		ips[p.Labels["app"]] = p.Status.PodIP
	}
	return ns.Name, ips, nil
}

// paintServices makes a Service of each colour in a namespace.
func paintServices(t *testing.T, namespace string) {
	t.Helper()
	for name, ip := range paint(t) {
		createService(t, namespace, name, corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}})
		createSlice(t, namespace, name, name, 8080, endpoint{ip: ip})
	}
}

func createService(t *testing.T, namespace, name string, spec corev1.ServiceSpec) {
	t.Helper()
	_, err := client.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// endpoint is one of an EndpointSlice. Without conditions it is ready.
type endpoint struct {
	ip         string
	conditions discoveryv1.EndpointConditions
}

func newSlice(name, service string, port int32, endpoints ...endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: &port}},
	}
	for _, e := range endpoints {
		if strings.Contains(e.ip, ":") {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{e.ip}, Conditions: e.conditions})
	}
	return s
}

func createSlice(t *testing.T, namespace, name, service string, port int32, endpoints ...endpoint) {
	t.Helper()
	if _, err := client.DiscoveryV1().EndpointSlices(namespace).Create(t.Context(), newSlice(name, service, port, endpoints...), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func updateSlice(t *testing.T, namespace, name, service string, port int32, endpoints ...endpoint) {
	t.Helper()
	if _, err := client.DiscoveryV1().EndpointSlices(namespace).Update(t.Context(), newSlice(name, service, port, endpoints...), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

var markers atomic.Int64

// settle waits until all replicas serve what Ingresses said up to now: it makes
// one more, and waits until that is there.
func (e *edge) settle(t *testing.T) {
	t.Helper()
	paint(t)
	name := fmt.Sprintf("marker-%d", markers.Add(1))
	host := name + ".test"
	createIngress(t, painted.namespace, newIngress(name, rule{host: host, path: "/", backend: "blue"}))
	suite.Wait(t, 15*time.Second, "all replicas are up to date", func(ctx context.Context) string {
		for _, r := range e.all() {
			v, err := r.table(ctx)
			if err != nil {
				return err.Error()
			}
			if !slices.ContainsFunc(v.Hosts, func(h hostView) bool { return h.Host == host }) {
				return r.pod + " is behind"
			}
		}
		return ""
	})
	deleteIngress(t, painted.namespace, name)
}
