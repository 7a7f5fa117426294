package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// publish gives Portico's Service addresses, as a load balancer would: the
// cluster has none.
func publish(t *testing.T, addresses ...string) {
	t.Helper()
	var list []string
	for _, a := range addresses {
		field := "ip"
		if strings.Trim(a, "0123456789.") != "" {
			field = "hostname"
		}
		list = append(list, fmt.Sprintf(`{%q:%q}`, field, a))
	}
	kubectl(t, "patch", "service", "portico", "-n", porticoNamespace, "--subresource=status", "--type=merge",
		"-p", `{"status":{"loadBalancer":{"ingress":[`+strings.Join(list, ",")+`]}}}`)
}

// waitStatus waits until an Ingress has exactly those addresses.
func waitStatus(t *testing.T, namespace, name string, want ...string) {
	t.Helper()
	waitFor(t, 20*time.Second, fmt.Sprintf("status of %s is %v", name, want), func(ctx context.Context) string {
		got, err := statusOf(ctx, namespace, name)
		if err != nil {
			return err.Error()
		}
		if !slices.Equal(got, want) {
			return fmt.Sprintf("it is %v", got)
		}
		return ""
	})
}

func statusOf(ctx context.Context, namespace, name string) ([]string, error) {
	ing, err := client.NetworkingV1().Ingresses(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var got []string
	for _, in := range ing.Status.LoadBalancer.Ingress {
		got = append(got, in.IP+in.Hostname)
	}
	slices.Sort(got)
	return got, nil
}

// The addresses are those of the Service, which is one for all: so this runs alone.
func TestTheStatusOfAnIngressSaysWhereItIsServed(t *testing.T) {
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	publish(t)
	createIngress(t, ns, newIngress("status", rule{host: ns + ".test", path: "/", backend: "blue"}))
	e.waitAnsweredBy(t, "blue", "http://"+ns+".test/")
	waitStatus(t, ns, "status")

	const one, two, name = "172.30.0.200", "172.30.0.201", "lb.portico.test"
	publish(t, one)
	waitStatus(t, ns, "status", one)
	publish(t, two, name)
	waitStatus(t, ns, "status", two, name)
	publish(t, one)
	waitStatus(t, ns, "status", one)

	t.Run("and of one that came later", func(t *testing.T) {
		createIngress(t, ns, newIngress("later", rule{host: "later." + ns + ".test", path: "/", backend: "blue"}))
		waitStatus(t, ns, "later", one)
	})
	t.Run("is empty again when it is served no more", func(t *testing.T) {
		patchIngress(t, ns, "later", `{"spec":{"ingressClassName":"nowhere"}}`)
		waitStatus(t, ns, "later")
	})
	t.Run("is not fought over", func(t *testing.T) {
		kubectl(t, "patch", "ingress", "status", "-n", ns, "--subresource=status", "--type=merge",
			"-p", `{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}}}`)
		waitFor(t, 15*time.Second, "Problem of the leader", func(ctx context.Context) string {
			for _, r := range e.all() {
				v, err := r.problems(ctx)
				if err != nil {
					return err.Error()
				}
				for _, p := range v.Problems {
					if p.Object.Namespace == ns && p.Object.Name == "status" && p.Field == "status.loadBalancer" {
						return ""
					}
				}
			}
			return "nobody says so"
		})
		waitEvent(t, "Ingress", ns, "status", "StatusContended")
		if got, err := statusOf(t.Context(), ns, "status"); err != nil || !slices.Equal(got, []string{"192.0.2.9"}) {
			t.Errorf("status is %v, %v; want it left alone for a while", got, err)
		}
	})
	t.Run("is not written where nothing is served", func(t *testing.T) {
		ing := newIngress("nothing")
		ing.Spec.IngressClassName = new("nowhere")
		ing.Spec.DefaultBackend = backendOf("blue")
		createIngress(t, ns, ing)
		createIngress(t, ns, newIngress("after", rule{host: "after." + ns + ".test", path: "/", backend: "blue"}))
		waitStatus(t, ns, "after", one)
		if got, err := statusOf(t.Context(), ns, "nothing"); err != nil || len(got) > 0 {
			t.Errorf("status is %v, %v; want none", got, err)
		}
	})
	t.Run("and an Ingress that is being deleted stops at once", func(t *testing.T) {
		ing := newIngress("finalized", rule{host: "finalized." + ns + ".test", path: "/", backend: "blue"})
		ing.Finalizers = []string{"e2e.portico.dev/wait"}
		createIngress(t, ns, ing)
		e.waitAnsweredBy(t, "blue", "http://finalized."+ns+".test/")
		waitStatus(t, ns, "finalized", one)
		deleteIngress(t, ns, "finalized")
		start := time.Now()
		e.waitAnsweredBy(t, "404", "http://finalized."+ns+".test/")
		t.Logf("not served %s after the request to delete it", time.Since(start).Round(time.Millisecond))
		e.mustBeAnsweredBy(t, "404", "http://finalized."+ns+".test/")
		if left := mustGetIngress(t, ns, "finalized"); left.DeletionTimestamp == nil {
			t.Error("it is not being deleted")
		}
		waitStatus(t, ns, "finalized")
		patchIngress(t, ns, "finalized", `{"metadata":{"finalizers":null}}`)
	})
}

func mustGetIngress(t *testing.T, namespace, name string) *networkingv1.Ingress {
	t.Helper()
	ing, err := client.NetworkingV1().Ingresses(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ing
}
