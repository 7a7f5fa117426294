package ingress

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// world makes random objects from few names, so that they meet.
type world struct {
	t     testing.TB
	rand  *rand.Rand
	store *manifests.Store
	// names are what the resolver answers.
	names map[string][]string
}

func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), store: manifests.NewStore(),
		names: map[string][]string{"x.example": {"192.0.2.1"}, "y.example": {"127.0.0.1", "192.0.2.2"}},
	}
	w.store.Open()
	return w
}

func pick[T any](w *world, of ...T) T { return of[w.rand.IntN(len(of))] }

func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

func (w *world) namespace() string { return pick(w, "n1", "n1", "n2") }

// step changes one object, or a few.
func (w *world) step() {
	for range 1 + w.rand.IntN(3) {
		switch w.rand.IntN(10) {
		case 0, 1, 2, 3:
			w.ingress()
		case 4, 5:
			w.service()
		case 6, 7:
			w.slice()
		case 8:
			w.secret()
		case 9:
			w.class()
		}
	}
}

func (w *world) meta(names ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: w.namespace(), Name: pick(w, names...)}
}

// put stores the object, or now and then removes the one of that name.
func (w *world) put(kind string, obj metav1.Object) {
	if w.chance(25) {
		w.store.Delete(manifests.Ref{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()})
		return
	}
	w.store.Put(obj)
}

func (w *world) class() {
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: pick(w, "portico", "other", "second")}}
	class.Spec.Controller = pick(w, "portico.dev/ingress", "portico.dev/ingress", "example.com/other")
	if w.chance(30) {
		class.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
	}
	w.put(manifests.KindIngressClass, class)
}

func (w *world) ingress() {
	ing := &networkingv1.Ingress{ObjectMeta: w.meta("a", "b", "c", "d", "e")}
	ing.CreationTimestamp = metav1.NewTime(testNow.Add(time.Duration(w.rand.IntN(3)) * time.Hour))
	if w.chance(80) {
		ing.Spec.IngressClassName = new(pick(w, "portico", "portico", "portico", "second", "other"))
	}
	if w.chance(10) {
		ing.DeletionTimestamp = new(metav1.NewTime(testNow))
	}
	if w.chance(30) {
		ing.Annotations = map[string]string{
			pick(w, "portico.dev/ssl-redirect", "portico.dev/force-ssl-redirect", "nginx.ingress.kubernetes.io/auth-url", "portico.dev/x"): pick(w, "false", "true"),
		}
	}
	if w.chance(25) {
		ing.Annotations = map[string]string{
			"portico.dev/ssl-passthrough":                        pick(w, "false", "false", "true"),
			"nginx.ingress.kubernetes.io/auth-tls-secret":        pick(w, "n1/c1", "n1/c2", "n2/c1", "c1"),
			"nginx.ingress.kubernetes.io/auth-tls-verify-client": pick(w, "on", "on", "optional", "off"),
			"nginx.ingress.kubernetes.io/auth-tls-match-cn":      pick(w, "", "", "CN=a"),
			"nginx.ingress.kubernetes.io/force-ssl-redirect":     pick(w, "false", "true"),
		}
	}
	if w.chance(20) {
		ing.Annotations = map[string]string{"portico.dev/health-check": pick(w, "http", "tcp"), "portico.dev/load-balance": "ewma"}
	}
	if w.chance(30) {
		b := w.backend()
		ing.Spec.DefaultBackend = &b
	}
	for range w.rand.IntN(4) {
		ing.Spec.Rules = append(ing.Spec.Rules, w.rule())
	}
	for range w.rand.IntN(3) {
		ing.Spec.TLS = append(ing.Spec.TLS, w.tls())
	}
	w.put(manifests.KindIngress, ing)
}

func (w *world) host() string {
	return pick(w, "a.example", "b.example", "x.a.example", "*.a.example", "*.example", "", "bad_host")
}

func (w *world) rule() networkingv1.IngressRule {
	r := networkingv1.IngressRule{Host: w.host()}
	if w.chance(90) {
		r.HTTP = &networkingv1.HTTPIngressRuleValue{}
		for range 1 + w.rand.IntN(3) {
			r.HTTP.Paths = append(r.HTTP.Paths, networkingv1.HTTPIngressPath{
				Path:     pick(w, "/", "/foo", "/foo/", "/bar", "bad", "/.well-known/acme-challenge/x"),
				PathType: new(pick(w, networkingv1.PathTypePrefix, networkingv1.PathTypeExact)),
				Backend:  w.backend(),
			})
		}
	}
	return r
}

func (w *world) backend() networkingv1.IngressBackend {
	s := &networkingv1.IngressServiceBackend{Name: pick(w, "s1", "s2", "s3")}
	if w.chance(50) {
		s.Port.Name = pick(w, "http", "admin")
	} else {
		s.Port.Number = pick[int32](w, 80, 81)
	}
	return networkingv1.IngressBackend{Service: s}
}

func (w *world) tls() networkingv1.IngressTLS {
	t := networkingv1.IngressTLS{SecretName: pick(w, "c1", "c2", "c3", "")}
	for range w.rand.IntN(3) {
		t.Hosts = append(t.Hosts, w.host())
	}
	return t
}

func (w *world) service() {
	s := &corev1.Service{ObjectMeta: w.meta("s1", "s2", "s3")}
	if w.chance(25) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, pick(w, "x.example", "y.example", "z.example", "192.0.2.9", "bad name")
	}
	if w.chance(90) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: pick(w, "http", "web"), Port: pick[int32](w, 80, 81), TargetPort: intstr.FromInt32(8080)})
	}
	if w.chance(40) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 9000})
	}
	w.put(manifests.KindService, s)
}

func (w *world) slice() {
	s := &discoveryv1.EndpointSlice{ObjectMeta: w.meta("e1", "e2", "e3", "e4"), AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: pick(w, "s1", "s2", "s3")}
	for _, name := range []string{"http", "web", "admin"} {
		if w.chance(70) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(name), Port: new(pick[int32](w, 8080, 9090))})
		}
	}
	for range w.rand.IntN(4) {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.0.0.%d", w.rand.IntN(5))},
			Conditions: discoveryv1.EndpointConditions{Ready: new(w.chance(60)), Serving: new(w.chance(80)), Terminating: new(w.chance(30))},
		})
	}
	w.put(manifests.KindEndpointSlice, s)
}

func (w *world) secret() {
	s := &corev1.Secret{ObjectMeta: w.meta("c1", "c2", "c3"), Type: pick(w, corev1.SecretTypeTLS, corev1.SecretTypeTLS, corev1.SecretTypeTLS, corev1.SecretTypeOpaque)}
	pair := keyPair(w.t, pick(w, "ecdsa", "soon", "rsa"), pick(w, []string{"a.example"}, []string{"*.a.example", "b.example"}, []string{"*.example"}))
	s.Data = map[string][]byte{corev1.TLSCertKey: []byte(pair[0]), corev1.TLSPrivateKeyKey: []byte(pair[1])}
	if w.chance(15) {
		s.Data[corev1.TLSPrivateKeyKey] = nil
	}
	if w.chance(70) {
		s.Data[certs.FieldAuthority] = []byte(pick(w, pair[0], "nothing of the kind"))
	}
	w.put(manifests.KindSecret, s)
}

// view is everything that users can tell apart.
type view struct {
	Table, Problems, Certificates, Policies string
	Live                                    map[string]int
	Checks                                  map[string]map[router.HealthCheck]int
}

func viewOf(c *compiler) view {
	return view{Dump(c.table), dumpProblems(c), dumpCertificates(c), dumpPolicies(c), c.live, c.checks}
}

// dumpPolicies is what is asked of the clients of some names.
func dumpPolicies(c *compiler) string {
	var b strings.Builder
	for _, name := range []string{"a.example", "b.example", "x.a.example", "free.a.example", "free.example", "elsewhere"} {
		if p := c.set.Policy(name); p != nil {
			fmt.Fprintln(&b, name, p.Fingerprint())
		}
	}
	return b.String()
}

// everything is a change that names all objects, as the first one does.
func everything(objects *manifests.Objects) manifests.Change {
	c := manifests.Change{Objects: objects}
	add := func(kind string, o metav1.Object) {
		c.Refs = append(c.Refs, manifests.Ref{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()})
	}
	for o := range objects.IngressClasses() {
		add(manifests.KindIngressClass, o)
	}
	for o := range objects.Ingresses() {
		add(manifests.KindIngress, o)
	}
	for o := range objects.Services() {
		add(manifests.KindService, o)
	}
	return c
}

func worldConfig() *Config {
	cfg := testConfig()
	cfg.DefaultBackend = parseName("n1/s2")
	cfg.DefaultCertificate = parseName("n1/c2")
	return cfg
}

// Change after change comes to the same as compiling the last state from scratch.
func TestIncrementalEqualsScratch(t *testing.T) {
	seeds, steps := uint64(60), 60
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		w := newWorld(t, seed)
		step := testCompiler(worldConfig())
		for i := range steps {
			w.step()
			change, _ := w.store.Take()
			settle(step, change, w.names)
			if w.chance(20) {
				step.clean()
			}
			scratch := testCompiler(worldConfig())
			settle(scratch, everything(change.Objects), w.names)
			if diff := cmp.Diff(viewOf(scratch), viewOf(step)); diff != "" {
				t.Fatalf("seed %d, step %d: scratch (-) and incremental (+) differ:\n%s", seed, i, diff)
			}
			checkNothingLeaks(t, step, scratch)
		}
	}
}

// checkNothingLeaks compares what is kept with what a fresh compile keeps.
func checkNothingLeaks(t *testing.T, step, scratch *compiler) {
	t.Helper()
	sizes := func(c *compiler) map[string]int {
		uses := 0
		for _, s := range c.services {
			for _, p := range s.ports {
				uses += len(p.users)
			}
		}
		return map[string]int{
			"ingresses": len(c.ingresses), "hosts": len(c.hosts), "services": len(c.services), "uses of ports": uses,
			"externals": len(c.externals), "secrets": len(c.secrets), "TLS hosts": len(c.tlsHosts), "names below": len(c.below), "shields": len(c.guards.shields), "catch-alls": len(c.catchAll),
			"problems": len(c.problems.buckets),
		}
	}
	if diff := cmp.Diff(sizes(scratch), sizes(step)); diff != "" {
		t.Fatalf("scratch (-) and incremental (+) keep different things:\n%s", diff)
	}
}

// Whatever was pending on the way, and in whichever order it came, makes no difference.
func TestPendingSecretsMakeNoDifferenceInTheEnd(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, 1000+seed)
		step := testCompiler(worldConfig())
		var change manifests.Change
		for range 30 {
			w.step()
			change, _ = w.store.Take()
			change.Pending = map[manifests.Ref]struct{}{}
			for _, name := range []string{"c1", "c2", "c3"} {
				if w.chance(40) {
					change.Pending[manifests.Ref{Kind: manifests.KindSecret, Namespace: "n1", Name: name}] = struct{}{}
				}
			}
			settle(step, change, w.names)
		}
		change.Pending, change.Refs = nil, nil
		for _, name := range []string{"c1", "c2", "c3"} {
			change.Refs = append(change.Refs, manifests.Ref{Kind: manifests.KindSecret, Namespace: "n1", Name: name})
		}
		settle(step, change, w.names)
		scratch := testCompiler(worldConfig())
		settle(scratch, everything(change.Objects), w.names)
		if diff := cmp.Diff(viewOf(scratch), viewOf(step)); diff != "" {
			t.Fatalf("seed %d: scratch (-) and incremental (+) differ:\n%s", seed, diff)
		}
	}
}
