package ingress

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// The check of a backend is what its routes ask for, whichever of them come and go.
func TestChecks(t *testing.T) {
	const fast, slow = "tcp 5s", "http 10s"
	c, store := testCompiler(testConfig()), manifests.NewStore()
	store.Open()
	store.Put(&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "portico"}, Spec: networkingv1.IngressClassSpec{Controller: "portico.dev/ingress"}})
	store.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
	for i, tt := range []struct {
		ingresses map[string]string
		want      string
	}{
		{map[string]string{"a": ""}, "off"},
		{map[string]string{"a": slow}, "http/,10s"},
		{map[string]string{"a": slow, "b": fast}, "tcp,5s"},
		{map[string]string{"a": slow, "b": fast, "c": fast}, "tcp,5s"},
		{map[string]string{"a": slow, "b": fast}, "tcp,5s"},
		{map[string]string{"a": slow, "b": slow}, "http/,10s"},
		{map[string]string{"a": "", "b": slow}, "http/,10s"},
		{map[string]string{"a": "", "b": ""}, "off"},
		{map[string]string{"a": fast}, "tcp,5s"},
		{map[string]string{}, "off"},
	} {
		for _, name := range []string{"a", "b", "c"} {
			asked, ok := tt.ingresses[name]
			if !ok {
				store.Delete(manifests.Ref{Kind: manifests.KindIngress, Namespace: "shop", Name: name})
				continue
			}
			store.Put(checkedIngress(name, asked))
		}
		change, _ := store.Take()
		c.note(change)
		c.build()
		c.clean()
		got := c.backends.Get("shop/web:80").Check()
		is := got.String()
		if got.Kind == router.CheckOff {
			is = "off"
		}
		if !strings.HasPrefix(is, tt.want) {
			t.Errorf("step %d, %v: check %s, want %s", i, tt.ingresses, is, tt.want)
		}
	}
	if len(c.checks) != 0 {
		t.Errorf("left over: %v", c.checks)
	}
}

// checkedIngress has a host of its own, and asks for a check: "kind interval".
func checkedIngress(name, asked string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	if kind, interval, ok := strings.Cut(asked, " "); ok {
		ing.Annotations = map[string]string{"portico.dev/health-check": kind, "portico.dev/health-check-interval": interval}
	}
	ing.Spec.IngressClassName = new("portico")
	ing.Spec.Rules = []networkingv1.IngressRule{{Host: name + ".example", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
		Paths: []networkingv1.HTTPIngressPath{{Path: "/", Backend: networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}}},
	}}}}
	return ing
}
