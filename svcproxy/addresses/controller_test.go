package addresses

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func lbService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "uid-" + "1"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
}

type controllerCase struct {
	t      *testing.T
	client *fake.Clientset
	c      *Controller
	pools  []*Pool
}

func newControllerCase(t *testing.T, services ...*corev1.Service) *controllerCase {
	t.Helper()
	k := &controllerCase{t: t, client: fake.NewClientset()}
	for _, svc := range services {
		if err := k.client.Tracker().Add(svc); err != nil {
			t.Fatal(err)
		}
	}
	k.pools, _ = NewPools(nil, []string{"192.0.2.1-192.0.2.2"})
	k.restart()
	return k
}

func (k *controllerCase) restart() {
	c, err := NewController(Config{Client: k.client})
	if err != nil {
		k.t.Fatal(err)
	}
	k.c = c
}

func (k *controllerCase) services() []*corev1.Service {
	list, err := k.client.CoreV1().Services("").List(k.t.Context(), metav1.ListOptions{})
	if err != nil {
		k.t.Fatal(err)
	}
	var all []*corev1.Service
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return all
}

func (k *controllerCase) sync() {
	k.t.Helper()
	if _, err := k.c.Sync(k.t.Context(), State{Services: k.services(), Pools: k.pools}); err != nil {
		k.t.Fatal(err)
	}
}

func (k *controllerCase) get(name string) *corev1.Service {
	k.t.Helper()
	for _, svc := range k.services() {
		if svc.Name == name {
			return svc
		}
	}
	k.t.Fatalf("no Service %s", name)
	return nil
}

func (k *controllerCase) events() []string {
	list, err := k.client.EventsV1().Events("").List(k.t.Context(), metav1.ListOptions{})
	if err != nil {
		k.t.Fatal(err)
	}
	var all []string
	for _, e := range list.Items {
		all = append(all, e.Type+" "+e.Reason+" "+e.Regarding.Name+": "+e.Note)
	}
	slices.Sort(all)
	return all
}

func address(svc *corev1.Service) string {
	var all []string
	for _, in := range svc.Status.LoadBalancer.Ingress {
		all = append(all, in.IP)
	}
	return strings.Join(all, " ")
}

func TestControllerWritesStatus(t *testing.T) {
	k := newControllerCase(t, lbService("web"))
	k.sync()
	svc := k.get("web")
	if address(svc) != "192.0.2.1" || *svc.Status.LoadBalancer.Ingress[0].IPMode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("status is %+v", svc.Status)
	}
	if !slices.Contains(svc.Finalizers, Finalizer) || svc.Annotations[AnnotationFrom] != FlagPool {
		t.Errorf("finalizers %v, annotations %v", svc.Finalizers, svc.Annotations)
	}
	if got := k.events(); len(got) != 1 || !strings.HasPrefix(got[0], "Normal AddressAssigned web: Address 192.0.2.1") {
		t.Errorf("events %q", got)
	}
	k.client.ClearActions()
	k.sync()
	k.restart()
	k.sync()
	for _, a := range k.client.Actions() {
		if a.GetVerb() != "list" {
			t.Errorf("nothing has changed, and yet: %s %s", a.GetVerb(), a.GetResource().Resource)
		}
	}
}

func TestControllerGivesBack(t *testing.T) {
	k := newControllerCase(t, lbService("a"), lbService("b"), lbService("c"))
	k.sync()
	if address(k.get("c")) != "" {
		t.Fatalf("three of two addresses")
	}
	if got := k.events(); !slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, "Warning NoAddress c: no free IPv4") }) {
		t.Errorf("events %q", got)
	}
	// A deleted Service stays until its finalizer is taken away.
	a := k.get("a")
	now := metav1.Now()
	a.DeletionTimestamp = &now
	if err := k.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("services"), a, "default"); err != nil {
		t.Fatal(err)
	}
	k.sync()
	for _, svc := range k.services() {
		if svc.Name == "a" && slices.Contains(svc.Finalizers, Finalizer) {
			t.Errorf("the finalizer is still there: %v", svc.Finalizers)
		}
	}
	k.sync()
	if got := address(k.get("c")); got != "192.0.2.1" {
		t.Errorf("what was given back is not given out: %q", got)
	}
	// One that becomes a ClusterIP loses the address, and our traces.
	b := k.get("b")
	b.Spec.Type = corev1.ServiceTypeClusterIP
	if err := k.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("services"), b, "default"); err != nil {
		t.Fatal(err)
	}
	k.sync()
	if b = k.get("b"); address(b) != "" || len(b.Finalizers) > 0 || len(b.Annotations) > 0 {
		t.Errorf("left behind: %q %v %v", address(b), b.Finalizers, b.Annotations)
	}
}

// An address is given out again only when it is in no status any more: neither in that of a Service that is deleted and
// that somebody else's finalizer keeps, nor in one that cannot be written, nor under a new leader.
func TestReleaseFollowsTheWrite(t *testing.T) {
	for name, leave := range map[string]func(*corev1.Service){
		"deleted":         func(svc *corev1.Service) { svc.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time} },
		"of another type": func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP },
		"elsewhere":       func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = "192.0.2.2" },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := lbService("a"), lbService("b")
			a.Finalizers = []string{"example.com/hold"}
			k := newControllerCase(t, a)
			k.sync()
			if err := k.client.Tracker().Add(b); err != nil {
				t.Fatal(err)
			}
			k.change("b", func(svc *corev1.Service) {
				svc.Annotations = map[string]string{"metallb.io/loadBalancerIPs": "192.0.2.1"}
			})
			k.change("a", leave)
			fails := errors.New("the API server is away")
			k.client.PrependReactor("patch", "services", func(action clienttesting.Action) (bool, runtime.Object, error) {
				return fails != nil && action.GetSubresource() == "status" && action.(clienttesting.PatchAction).GetName() == "a", nil, fails
			})
			for _, restart := range []bool{false, false, true, false} {
				if restart {
					k.restart()
				}
				if _, err := k.c.Sync(t.Context(), State{Services: k.services(), Pools: k.pools}); err == nil {
					t.Fatal("the write did not fail")
				}
				if got := address(k.get("a")) + "," + address(k.get("b")); got != "192.0.2.1," {
					t.Fatalf("restart %v: a and b have %s", restart, got)
				}
			}
			fails = apierrors.NewConflict(kschema.GroupResource{Resource: "services"}, "a", nil)
			k.sync()
			if got := address(k.get("a")) + "," + address(k.get("b")); got != "192.0.2.1," {
				t.Fatalf("after a conflict a and b have %s", got)
			}
			fails = nil
			k.sync()
			k.sync()
			if got := address(k.get("b")); got != "192.0.2.1" {
				t.Errorf("b has %q", got)
			}
			if a := k.get("a"); address(a) == "192.0.2.1" || name != "elsewhere" && !slices.Equal(a.Finalizers, []string{"example.com/hold"}) {
				t.Errorf("a has %q, %v", address(a), a.Finalizers)
			}
		})
	}
}

// What Services have is theirs also if the first of them are looked at before there are pools.
func TestTakeOverWhenPoolsCome(t *testing.T) {
	before := lbService("before")
	before.Annotations = map[string]string{"metallb.io/ip-allocated-from-pool": "p"}
	before.Status.LoadBalancer = corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}}
	k := newControllerCase(t, lbService("a"), before)
	if _, err := k.c.Sync(t.Context(), State{}); err != nil {
		t.Fatal(err)
	}
	k.sync()
	if got := address(k.get("a")) + "," + address(k.get("before")); got != "192.0.2.2,192.0.2.1" {
		t.Errorf("a and before have %s", got)
	}
}

// A new leader takes over a Service that has our annotation and a wish, and no address.
func TestTakeOverOfNothing(t *testing.T) {
	svc := lbService("a")
	svc.Annotations = map[string]string{AnnotationFrom: FlagPool, "metallb.io/loadBalancerIPs": "192.0.2"}
	k := newControllerCase(t, svc)
	k.sync()
	if got := address(k.get("a")); got != "" {
		t.Errorf("got %s", got)
	}
}

// Services of another controller keep what that one wrote.
func TestControllerLeavesOthersAlone(t *testing.T) {
	other := lbService("cloud")
	class := "cloud.example/lb"
	other.Spec.LoadBalancerClass = &class
	other.Finalizers = []string{Finalizer}
	other.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example"}}
	k := newControllerCase(t, other)
	k.sync()
	if svc := k.get("cloud"); len(svc.Finalizers) != 1 || svc.Status.LoadBalancer.Ingress[0].Hostname != "lb.example" {
		t.Errorf("changed: %v %v", svc.Finalizers, svc.Status)
	}
}

// What is of a class that others serve is not touched at all: neither what another Portico wrote, nor the finalizer of a cloud's, whatever
// annotation a user gives it.
func TestControllerLeavesOtherClassesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		class     string
		onlyClass bool
		deleted   bool
	}{
		"of another Portico":                 {class: "example.com/internal"},
		"without a class":                    {onlyClass: true},
		"deleted":                            {class: "cloud.example/lb", deleted: true},
		"without a class, which are others'": {onlyClass: true, deleted: true},
	} {
		t.Run(name, func(t *testing.T) {
			svc := lbService("a")
			k := newControllerCase(t, svc)
			k.sync() // by the other Portico
			k.change("a", func(svc *corev1.Service) {
				if c.class != "" {
					svc.Spec.LoadBalancerClass = &c.class
				}
				if c.deleted { // and a user has put the annotation there
					svc.DeletionTimestamp, svc.Status.Conditions = new(metav1.Now()), nil
				}
			})
			if err := k.client.Tracker().Add(lbService("b")); err != nil {
				t.Fatal(err)
			}
			k.change("b", func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = new(Class) })
			k.restart()
			k.c.allocator.Default = !c.onlyClass
			k.client.ClearActions()
			k.sync()
			k.sync()
			for _, p := range k.writes() {
				if p.GetName() == "a" {
					t.Errorf("written: %s", p.GetPatch())
				}
			}
			if a := k.get("a"); address(a) != "192.0.2.1" || len(a.Finalizers) != 1 || len(a.Annotations) != 1 || Given(a) == c.deleted {
				t.Errorf("%s %v %v", address(a), a.Finalizers, a.Annotations)
			}
			if got := address(k.get("b")); got != "192.0.2.2" {
				t.Errorf("b has %q, the address that is in another status", got)
			}
		})
	}
}

// One that another Portico gave its address, or this one when it served another class, can be deleted.
func TestDeletedOfAnotherClass(t *testing.T) {
	k := newControllerCase(t, lbService("a"))
	k.sync()
	k.change("a", func(svc *corev1.Service) {
		svc.Spec.LoadBalancerClass, svc.DeletionTimestamp = new("example.com/before"), new(metav1.Now())
		svc.Finalizers = append(svc.Finalizers, "example.com/hold")
	})
	k.restart()
	k.sync()
	if a := k.get("a"); address(a) != "" || slices.Contains(a.Finalizers, Finalizer) {
		t.Errorf("%s %v", address(a), a.Finalizers)
	}
}

// What another load balancer gave a Service without a class stays as it is, and nothing of ours comes to it but an explanation.
func TestControllerLeavesForeignAddressesAlone(t *testing.T) {
	svc := lbService("klipper")
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.7"}}
	k := newControllerCase(t, svc)
	k.sync()
	k.sync()
	got := k.get("klipper")
	if address(got) != "10.0.0.7" || len(got.Finalizers)+len(got.Annotations) > 0 {
		t.Errorf("changed: %s %v %v", address(got), got.Finalizers, got.Annotations)
	}
	if c := conditionIn(got); c == nil || c.Status != "False" || c.Reason != "AddressOfAnother" {
		t.Errorf("condition %+v", c)
	}
	if got := k.events(); len(got) != 1 || !strings.HasPrefix(got[0], "Warning AddressOfAnother klipper: status.loadBalancer.ingress: it is another load balancer's") {
		t.Errorf("events %q", got)
	}
	// The other one leaves it.
	k.change("klipper", func(svc *corev1.Service) { svc.Status.LoadBalancer.Ingress = nil })
	k.sync()
	if got := k.get("klipper"); address(got) != "192.0.2.1" || conditionIn(got).Reason != "Assigned" {
		t.Errorf("%s %v", address(got), got.Status.Conditions)
	}
}

// Another load balancer that writes over our address is not written over in turn.
func TestControllerFightsNoDuel(t *testing.T) {
	k := newControllerCase(t, lbService("klipper"))
	k.sync()
	k.change("klipper", func(svc *corev1.Service) {
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.7"}}
	})
	k.sync()
	k.client.ClearActions()
	for _, restart := range []bool{false, true, false} {
		if restart {
			k.restart()
		}
		k.sync()
	}
	if got := k.writes(); len(got) > 0 || address(k.get("klipper")) != "10.0.0.7" || Given(k.get("klipper")) {
		t.Errorf("%d more writes; %s", len(got), address(k.get("klipper")))
	}
}

func TestPoolsOfConfigMap(t *testing.T) {
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "portico", Name: "pools"},
		Data:       map[string]string{"pools": "b: {addresses: [192.0.2.0/24], autoAssign: false}\na: {addresses: [198.51.100.1-198.51.100.9]}\n"},
	}
	pools, problems := PoolsOf(cm)
	if len(problems) > 0 || len(pools) != 2 || pools[0].Name != "a" || *pools[1].Spec.AutoAssign {
		t.Errorf("got %+v, %v", pools, problems)
	}
	cm.Data["pools"] = "a: {adresses: [192.0.2.0/24]}"
	if _, problems := PoolsOf(cm); len(problems) != 1 || !strings.Contains(problems[0].Text, "adresses") {
		t.Errorf("a misspelt field: %v", problems)
	}
}

// What is wrong with a pool, an annotation or a port is an Event on that object, once, and says what to do.
func TestProblemsAreEvents(t *testing.T) {
	wrong, first, clash := lbService("wrong"), lbService("first"), lbService("second")
	wrong.Annotations = map[string]string{"metallb.io/loadBalancerIPs": "192.0.2"}
	for _, svc := range []*corev1.Service{first, clash} {
		svc.Annotations = map[string]string{"metallb.io/allow-shared-ip": "k", "metallb.io/loadBalancerIPs": "192.0.2.1"}
		svc.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
	}
	k := newControllerCase(t, wrong, first, clash)
	_, problems := NewPools([]IPAddressPool{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "metallb", Name: "bad"}, Spec: IPAddressPoolSpec{Addresses: []string{"192.0.2.0/40"}},
	}}, nil)
	for range 2 {
		if _, err := k.c.Sync(t.Context(), State{Services: k.services(), Pools: k.pools, PoolProblems: problems}); err != nil {
			t.Fatal(err)
		}
	}
	got := k.events()
	want := []string{
		"Normal AddressAssigned first: Address 192.0.2.1",
		`Warning BadPool bad: spec.addresses[0]: "192.0.2.0/40" is not a CIDR, as 192.0.2.0/24 is`,
		"Warning NoAddress second: metadata.annotations[metallb.io/loadBalancerIPs]: port 80/TCP of 192.0.2.1 is that of Service default/first; take another port or another address",
		`Warning NoAddress wrong: metadata.annotations[metallb.io/loadBalancerIPs]: "192.0.2" is not an IP address`,
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("events\n%s", strings.Join(got, "\n"))
	}
}

// An Event that the API server will never take fails no Sync, and is not tried again; any other is.
func TestEventsThatCannotBeWritten(t *testing.T) {
	events := kschema.GroupResource{Group: "events.k8s.io", Resource: "events"}
	ending := apierrors.NewForbidden(events, "x", errors.New("the namespace is being terminated"))
	ending.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for _, c := range []struct {
		err   error
		fails bool
		tries int
	}{
		{apierrors.NewForbidden(events, "x", errors.New("no role allows it")), false, 1},
		{ending, false, 1},
		{apierrors.NewNotFound(kschema.GroupResource{Resource: "namespaces"}, "default"), false, 1},
		{apierrors.NewInvalid(kschema.GroupKind{Kind: "Event"}, "x", nil), false, 1},
		{apierrors.NewServiceUnavailable("later"), true, 2},
		{errors.New("connection refused"), true, 2},
	} {
		wrong := lbService("wrong")
		wrong.Annotations = map[string]string{"metallb.io/loadBalancerIPs": "192.0.2"}
		k := newControllerCase(t, wrong)
		tries := 0
		k.client.PrependReactor("create", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
			tries++
			return true, nil, c.err
		})
		for range 2 {
			if _, err := k.c.Sync(t.Context(), State{Services: k.services(), Pools: k.pools}); (err != nil) != c.fails {
				t.Errorf("%v: Sync says %v", c.err, err)
			}
		}
		if tries != c.tries {
			t.Errorf("%v: tried %d times, want %d", c.err, tries, c.tries)
		}
	}
}
