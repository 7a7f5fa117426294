package balancer

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
)

// cluster is a Balancer that is not running, told of what is in a Store.
type cluster struct {
	*Balancer
	store      *manifests.Store
	namespaces cache.SharedIndexInformer
	problems   []manifests.Problem
}

func newCluster(t testing.TB, plain int) *cluster {
	t.Helper()
	c := &cluster{store: manifests.NewStore()}
	client := fake.NewClientset()
	var err error
	c.Balancer, err = New(Config{
		Client: client, Dynamic: noDynamic{}, Node: "n", Namespace: "portico", Pools: []string{"192.0.2.0/24"},
		Problems: func() []manifests.Problem { return c.problems },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.namespaces = cache.NewSharedIndexInformer(&cache.ListWatch{}, &corev1.Namespace{}, 0, nil)
	for i := range plain {
		c.store.Put(service(fmt.Sprintf("plain-%d", i), corev1.ServiceTypeClusterIP, nil))
	}
	c.store.Open()
	c.tell()
	return c
}

type noDynamic struct{ dynamic.Interface }

// tell hands on what has changed.
func (c *cluster) tell() {
	change, _ := c.store.Take()
	c.Change(change)
}

func (c *cluster) put(svc *corev1.Service) {
	c.store.Put(svc)
	c.tell()
}

// round does what the leader does when it is poked; false, if there is nothing to do.
func (c *cluster) round(t testing.TB) (services []string, due bool) {
	t.Helper()
	if due = c.due(); !due {
		return nil, false
	}
	s, ok := c.state(c.namespaces, c.unserved())
	if !ok {
		t.Fatal("no state")
	}
	for _, svc := range s.Services {
		services = append(services, svc.Name)
	}
	return services, true
}

func service(name string, typ corev1.ServiceType, annotations map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Annotations: annotations},
		Spec:       corev1.ServiceSpec{Type: typ},
	}
}

// Among ten thousand Services the leader looks at those that have to do with addresses, and at
// none of them when another one changes.
func TestTheLeaderLooksAtLoadBalancersAlone(t *testing.T) {
	c := newCluster(t, 10_000)
	was := map[string]string{addresses.AnnotationFrom: "pool"}
	for _, step := range []struct {
		name   string
		change func()
		due    bool
		want   string
	}{
		{"nothing but others", func() {}, false, "[]"},
		{"one that wants an address", func() { c.put(service("b", corev1.ServiceTypeLoadBalancer, nil)) }, true, "[b]"},
		{"another", func() { c.put(service("a", corev1.ServiceTypeLoadBalancer, nil)) }, true, "[a b]"},
		{"one of the others", func() { c.put(service("plain-7", corev1.ServiceTypeNodePort, nil)) }, false, "[]"},
		{"one that goes", func() {
			c.store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: "plain-8"})
			c.tell()
		}, false, "[]"},
		{"one that has an address to give back", func() { c.put(service("b", corev1.ServiceTypeClusterIP, was)) }, true, "[a b]"},
		{"that has given it back", func() { c.put(service("b", corev1.ServiceTypeClusterIP, nil)) }, true, "[a]"},
		{"that has nothing any more", func() { c.put(service("b", corev1.ServiceTypeNodePort, nil)) }, false, "[]"},
		{"one that waited for an address, and was told so", func() {
			told := service("b", corev1.ServiceTypeClusterIP, nil)
			told.Status.Conditions = []metav1.Condition{{Type: addresses.ConditionAssigned, Status: metav1.ConditionFalse}}
			c.put(told)
		}, true, "[a b]"},
		{"that is told nothing any more", func() { c.put(service("b", corev1.ServiceTypeClusterIP, nil)) }, true, "[a]"},
		{"another pool", c.resourceChanged, true, "[a]"},
		{"nothing", func() {}, false, "[]"},
		{"the last", func() {
			c.store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: "a"})
			c.tell()
		}, true, "[]"},
	} {
		step.change()
		got, due := c.round(t)
		if fmt.Sprint(got) != step.want || due != step.due {
			t.Errorf("%s: looked at %v, %v, want %s, %v", step.name, got, due, step.want, step.due)
		}
		if n := len(c.candidates); n > 2 {
			t.Errorf("%s: %d candidates", step.name, n)
		}
	}
}

// A problem of a Service without an address is told with the Service's UID.
func TestProblemsOfOthers(t *testing.T) {
	c := newCluster(t, 10)
	bad := service("bad", corev1.ServiceTypeClusterIP, nil)
	bad.UID = "42"
	ref := manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: "bad"}
	c.problems = []manifests.Problem{{Object: ref, Field: "spec.externalIPs", Text: "no"}}
	c.put(bad)
	s, ok := c.state(c.namespaces, c.unserved())
	if !ok || len(s.Unserved) != 1 || s.UIDs[ref] != "42" {
		t.Errorf("%v %+v", ok, s)
	}
}

// Without a pool LoadBalancer Services are somebody else's, but for those that something was written to: a user's annotation on
// one of them has nothing written to all others.
func TestNoPools(t *testing.T) {
	c := newCluster(t, 0)
	c.cfg.Pools = nil
	c.put(service("a", corev1.ServiceTypeLoadBalancer, nil))
	if got, due := c.round(t); len(got) != 0 || !due {
		t.Errorf("looked at %v, %v", got, due)
	}
	c.put(service("b", corev1.ServiceTypeLoadBalancer, map[string]string{addresses.AnnotationFrom: "pool"}))
	if got, _ := c.round(t); fmt.Sprint(got) != "[b]" {
		t.Errorf("looked at %v, want b alone", got)
	}
}

// BenchmarkPlainChange is what the leader does about a changed Service that has no address.
func BenchmarkPlainChange(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCluster(b, n)
			c.round(b)
			for b.Loop() {
				c.put(service("plain-7", corev1.ServiceTypeClusterIP, nil))
				c.unserved()
				if c.due() {
					b.Fatal("a round for nothing")
				}
				c.dirty = map[string]manifests.Ref{}
			}
		})
	}
}
