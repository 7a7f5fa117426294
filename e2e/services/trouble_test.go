package services

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// kill -9 of svcproxy: connections go on, and new ones are made while it is away.
func TestKillLosesNothing(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, nodePortService)
	s := service(t, ns, "web")
	var all []string
	for _, node := range up.Nodes() {
		all = append(all, net.JoinHostPort(up.NodeIP(node).String(), fmt.Sprint(s.Spec.Ports[0].NodePort)))
		answers(t, all[len(all)-1])
	}
	stop := probe(t, cluster.ClientHost, all...)
	for _, node := range up.Nodes() {
		pod := svcproxyPod(t, node)
		if err := up.KillContainer(t.Context(), own, pod, "svcproxy"); err != nil {
			t.Fatal(err)
		}
		suite.Wait(t, 60*time.Second, pod+" has been started again", func(ctx context.Context) string {
			p, err := client.CoreV1().Pods(own).Get(ctx, pod, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			if c := p.Status.ContainerStatuses[0]; c.RestartCount == 0 || !c.Ready {
				return fmt.Sprintf("%d restarts, ready: %v", c.RestartCount, c.Ready)
			}
			return ""
		})
	}
	t.Logf("%d questions, half of them over connections that stayed open", stop())
}

// The endpoint of a Service changes from one Pod to the other; how long until new connections
// land there?
func TestEndpointSwitch(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	ip := map[string]string{}
	for _, pod := range []string{"one", "two"} {
		p, err := client.CoreV1().Pods(ns).Get(t.Context(), pod, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ip[pod] = p.Status.PodIP
	}
	apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ipFamilies: [IPv4], ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP}]
endpoints: [{addresses: [%s]}]
`, ip["one"]))
	at := service(t, ns, "web").Spec.ClusterIP + ":80"
	c := httpFrom("node1", 2*time.Second, false)
	suite.Wait(t, 10*time.Second, "the Service answers", func(ctx context.Context) string {
		_, err := ask(ctx, c, at)
		return text(err)
	})
	var took []time.Duration
	for i := range 60 {
		to := []string{"two", "one"}[i%2]
		took = append(took, switchTo(t, ns, at, to, ip[to]))
	}
	slices.Sort(took)
	t.Logf("endpoint switch: p50 %s, max %s, of %d; resident memory of svcproxy %s bytes",
		took[len(took)/2].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond), len(took), metric(t, "node1", "process_resident_memory_bytes"))
	if took[len(took)/2] > 200*time.Millisecond {
		t.Error("that is too long for a change that is made at once: it waits for something")
	}
}

func switchTo(t *testing.T, ns, at, pod, ip string) time.Duration {
	t.Helper()
	body := fmt.Sprintf(`[{"op":"replace","path":"/endpoints/0/addresses/0","value":%q}]`, ip)
	var slice *discoveryv1.EndpointSlice
	slice, err := client.DiscoveryV1().EndpointSlices(ns).Patch(t.Context(), "web", types.JSONPatchType, []byte(body), metav1.PatchOptions{})
	if err != nil || slice.Endpoints[0].Addresses[0] != ip {
		t.Fatal(slice, err)
	}
	start := time.Now()
	c := httpFrom("node1", 2*time.Second, false)
	for {
		a, err := ask(t.Context(), c, at)
		if err != nil {
			t.Fatal(err)
		}
		if a.Pod == pod {
			return time.Since(start)
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("still at %s", a.Pod)
		}
	}
}
