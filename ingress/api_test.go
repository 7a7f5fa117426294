package ingress

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/portico-ingress/portico/manifests"
)

// apiRig is a rig with an API server, or what passes for one.
type apiRig struct {
	*rig
	client *fake.Clientset
}

func newAPIRig(t *testing.T) *apiRig {
	t.Helper()
	r := &apiRig{rig: newRig(t), client: fake.NewClientset()}
	r.cfg.Client, r.cfg.UpdateStatus = r.client, true
	r.cfg.PublishAddresses = []string{"192.0.2.1"}
	r.cfg.ElectionID, r.cfg.Namespace, r.cfg.Identity = "portico-leader", "portico", "portico-0"
	// The fake gives no names.
	created := 0
	r.client.PrependReactor("create", "events", func(action clienttesting.Action) (bool, runtime.Object, error) {
		created++
		accessor := action.(clienttesting.CreateAction).GetObject().(metav1.Object)
		accessor.SetName(fmt.Sprintf("%s%d", accessor.GetGenerateName(), created))
		return false, nil, nil
	})
	return r
}

// ingress puts an Ingress into the API server and the Store.
func (r *apiRig) ingress(i int, edit func(*networkingv1.Ingress)) {
	r.t.Helper()
	ing := bigIngress(i, "/api")
	ing.UID = types.UID(ing.Name)
	if edit != nil {
		edit(ing)
	}
	client := r.client.NetworkingV1().Ingresses("big")
	if _, err := client.Create(r.t.Context(), ing.DeepCopy(), metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		_, err = client.Update(r.t.Context(), ing.DeepCopy(), metav1.UpdateOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	r.put(ing)
}

// mirror brings what is in the API server to the Store, as a watch does.
func (r *apiRig) mirror(name string) *networkingv1.Ingress {
	r.t.Helper()
	ing, err := r.client.NetworkingV1().Ingresses("big").Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(ing.DeepCopy())
	return ing
}

func (r *apiRig) statusOf(name string) string {
	var all []string
	for _, a := range r.mirror(name).Status.LoadBalancer.Ingress {
		all = append(all, a.IP+a.Hostname)
	}
	return strings.Join(all, " ")
}

func (r *apiRig) statusWrites() int {
	n := 0
	for _, a := range r.client.Actions() {
		if a.GetVerb() == "update" && a.GetSubresource() == "status" {
			n++
		}
	}
	return n
}

// settle lets the election and the writers do what they have to.
func settleAPI() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func TestStatusIsWrittenOnceServedAndClearedAfter(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newAPIRig(t)
		r.cfg.Store.Open()
		r.run()
		r.ingress(1, nil)
		settleAPI()
		r.is("status without a class", r.statusOf("ing-1"), "")
		r.put(ourClass(), bigService("svc-1"))
		settleAPI()
		r.is("status", r.statusOf("ing-1"), "192.0.2.1")
		r.is("writes", r.statusWrites(), 1)
		settleAPI()
		r.is("generation after our own write", r.c.State().Generation, uint64(2))

		r.cfg.Store.Delete(manifests.Ref{Kind: manifests.KindIngressClass, Name: "portico"})
		settleAPI()
		r.is("status after the class is gone", r.statusOf("ing-1"), "")
		r.is("writes", r.statusWrites(), 2)
	})
}

func TestStatusFollowsThePublishService(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newAPIRig(t)
		r.cfg.PublishAddresses, r.cfg.PublishService = nil, parseName("portico/lb")
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), bigService("svc-1"))
		r.ingress(1, nil)
		settleAPI()
		r.is("status without the Service", r.statusOf("ing-1"), "")
		r.is("problems", len(r.c.State().Problems), 1)
		lb := service("LoadBalancer")
		lb.Namespace, lb.Name, lb.Spec.ExternalIPs = "portico", "lb", nil
		r.put(lb)
		settleAPI()
		r.is("status while the address is pending", r.statusOf("ing-1"), "")
		lb = service("LoadBalancer", "192.0.2.7")
		lb.Namespace, lb.Name, lb.Spec.ExternalIPs = "portico", "lb", nil
		r.put(lb)
		settleAPI()
		r.is("status", r.statusOf("ing-1"), "192.0.2.7")
		r.is("problems", len(r.c.State().Problems), 0)
	})
}

func TestStatusIsNotFoughtOver(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newAPIRig(t)
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), bigService("svc-1"))
		r.ingress(1, nil)
		settleAPI()
		r.is("status", r.statusOf("ing-1"), "192.0.2.1")
		other := func() {
			ing := r.mirror("ing-1").DeepCopy()
			ing.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.66"}}
			if err := r.client.Tracker().Update(schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}, ing, "big"); err != nil {
				t.Fatal(err)
			}
			r.mirror("ing-1")
		}
		other()
		settleAPI()
		r.is("status that another wrote", r.statusOf("ing-1"), "192.0.2.66")
		r.is("problems", len(r.c.State().Problems), 1)
		time.Sleep(statusPatienceMin)
		settleAPI()
		r.is("status after a while", r.statusOf("ing-1"), "192.0.2.1")
		settleAPI()
		r.is("problems", len(r.c.State().Problems), 0)
		writes := r.statusWrites()
		other()
		time.Sleep(statusPatienceMin + time.Second)
		settleAPI()
		r.is("the second time it waits longer", r.statusWrites(), writes)
		time.Sleep(statusPatienceMin)
		settleAPI()
		r.is("but not for ever", r.statusWrites(), writes+1)
	})
}

func TestStatusIsTriedAgainAfterAConflict(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newAPIRig(t)
		failures := 3
		r.client.PrependReactor("update", "ingresses", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if action.GetSubresource() == "status" && failures > 0 {
				failures--
				return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "ingresses"}, "ing-1", nil)
			}
			return false, nil, nil
		})
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), bigService("svc-1"))
		r.ingress(1, nil)
		time.Sleep(10 * time.Second)
		r.is("status", r.statusOf("ing-1"), "192.0.2.1")
		r.is("writes", r.statusWrites(), 4)
	})
}

func TestOnlyTheLeaderWrites(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newAPIRig(t)
		lease := make(chan bool)
		ctx, stop := context.WithCancel(t.Context())
		other := *r.cfg
		other.Identity = "portico-1"
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			elect(ctx, &other, func(leading bool) { lease <- leading })
		}()
		r.is("the other leads", <-lease, true)
		var leads []bool
		r.cfg.Observe.Leader = func(leading bool) { leads = append(leads, leading) }
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass(), bigService("svc-1"))
		r.ingress(1, nil)
		r.ingress(2, func(ing *networkingv1.Ingress) { ing.Annotations = map[string]string{"portico.dev/x": "y"} })
		time.Sleep(time.Minute)
		r.is("status while another leads", r.statusOf("ing-1"), "")
		r.is("Events while another leads", len(r.events()), 0)
		stop()
		<-lease
		<-stopped
		time.Sleep(5 * time.Second) // far less than the Lease lasts: it was released
		r.is("status", r.statusOf("ing-1"), "192.0.2.1")
		r.is("Events", len(r.events()), 3)
		r.is("leads", fmt.Sprint(leads), "[true]")
	})
}

func (r *apiRig) events() []string {
	r.t.Helper()
	list, err := r.client.EventsV1().Events("").List(r.t.Context(), metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, e := range list.Items {
		all = append(all, fmt.Sprintf("%s %s %s/%s %s", e.Type, e.Reason, e.Regarding.Kind, e.Regarding.Name, e.Note))
	}
	return all
}

func TestProblemsBecomeEventsOnce(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newAPIRig(t)
		r.cfg.UpdateStatus = false
		r.cfg.Store.Open()
		r.run()
		r.put(ourClass())
		r.ingress(1, nil)
		settleAPI()
		const want = "Warning ServiceUnusable Ingress/ing-1 spec.rules[0].http.paths[0].backend.service: Service big/svc-1 does not exist: the path answers 503; create it, or correct the name"
		if got := r.events(); len(got) != 2 || got[0] != want {
			t.Fatalf("got %q", got)
		}
		r.ingress(2, nil) // more problems, the old ones stay
		r.put(bigService("svc-2"))
		settleAPI()
		got := len(r.events())
		r.put(bigService("svc-1"), bigService("svc-2"))
		r.cfg.Store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "big", Name: "svc-1"})
		settleAPI()
		r.is("Events after the problem came back", len(r.events()), got+2)
	})
}

func TestEventsAreBounded(t *testing.T) {
	inBubble(t, func(b bubble) {
		t := b.t
		r := newAPIRig(t)
		r.cfg.UpdateStatus = false
		r.cfg.Store.Open()
		r.run()
		var all []metav1.Object
		for i := range 200 {
			ing := bigIngress(i, "/api")
			ing.UID = types.UID(ing.Name)
			all = append(all, ing)
		}
		r.put(append(all, ourClass())...)
		time.Sleep(time.Second)
		if got := len(r.events()); got < eventsBurst || got > eventsBurst+2*eventsPerSecond {
			t.Errorf("%d Events in a second", got)
		}
		// What is over before its turn is never sent.
		for i := range 200 {
			r.cfg.Store.Delete(manifests.Ref{Kind: manifests.KindIngress, Namespace: "big", Name: fmt.Sprintf("ing-%d", i)})
		}
		synctest.Wait()
		before := len(r.events())
		time.Sleep(10 * time.Second)
		r.is("Events after all is over", len(r.events()) <= before+1, true)
	})
}

func TestShorten(t *testing.T) {
	if got := shorten(strings.Repeat("é", 600), 1024); len(got) > 1024 || !strings.HasSuffix(got, "é...") {
		t.Errorf("got %d bytes, %q at the end", len(got), got[len(got)-6:])
	}
}
