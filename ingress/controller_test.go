package ingress

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// rig is a Controller that runs in a bubble, and what it makes live.
type rig struct {
	t      *testing.T
	cfg    *Config
	c      *Controller
	live   atomic.Pointer[router.Table]
	swaps  int
	kinds  []ChangeKind
	mu     sync.Mutex
	wanted []manifests.Ref
}

// inBubble runs a test on a clock of its own that begins at testNow.
func inBubble(t *testing.T, f func(bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		time.Sleep(time.Until(testNow))
		f(bubble{t})
	})
}

type bubble struct{ t *testing.T }

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, cfg: testConfig()}
	r.cfg.SwapTable = func(table *router.Table) { r.live.Store(table); r.swaps++ }
	r.cfg.Want = func(refs []manifests.Ref) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wanted = slices.Clone(refs)
	}
	r.cfg.Observe = &Observer{ConfigChanged: func(kind ChangeKind, _, _ time.Duration) { r.kinds = append(r.kinds, kind) }}
	return r
}

// run starts the Controller; it ends with the test.
func (r *rig) run() {
	r.t.Helper()
	r.c = New(*r.cfg)
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- r.c.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	synctest.Wait()
}

// put stores objects, and waits until all is quiet.
func (r *rig) put(objects ...metav1.Object) {
	for _, o := range objects {
		r.cfg.Store.Put(o)
	}
	synctest.Wait()
}

func (r *rig) dump() string { return Dump(r.live.Load()) }

func ourClass() *networkingv1.IngressClass {
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "portico", UID: "class"}}
	class.Spec.Controller = "portico.dev/ingress"
	return class
}

func bigService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "big", Name: name, UID: "svc"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
}

func tlsSecret(t *testing.T, name string, hosts ...string) *corev1.Secret {
	t.Helper()
	pair := keyPair(t, "ecdsa", hosts)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "big", Name: name, UID: "secret"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: []byte(pair[0]), corev1.TLSPrivateKeyKey: []byte(pair[1])},
	}
}

func (r *rig) is(what string, got, want any) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestControllerFollowsAtTwoSpeeds(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newRig(t)
		r.run()
		r.put(ourClass(), bigIngress(1, "/api"), bigService("svc-1"), bigSlice("svc-1", 1, 1))
		r.is("swaps while the Store is closed", r.swaps, 0)
		r.is("ready", r.c.State().Ready, false)
		r.cfg.Store.Open()
		synctest.Wait()
		const want = "host-1.example /api Prefix big/ing-1 -> big/svc-1:80 [10.0.1.1:8080]\n" +
			"host-1.example / Prefix big/ing-1 -> big/svc-1:80 [10.0.1.1:8080]\n"
		r.is("table", r.dump(), want)
		state := r.c.State()
		r.is("ready", state.Ready, true)
		r.is("live table", state.Table == r.live.Load(), true)
		r.is("last change", state.LastChange.Equal(testNow), true)

		time.Sleep(time.Second)
		r.put(bigSlice("svc-1", 1, 3))
		r.is("endpoints", len(r.live.Load().Match([]byte("host-1.example"), []byte("/")).Backend.Endpoints()), 3)
		r.is("generation", r.c.State().Generation, state.Generation)
		r.is("last change", r.c.State().LastChange.Equal(testNow.Add(time.Second)), true)

		r.put(bigIngress(1, "/other"))
		r.is("generation", r.c.State().Generation, state.Generation+1)
		r.is("kinds", slices.Equal(r.kinds, []ChangeKind{ChangeStructure, ChangeEndpoints, ChangeStructure}), true)

		r.cfg.Store.Delete(manifests.Ref{Kind: manifests.KindIngressClass, Name: "portico"})
		synctest.Wait()
		r.is("table without its class", r.dump(), "")
		r.is("problems", len(r.c.State().Problems), 1)
		r.is("stays ready", r.c.State().Ready, true)
	})
}

func TestControllerWaitsForSecrets(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newRig(t)
		want := r.cfg.Want
		r.cfg.Want = func(refs []manifests.Ref) {
			want(refs)
			for _, ref := range refs {
				r.cfg.Store.SetPending(ref, true)
			}
		}
		tls := bigIngress(1, "/api")
		tls.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"host-1.example"}, SecretName: "cert"}}
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), bigIngress(2, "/api"), bigService("svc-1"), bigService("svc-2"))
		r.is("ready without anything pending", r.c.State().Ready, true)
		r.put(tls)
		r.is("wanted", r.wanted[0].String(), "Secret big/cert")
		r.is("host that waits", r.live.Load().Host("host-1.example") == nil, true)
		r.is("problems with what is not known yet", len(r.c.State().Problems), 0)
		r.is("the other host", r.live.Load().Host("host-2.example") == nil, false)
		r.put(tlsSecret(t, "cert", "host-1.example"))
		r.is("host with its Secret", r.live.Load().Host("host-1.example") == nil, false)
		r.is("certificate", len(r.cfg.Certificates.Load().Lookup("host-1.example")), 1)

		// One that is never known holds its host up for a while only.
		second := bigIngress(3, "/api")
		second.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"host-3.example"}, SecretName: "unknown"}}
		r.put(second)
		r.is("host that waits", r.live.Load().Host("host-3.example") == nil, true)
		time.Sleep(patience + time.Second)
		synctest.Wait()
		r.is("host that waited long enough", r.live.Load().Host("host-3.example") == nil, false)
		r.is("problem", slices.ContainsFunc(r.c.State().Problems, func(p manifests.Problem) bool {
			return strings.Contains(p.Text, "Secret big/unknown does not exist")
		}), true)
	})
}

func TestControllerReadyNeedsTheDefaultCertificate(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newRig(t)
		r.cfg.DefaultCertificate = parseName("big/default")
		want := r.cfg.Want
		r.cfg.Want = func(refs []manifests.Ref) {
			want(refs)
			r.cfg.Store.SetPending(refs[0], true)
		}
		r.cfg.Store.Open()
		r.run()
		r.is("ready", r.c.State().Ready, false)
		r.put(tlsSecret(t, "default", "x.example"))
		r.is("ready", r.c.State().Ready, true)
		r.is("default", r.cfg.Certificates.Load().Certificates()[0].Name, "big/default")
	})
}

func TestControllerResolvesExternalNames(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newRig(t)
		var mu sync.Mutex
		address, failure := "192.0.2.1", error(nil)
		set := func(a string, err error) {
			mu.Lock()
			defer mu.Unlock()
			address, failure = a, err
		}
		r.cfg.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			if host != "api.example" || failure != nil {
				return nil, failure
			}
			return []netip.Addr{netip.MustParseAddr(address)}, nil
		}
		svc := bigService("svc-1")
		svc.Spec.Type, svc.Spec.ExternalName = corev1.ServiceTypeExternalName, "api.example"
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), bigIngress(1, "/api"), svc)
		endpoints := func() string {
			return strings.Join(Routes(r.live.Load())[0].Endpoints, " ")
		}
		r.is("first", endpoints(), "192.0.2.1:80")
		r.is("ready", r.c.State().Ready, true)
		set("192.0.2.2", nil)
		time.Sleep(resolveEvery + time.Second)
		r.is("after a while", endpoints(), "192.0.2.2:80")
		set("", errors.New("down"))
		time.Sleep(resolveEvery)
		r.is("while DNS is down", endpoints(), "192.0.2.2:80")
		r.is("problems", len(r.c.State().Problems), 1)
		set("127.0.0.1", nil)
		time.Sleep(resolveEvery)
		r.is("rebound to loopback", endpoints(), "")
		r.put(bigService("svc-1"), bigSlice("svc-1", 1, 1))
		r.is("an ordinary Service again", endpoints(), "10.0.1.1:8080")
		r.is("problems", len(r.c.State().Problems), 0)
	})
}

func TestControllerForgetsWhatIsNotUsed(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newRig(t)
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), bigIngress(1, "/api"), bigIngress(2, "/api"), bigService("svc-1"), bigService("svc-2"))
		r.cfg.Store.Delete(manifests.Ref{Kind: manifests.KindIngress, Namespace: "big", Name: "ing-1"})
		time.Sleep(cleanAfter + time.Second)
		synctest.Wait()
		var names []string
		for b := range r.cfg.Backends.All() {
			names = append(names, b.Name())
		}
		r.is("backends", strings.Join(names, " "), "big/svc-2:80")
		stats := 0
		for range r.cfg.Stats.All() {
			stats++
		}
		r.is("counters", stats, 1)
	})
}

func TestControllerTellsWhatTheSourceSays(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newRig(t)
		r.cfg.Store.Open()
		r.run()
		file := manifests.Ref{Kind: manifests.KindFile, Name: "x.yaml"}
		r.cfg.Store.SetProblems(file, manifests.Problem{Object: file, Field: "line 1", Text: "broken"})
		synctest.Wait()
		r.is("problems", len(r.c.State().Problems), 1)
		r.cfg.Store.SetProblems(file)
		synctest.Wait()
		r.is("problems", len(r.c.State().Problems), 0)
	})
}

func TestControllerNoticesThatCertificatesEnd(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newRig(t)
		ing := bigIngress(1, "/api")
		ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"host-1.example"}, SecretName: "cert"}}
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), ing, bigService("svc-1"), tlsSecret(t, "cert", "host-1.example"))
		r.is("problems", len(r.c.State().Problems), 0)
		time.Sleep(360 * 24 * time.Hour)
		synctest.Wait()
		problems := r.c.State().Problems
		if len(problems) != 1 || !strings.Contains(problems[0].Text, "expires on") {
			t.Errorf("got %v", problems)
		}
	})
}

func TestConfigValidate(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Store = nil },
		func(c *Config) { c.Backends = nil },
		func(c *Config) { c.Stats = nil },
		func(c *Config) { c.SwapTable = nil },
		func(c *Config) { c.Certificates = nil },
		func(c *Config) { c.ControllerClass = "" },
		func(c *Config) { c.IngressClass = "" },
		func(c *Config) { c.PublishService, c.PublishAddresses = parseName("a/b"), []string{"192.0.2.1"} },
	} {
		cfg := testConfig()
		change(cfg)
		if err := New(*cfg).Run(t.Context()); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line", err)
		}
	}
	if err := testConfig().Validate(); err != nil {
		t.Error(err)
	}
}
