package addresses

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kschema "k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"
)

// refuse has each write of one Service's status, or of its metadata, fail as long as *err says so.
func (k *controllerCase) refuse(name, subresource string, err *error) {
	k.client.PrependReactor("patch", "services", func(action clienttesting.Action) (bool, runtime.Object, error) {
		return *err != nil && action.GetSubresource() == subresource && action.(clienttesting.PatchAction).GetName() == name, nil, *err
	})
}

// trySync does a round of which writes may fail.
func (k *controllerCase) trySync() error {
	_, err := k.c.Sync(k.t.Context(), State{Services: k.services(), Pools: k.pools})
	return err
}

func sharing(name string, port int32) *corev1.Service {
	svc := lbService(name)
	svc.Annotations = map[string]string{"metallb.io/allow-shared-ip": "k"}
	svc.Spec.Ports[0].Port = port
	return svc
}

// Who shares an address keeps it while another one gives it up, whatever becomes of that one's status, and under a new leader.
func TestLeavingTakesNothingFromThoseWhoShare(t *testing.T) {
	for name, leave := range map[string]func(*corev1.Service){
		"elsewhere":        func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = "192.0.2.2" },
		"with another key": func(svc *corev1.Service) { svc.Annotations["metallb.io/allow-shared-ip"] = "other" },
		"deleted":          func(svc *corev1.Service) { svc.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time} },
		"of another type":  func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP },
		"of a type and a key": func(svc *corev1.Service) {
			svc.Spec.Type, svc.Annotations["metallb.io/allow-shared-ip"] = corev1.ServiceTypeClusterIP, ""
		},
	} {
		for _, first := range []string{"a", "z"} { // the one that leaves comes before b, and after it
			t.Run(name+", "+first, func(t *testing.T) {
				leaving := sharing(first, 80)
				leaving.Finalizers = []string{"example.com/hold"}
				k := newControllerCase(t, leaving, sharing("b", 443))
				k.sync()
				if got := address(k.get(first)) + "," + address(k.get("b")); got != "192.0.2.1,192.0.2.1" {
					t.Fatalf("not shared: %s", got)
				}
				k.change(first, leave)
				fails := errors.New("the API server is away")
				k.refuse(first, "status", &fails)
				for i, restart := range []bool{false, false, true, false} {
					if restart && name != "with another key" { // a new leader cannot know which of the two has changed
						k.restart()
					}
					if k.trySync() == nil {
						t.Fatal("the write did not fail")
					}
					if got := address(k.get("b")); got != "192.0.2.1" {
						t.Fatalf("round %d: b has %q", i, got)
					}
				}
				fails = nil
				k.sync()
				k.sync()
				if got := address(k.get("b")); got != "192.0.2.1" || address(k.get(first)) == got {
					t.Errorf("at last b has %q, the other one %q", got, address(k.get(first)))
				}
			})
		}
	}
}

// A Service whose addresses cannot be written keeps none of the pool from others, or as many as a Service has, however often it
// asks for another one.
func TestOneServiceHoldsNoPool(t *testing.T) {
	services := kschema.GroupResource{Resource: "services"}
	for name, c := range map[string]struct {
		subresource string
		err         error
		free        int
	}{
		"no mark, refused":   {"", apierrors.NewInvalid(kschema.GroupKind{Kind: "Service"}, "greedy", nil), 8},
		"no status, refused": {"status", apierrors.NewForbidden(services, "greedy", errors.New("no")), 8},
		"conflicts":          {"status", apierrors.NewConflict(services, "greedy", nil), 6},
		"away":               {"", errors.New("timeout"), 6},
	} {
		t.Run(name, func(t *testing.T) {
			k := newControllerCase(t, lbService("greedy"))
			k.pools, _ = NewPools(nil, []string{"192.0.2.0/29"})
			fails := c.err
			k.refuse("greedy", c.subresource, &fails)
			ask := func(i int) {
				k.change("greedy", func(svc *corev1.Service) {
					metav1.SetMetaDataAnnotation(&svc.ObjectMeta, "metallb.io/loadBalancerIPs", fmt.Sprintf("192.0.2.%d", i))
				})
				_ = k.trySync()
			}
			for i := range 8 {
				ask(i)
			}
			for i := range 8 {
				if err := k.client.Tracker().Add(lbService(fmt.Sprint("other-", i))); err != nil {
					t.Fatal(err)
				}
			}
			_ = k.trySync()
			served := 0
			for _, svc := range k.services() {
				if address(svc) != "" {
					served++
				}
			}
			if served < c.free {
				t.Errorf("%d others got an address, want %d", served, c.free)
			}
		})
	}
}

// What was asked for last is what a Service has as soon as it can be written; nothing is held longer than that.
func TestTheLastWishIsGrantedAtLast(t *testing.T) {
	k := newControllerCase(t, lbService("a"))
	k.pools, _ = NewPools(nil, []string{"192.0.2.0/29"})
	k.sync()
	fails := errors.New("timeout")
	k.refuse("a", "status", &fails)
	for _, ip := range []string{"192.0.2.5", "192.0.2.6", "192.0.2.7"} {
		k.change("a", func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = ip })
		if k.trySync() == nil {
			t.Fatal("the write did not fail")
		}
	}
	if got := address(k.get("a")); got != "192.0.2.0" {
		t.Fatalf("a has %s", got)
	}
	fails = nil
	k.sync()
	k.sync()
	if got := address(k.get("a")); got != "192.0.2.7" {
		t.Errorf("a has %s", got)
	}
	if held := len(k.c.allocator.users); held != 1 {
		t.Errorf("%d addresses are held", held)
	}
}

// A Service whose new address was refused goes on with the old one, also if its annotation becomes unreadable.
func TestRefusedAndMisspelt(t *testing.T) {
	k := newControllerCase(t, lbService("a"))
	k.sync()
	var fails error = apierrors.NewInvalid(kschema.GroupKind{Kind: "Service"}, "a", nil)
	k.refuse("a", "status", &fails)
	k.change("a", func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = "192.0.2.2" })
	if k.trySync() == nil {
		t.Fatal("the write did not fail")
	}
	fails = nil
	k.change("a", func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = "192.0.2" })
	k.sync()
	if got := address(k.get("a")); got != "192.0.2.1" {
		t.Errorf("a has %q", got)
	}
}
