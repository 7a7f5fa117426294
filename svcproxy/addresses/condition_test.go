package addresses

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
)

// change edits a Service as its owner does.
func (k *controllerCase) change(name string, how func(*corev1.Service)) {
	k.t.Helper()
	svc := k.get(name)
	how(svc)
	if err := k.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("services"), svc, svc.Namespace); err != nil {
		k.t.Fatal(err)
	}
}

// condition is ours; that of somebody else has to be there still.
func (k *controllerCase) condition(name string) metav1.Condition {
	k.t.Helper()
	var ours metav1.Condition
	others := 0
	for _, c := range k.get(name).Status.Conditions {
		if c.Type == ConditionAssigned {
			ours = c
		} else if c.Type == "example.com/Ready" && c.Message == "theirs" {
			others++
		}
	}
	if others != 1 {
		k.t.Errorf("%s: the condition of somebody else is there %d times: %v", name, others, k.get(name).Status.Conditions)
	}
	return ours
}

// writes counts those since it was called last.
func (k *controllerCase) writes() (patches []clienttesting.PatchAction) {
	for _, a := range k.client.Actions() {
		if p, ok := a.(clienttesting.PatchAction); ok && a.GetResource().Resource == "services" {
			patches = append(patches, p)
		}
	}
	k.client.ClearActions()
	return patches
}

func conditioned(name string) *corev1.Service {
	svc := lbService(name)
	svc.Generation, svc.ResourceVersion = 3, "7"
	svc.Status.Conditions = []metav1.Condition{{Type: "example.com/Ready", Status: "True", Reason: "Theirs", Message: "theirs"}}
	return svc
}

// A Service says in its status whether it has its address, and why not, as long as that lasts, and beside the conditions of others.
func TestConditions(t *testing.T) {
	k := newControllerCase(t, conditioned("a"), conditioned("b"), conditioned("c"))
	long := metav1.NewTime(metav1.Now().Add(-1e12).Truncate(1e9))
	clusterIP := func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP }
	for _, step := range []struct {
		what            string
		change          func()
		of              string
		status          metav1.ConditionStatus
		reason, message string
		generation      int64
		writes          int
		turned          bool
	}{
		{"an address", func() {}, "a", "True", "Assigned", "192.0.2.1 of pool lb-pool", 3, 5, true},
		{"none free", func() {}, "c", "False", "NoAddress", "no free IPv4 address in lb-pool (192.0.2.1-192.0.2.2); add addresses to a pool", 3, 0, true},
		{"another spec", func() { k.change("c", func(svc *corev1.Service) { svc.Generation = 4 }) }, "c", "False", "NoAddress", "no free", 4, 1, false},
		{"a new leader", k.restart, "c", "False", "NoAddress", "no free", 4, 0, false},
		{"a slip of the pen", func() {
			k.change("a", func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = "192.0.2" })
		}, "a", "True", "KeepsAddress", `metadata.annotations[metallb.io/loadBalancerIPs]: "192.0.2" is not an IP address; the Service keeps 192.0.2.1`, 3, 1, false},
		{"corrected", func() {
			k.change("a", func(svc *corev1.Service) { delete(svc.Annotations, "metallb.io/loadBalancerIPs") })
		}, "a", "True", "Assigned", "192.0.2.1 of", 3, 1, false},
		{"no such pool any more", func() {
			k.pools, _ = NewPools(nil, []string{"192.0.2.2/32"})
		}, "a", "True", "AddressOfNoPool", "status.loadBalancer: 192.0.2.1 is in no pool any more", 3, 2, false},
		{"one becomes free", func() { k.change("b", clusterIP) }, "c", "True", "Assigned", "192.0.2.2 of pool lb-pool", 4, 4, true},
		{"not a load balancer any more", func() {}, "b", "", "", "", 0, 0, false},
	} {
		for _, svc := range k.services() {
			k.change(svc.Name, func(svc *corev1.Service) {
				for i := range svc.Status.Conditions {
					svc.Status.Conditions[i].LastTransitionTime = long
				}
			})
		}
		step.change()
		k.client.ClearActions()
		k.sync()
		if got := len(k.writes()); got != step.writes {
			t.Errorf("%s: %d writes, want %d", step.what, got, step.writes)
		}
		c := k.condition(step.of)
		if c.Status != step.status || c.Reason != step.reason || !strings.HasPrefix(c.Message, step.message) || c.ObservedGeneration != step.generation {
			t.Errorf("%s: %+v", step.what, c)
		}
		if turned := c.Type != "" && !c.LastTransitionTime.Equal(&long); turned != step.turned && step.what != "none free" {
			t.Errorf("%s: turned is %v: %v", step.what, turned, c.LastTransitionTime)
		}
	}
}

// The Event has the reason that the condition has.
func TestEventOfOneThatKeepsItsAddress(t *testing.T) {
	k := newControllerCase(t, lbService("a"))
	k.sync()
	k.change("a", func(svc *corev1.Service) { svc.Annotations["metallb.io/loadBalancerIPs"] = "192.0.2" })
	k.sync()
	if got := k.events(); len(got) != 2 || !strings.HasPrefix(got[1], "Warning KeepsAddress a: ") || conditionIn(k.get("a")).Reason != "KeepsAddress" {
		t.Errorf("events %q", got)
	}
}

// A Service that waited and is not ours any more keeps nothing of ours, though it never had an address.
func TestConditionOfOneThatNeverHadAnAddress(t *testing.T) {
	svc := conditioned("w")
	svc.Annotations = map[string]string{"metallb.io/address-pool": "none"}
	k := newControllerCase(t, svc)
	k.sync()
	if c := k.condition("w"); c.Status != "False" || !strings.Contains(c.Message, "there is no pool none") {
		t.Errorf("%+v", c)
	}
	k.change("w", func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeClusterIP
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example"}}
	})
	k.sync()
	if c := k.condition("w"); c.Type != "" || k.get("w").Status.LoadBalancer.Ingress[0].Hostname != "lb.example" {
		t.Errorf("left behind: %+v; the status of others is %v", c, k.get("w").Status.LoadBalancer)
	}
}

// Each write of the status is of the Service that was read, and of our condition alone.
func TestConditionIsWrittenWithALock(t *testing.T) {
	k := newControllerCase(t, conditioned("a"))
	k.client.ClearActions()
	k.sync()
	for _, p := range k.writes() {
		var body struct {
			Metadata struct{ ResourceVersion, UID string }
			Status   struct{ Conditions []metav1.Condition }
		}
		if err := json.Unmarshal(p.GetPatch(), &body); err != nil {
			t.Fatal(err)
		}
		if body.Metadata.ResourceVersion == "" || body.Metadata.UID != "uid-1" {
			t.Errorf("without a lock: %s", p.GetPatch())
		}
		if p.GetSubresource() == "status" && (p.GetPatchType() != "application/strategic-merge-patch+json" || len(body.Status.Conditions) != 1) {
			t.Errorf("%s %s", p.GetPatchType(), p.GetPatch())
		}
	}
}

func TestShorten(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("äö", 600), strings.Repeat("x", 1025), strings.Repeat("€", 4000)} {
		got := shorten("what is wrong "+text+" the fix", 1024)
		if len(got) > 1024 || !utf8.ValidString(got) || !strings.HasPrefix(got, "what is wrong ") || !strings.HasSuffix(got, " the fix") {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
}
