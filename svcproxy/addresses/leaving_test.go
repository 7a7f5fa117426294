package addresses

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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
