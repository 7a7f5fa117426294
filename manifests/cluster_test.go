package manifests

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

// api is a fake API server: the two fake clients, kept equal, and a switch for errors. What
// needs a real one (streaming lists, field selectors, expiry) is proved in the e2e module.
type api struct {
	t     *testing.T
	typed *fake.Clientset
	names *metadatafake.FakeMetadataClient
	store *Store

	mu      sync.Mutex
	refuse  map[string]error // by "verb resource"
	watches map[string]int   // by resource and namespace
	begun   chan struct{}    // poked when a watch begins
	version atomic.Int64
}

func newAPI(t *testing.T) *api {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	_ = metav1.AddMetaToScheme(scheme)
	a := &api{
		t: t, typed: fake.NewClientset(), names: metadatafake.NewSimpleMetadataClient(scheme), store: NewStore(),
		refuse: map[string]error{}, watches: map[string]int{}, begun: make(chan struct{}, 100),
	}
	a.hook(&a.typed.Fake, a.typed.Tracker(), "")
	a.hook(&a.names.Fake, a.names.Tracker(), " metadata")
	return a
}

func (a *api) hook(f *clienttesting.Fake, tracker clienttesting.ObjectTracker, suffix string) {
	f.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		err := a.refused(action.GetVerb() + " " + action.GetResource().Resource)
		return err != nil, nil, err
	})
	f.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		if err := a.refused("watch " + action.GetResource().Resource); err != nil {
			return true, nil, err
		}
		w, err := tracker.Watch(action.GetResource(), action.GetNamespace())
		a.mu.Lock()
		a.watches[action.GetResource().Resource+suffix+" "+action.GetNamespace()]++
		a.mu.Unlock()
		a.begun <- struct{}{}
		return true, w, err
	})
}

func (a *api) refused(what string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refuse[what]
}

func (a *api) setRefused(what string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse[what] = err
}

func forbidden(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
}

// watched waits for a watch, because the fake loses what happens between list and watch.
func (a *api) watched(what ...string) {
	a.t.Helper()
	for _, w := range what {
		for {
			a.mu.Lock()
			n := a.watches[w]
			a.mu.Unlock()
			if n > 0 {
				break
			}
			select {
			case <-a.begun:
			case <-a.t.Context().Done():
				a.t.Fatal("no watch of " + w)
			}
		}
	}
}

func (a *api) run(namespaces ...string) *Cluster {
	a.t.Helper()
	return a.start(ClusterConfig{Client: a.typed, Metadata: a.names, Namespaces: namespaces})
}

func (a *api) start(config ClusterConfig) *Cluster {
	a.t.Helper()
	c := NewCluster(config)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, a.store) }()
	a.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			a.t.Error(err)
		}
	})
	return c
}

func (a *api) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

var (
	secretsGVR  = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	servicesGVR = schema.GroupVersionResource{Version: "v1", Resource: "services"}
)

// secret makes or changes a Secret, contents first, as a reader sees it.
func (a *api) secret(namespace, name, text string) {
	a.t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: string(rune('a' + a.version.Add(1)))}
	secret := &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"text": []byte(text)}}
	partial := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: meta}
	if _, err := a.typed.Tracker().Get(secretsGVR, namespace, name); err == nil {
		a.must(a.typed.Tracker().Update(secretsGVR, secret, namespace))
		a.must(a.names.Tracker().Update(secretsGVR, partial, namespace))
		return
	}
	a.must(a.typed.Tracker().Create(secretsGVR, secret, namespace))
	a.must(a.names.Tracker().Create(secretsGVR, partial, namespace))
}

func (a *api) deleteSecret(namespace, name string) {
	a.must(a.typed.Tracker().Delete(secretsGVR, namespace, name))
	a.must(a.names.Tracker().Delete(secretsGVR, namespace, name))
}

func (a *api) text(namespace, name, want string) Change {
	a.t.Helper()
	return eventually(a.t, a.store, "secret "+name+" is "+want, func(c Change) bool {
		s := c.Objects.Secret(namespace, name)
		return len(c.Pending) == 0 && s != nil && string(s.Data["text"]) == want
	})
}

func (a *api) absent(namespace, name string) {
	a.t.Helper()
	eventually(a.t, a.store, "no secret "+name, func(c Change) bool {
		return len(c.Pending) == 0 && c.Objects.Secret(namespace, name) == nil
	})
}

func wantSecret(names ...string) (refs []Ref) {
	for _, n := range names {
		refs = append(refs, Ref{KindSecret, "a", n})
	}
	return refs
}

func TestCluster_FollowsObjects(t *testing.T) {
	a := newAPI(t)
	a.must(a.typed.Tracker().Add(testService("a", "x")))
	a.must(a.typed.Tracker().Add(testSlice("a", "x-1", "x")))
	a.must(a.typed.Tracker().Add(&networkingv1.Ingress{ObjectMeta: named1("b", "i")}))
	a.must(a.typed.Tracker().Add(&networkingv1.IngressClass{ObjectMeta: named1("", "c")}))
	a.must(a.typed.Tracker().Add(&corev1.Namespace{ObjectMeta: named1("", "a")}))
	a.secret("a", "not wanted", "")
	a.run()
	c := eventually(t, a.store, "first view", func(Change) bool { return true })
	equal(t, "refs", refs(c), []string{"EndpointSlice a/x", "Ingress b/i", "IngressClass c", "Namespace a", "Service a/x"})
	a.watched("services ")
	a.must(a.typed.Tracker().Create(servicesGVR, testService("b", "y"), "b"))
	eventually(t, a.store, "created", func(c Change) bool { return c.Objects.Service("b", "y") != nil })
	a.must(a.typed.Tracker().Delete(servicesGVR, "a", "x"))
	eventually(t, a.store, "deleted", func(c Change) bool { return c.Objects.Service("a", "x") == nil })
}

func TestCluster_OpensWhenEverythingIsListed(t *testing.T) {
	a := newAPI(t)
	a.setRefused("list endpointslices", errors.New("away"))
	a.run()
	a.watched("ingresses ", "services ", "namespaces ", "ingressclasses ")
	if _, ok := a.store.Take(); ok {
		t.Fatal("half a view was served")
	}
	a.setRefused("list endpointslices", nil)
	eventually(t, a.store, "opens", func(Change) bool { return true })
}

func TestCluster_MissingPermission(t *testing.T) {
	a := newAPI(t)
	for _, r := range []string{"namespaces", "ingressclasses", "ingresses"} {
		a.setRefused("list "+r, forbidden(r))
	}
	a.run()
	a.watched("services ", "endpointslices ")
	look := time.NewTicker(time.Millisecond) // a closed Store does not say that it has problems
	defer look.Stop()
	for len(a.store.Problems()) < 3 {
		<-look.C
	}
	if _, ok := a.store.Take(); ok {
		t.Fatal("opened without Ingresses")
	}
	equal(t, "problem", a.store.Problems()[1].String(), "Access ingresses.networking.k8s.io: list: Portico may not list "+
		"ingresses.networking.k8s.io in all namespaces and does without, or waits; grant the verb \"list\" on ingresses.networking.k8s.io to its ServiceAccount, it keeps trying")
	a.setRefused("list ingresses", nil)
	eventually(t, a.store, "opens without the others", func(c Change) bool { return len(c.Problems) == 2 })
	a.must(a.typed.Tracker().Add(&networkingv1.IngressClass{ObjectMeta: named1("", "c")}))
	a.setRefused("list namespaces", nil)
	a.setRefused("list ingressclasses", nil)
	eventually(t, a.store, "has the others", func(c Change) bool {
		return len(c.Problems) == 0 && c.Objects.IngressClass("c") != nil
	})
}

// Neither an API server that does not know ServiceCIDRs nor a missing permission keeps anything back.
func TestCluster_NoServiceCIDRs(t *testing.T) {
	unknown := apierrors.NewGenericServerResponse(404, "list", schema.GroupResource{Group: "networking.k8s.io", Resource: "servicecidrs"}, "", "the server could not find the requested resource", 0, true)
	for name, err := range map[string]error{"": nil, "unknown": unknown, "forbidden": forbidden("servicecidrs")} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/12"}}}
			if err := a.typed.Tracker().Add(cidr); err != nil {
				t.Fatal(err)
			}
			a.setRefused("list servicecidrs", err)
			a.setRefused("watch servicecidrs", err)
			a.start(ClusterConfig{Client: a.typed, Node: "n"})
			want := map[bool]int{true: 1}[err == nil]
			eventually(t, a.store, "the view is complete", func(c Change) bool {
				got := 0
				for s := range c.Objects.ServiceCIDRs() {
					got += len(s.Spec.CIDRs)
				}
				return got == want
			})
		})
	}
}

// A kind that every API server knows is asked for again soon, whatever says that it is not found.
func TestCluster_NotFoundForAMoment(t *testing.T) {
	a := newAPI(t)
	asked := make(chan struct{}, 1)
	a.typed.PrependReactor("list", "ingressclasses", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case asked <- struct{}{}:
			return true, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "ingressclasses"}, "")
		default:
			return false, nil, nil
		}
	})
	a.must(a.typed.Tracker().Add(&networkingv1.IngressClass{ObjectMeta: named1("", "c")}))
	a.run()
	eventually(t, a.store, "has it", func(c Change) bool { return c.Objects.IngressClass("c") != nil })
	if len(asked) != 1 {
		t.Error("nobody was told that it is not found")
	}
}

func TestCluster_Secrets(t *testing.T) {
	a := newAPI(t)
	a.secret("a", "one", "1")
	a.secret("a", "other", "o")
	c := a.run()
	eventually(t, a.store, "opens", func(Change) bool { return true })
	a.watched("secrets metadata ")

	c.Want(wantSecret("one", "none"))
	// Pending, or settled already: never unknown and not pending.
	now := take(t, a.store)
	if _, pending := now.Pending[wantSecret("one")[0]]; !pending && now.Objects.Secret("a", "one") == nil {
		t.Error("a wanted Secret is neither pending nor there")
	}
	now = a.text("a", "one", "1")
	if now.Objects.Secret("a", "other") != nil {
		t.Error("a Secret is there that nobody wants")
	}
	a.secret("a", "one", "2")
	a.text("a", "one", "2")
	a.secret("a", "none", "now there is")
	a.text("a", "none", "now there is")
	a.deleteSecret("a", "none")
	a.absent("a", "none")
	c.Want(wantSecret("one", "other"))
	a.text("a", "other", "o")
	c.Want(wantSecret("other"))
	a.absent("a", "one")
	c.Want(nil)
	a.absent("a", "other")
}

func TestCluster_SecretsThatCannotBeFetched(t *testing.T) {
	a := newAPI(t)
	a.secret("a", "one", "1")
	a.secret("a", "two", "1")
	c := a.run()
	c.Want(wantSecret("one")) // before anything is known
	a.text("a", "one", "1")
	a.watched("secrets metadata ")

	a.setRefused("get secrets", forbidden("secrets"))
	a.secret("a", "one", "2")
	c.Want(wantSecret("one", "two"))
	got := eventually(t, a.store, "both are refused", func(c Change) bool {
		return len(c.Problems) == 1 && strings.Contains(c.Problems[0].Text, "get secrets a/one and 1 more")
	})
	equal(t, "last good content", string(got.Objects.Secret("a", "one").Data["text"]), "1")
	equal(t, "pending", got.Pending, map[Ref]struct{}{wantSecret("two")[0]: {}})
	a.setRefused("get secrets", nil)
	a.text("a", "one", "2")
	a.text("a", "two", "1")
	eventually(t, a.store, "no problem is left", func(c Change) bool { return len(c.Problems) == 0 })
}

func TestCluster_Namespaces(t *testing.T) {
	a := newAPI(t)
	for _, ns := range []string{"a", "b", "c"} {
		a.must(a.typed.Tracker().Add(testService(ns, "x")))
		a.must(a.typed.Tracker().Add(testSlice(ns, "x-1", "x")))
		a.secret(ns, "s", ns)
	}
	a.must(a.typed.Tracker().Add(&corev1.ConfigMap{ObjectMeta: named1("a", "m"), Data: map[string]string{"k": "v"}}))
	c := a.run("b", "a", "a")
	first := eventually(t, a.store, "opens", func(Change) bool { return true })
	equal(t, "services", names(first.Objects.Services()), []string{"a/x", "b/x"})

	outside := []Ref{{KindService, "c", "x"}, {KindSecret, "c", "s"}, {KindConfigMap, "a", "m"}, {KindSecret, "a", "s"}, {KindConfigMap, "d", "none"}}
	c.Want(outside)
	got := eventually(t, a.store, "single objects", func(c Change) bool { return len(c.Pending) == 0 })
	o := got.Objects
	if o.Service("c", "x") == nil || o.Secret("c", "s") == nil || o.ConfigMap("a", "m") == nil || o.Secret("a", "s") == nil || o.ConfigMap("d", "none") != nil {
		t.Errorf("an object is missing, or one too many: %v", refs(got))
	}
	equal(t, "slices came before", names(o.EndpointSlices("c", "x")), []string{"c/x-1"})
	c.Want(nil)
	got = eventually(t, a.store, "nothing of them is left", func(c Change) bool {
		return c.Objects.Service("c", "x") == nil && c.Objects.Secret("a", "s") == nil
	})
	equal(t, "services", names(got.Objects.Services()), []string{"a/x", "b/x"})
	if got.Objects.ConfigMap("a", "m") != nil || got.Objects.Secret("c", "s") != nil || len(names(got.Objects.EndpointSlices("c", "x"))) > 0 {
		t.Error("something is left")
	}
}

func TestClusterConfig_Validate(t *testing.T) {
	a := newAPI(t)
	for _, c := range []struct {
		config ClusterConfig
		want   string
	}{
		{ClusterConfig{}, "Client is not set"},
		{ClusterConfig{Client: a.typed}, "Metadata is not set"},
		{ClusterConfig{Client: a.typed, Metadata: a.names, Namespaces: []string{"a", ""}}, "empty name"},
	} {
		if err := NewCluster(c.config).Run(t.Context(), a.store); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestFeed_ARelistIsOneUpdateOfTheDifference(t *testing.T) {
	store := NewStore()
	f := &feed{resource: resource{kind: KindService}, to: newStoreSink(store, KindService), access: newAccess(store, nil), synced: store.Open}
	store.Put(testService("other", "feed's"))
	list := func(names ...string) []any {
		var l []any
		for _, n := range names {
			l = append(l, testService("a", n))
		}
		return l
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.Replace(list("x", "y", "z"), ""))
	take(t, store)
	changed := testService("a", "y")
	changed.Spec.ClusterIP = "10.0.0.1"
	changed.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m"}}
	must(f.Replace(append(list("x", "w"), changed), ""))
	c := take(t, store)
	equal(t, "refs", refs(c), []string{"Service a/w", "Service a/y", "Service a/z"})
	equal(t, "services", names(c.Objects.Services()), []string{"a/w", "a/x", "a/y", "other/feed's"})
	if c.Objects.Service("a", "y").ManagedFields != nil {
		t.Error("not trimmed")
	}
	must(f.Delete(testService("a", "w")))
	must(f.Update(testService("a", "v")))
	equal(t, "refs", refs(take(t, store)), []string{"Service a/v", "Service a/w"})
}

func TestStoreSink_NothingComesAfterClose(t *testing.T) {
	store := NewStore()
	store.Open()
	s := newStoreSink(store, KindService)
	s.put(testService("a", "x"))
	s.close()
	s.put(testService("a", "y"))
	s.replace([]metav1.Object{testService("a", "z")})
	s.remove(types.NamespacedName{Namespace: "a", Name: "x"})
	equal(t, "services", names(take(t, store).Objects.Services()), []string{})
}
