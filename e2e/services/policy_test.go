package services

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// With externalTrafficPolicy Local a NodePort answers where an endpoint is, to the client's own
// address, and the port for health checks tells load balancers which nodes these are.
func testLocalNodePort(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, strings.Replace(balanced("web", "", "  externalTrafficPolicy: Local"), "{app: web}", "{at: node2}", 1))
	s := service(t, ns, "web")
	port, health := fmt.Sprint(s.Spec.Ports[0].NodePort), fmt.Sprint(s.Spec.HealthCheckNodePort)
	at := func(node, port string) string { return net.JoinHostPort(up.NodeIP(node).String(), port) }
	if a := answers(t, at("node2", port)); a.Pod != "two" || !strings.HasPrefix(a.RemoteAddr, up.ClientIP().String()+":") {
		t.Errorf("answer of %s, which saw %s", a.Pod, a.RemoteAddr)
	}
	suite.Wait(t, 10*time.Second, "node1 is silent", func(ctx context.Context) string {
		if _, err := ask(ctx, httpFrom(cluster.ClientHost, 300*time.Millisecond, false), at("node1", port)); err == nil {
			return "it answers"
		}
		return ""
	})
	for node, want := range map[string]struct{ status, local int }{"node1": {503, 0}, "node2": {200, 1}} {
		suite.Wait(t, 10*time.Second, "health of "+node, func(ctx context.Context) string {
			status, weight, body, err := askHealth(ctx, at(node, health))
			if err != nil {
				return err.Error()
			}
			named := fmt.Sprintf("\"namespace\": %q,\n\t\t\"name\": \"web\"", ns)
			if status != want.status || weight != fmt.Sprint(want.local) || !strings.Contains(body, fmt.Sprintf("\"localEndpoints\": %d", want.local)) || !strings.Contains(body, named) {
				return fmt.Sprint(status, " ", weight, " ", body)
			}
			return ""
		})
	}
}

func askHealth(ctx context.Context, at string) (status int, weight, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/", nil)
	if err != nil {
		return 0, "", "", err
	}
	res, err := httpFrom(cluster.ClientHost, 2*time.Second, false).Do(req)
	if err != nil {
		return 0, "", "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if got := res.Header.Get("Content-Type") + " " + res.Header.Get("X-Content-Type-Options"); got != "application/json nosniff" {
		return 0, "", "", fmt.Errorf("headers %v", res.Header)
	}
	return res.StatusCode, res.Header.Get("X-Load-Balancing-Endpoint-Weight"), string(b), err
}

// Load balancers in front of the nodes ask where kube-proxy would answer, and are told of a node that is
// about to be taken away.
func TestHealthz(t *testing.T) {
	healthz := func(node string, want int) {
		t.Helper()
		suite.Wait(t, 20*time.Second, "/healthz of "+node, func(ctx context.Context) string {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(up.NodeIP(node).String(), "10256")+"/healthz", nil)
			if err != nil {
				return err.Error()
			}
			res, err := httpFrom(cluster.ClientHost, 2*time.Second, false).Do(req)
			if err != nil {
				return err.Error()
			}
			defer func() { _ = res.Body.Close() }()
			if body, _ := io.ReadAll(res.Body); res.StatusCode != want {
				return fmt.Sprint(res.Status, " ", string(body))
			}
			return ""
		})
	}
	taint := func(taints string) {
		t.Helper()
		_, err := client.CoreV1().Nodes().Patch(context.WithoutCancel(t.Context()), "node2", types.MergePatchType, []byte(`{"spec":{"taints":`+taints+`}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	healthz("node1", http.StatusOK)
	healthz("node2", http.StatusOK)
	t.Cleanup(func() { taint("null") })
	taint(`[{"key":"ToBeDeletedByClusterAutoscaler","value":"1","effect":"PreferNoSchedule"}]`)
	healthz("node2", http.StatusServiceUnavailable)
	healthz("node1", http.StatusOK)
	taint("null")
	healthz("node2", http.StatusOK)
}

// The label that gives a Service to another proxy, put on and taken off while it is in use.
func testProxyName(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, nodePortService)
	s := service(t, ns, "web")
	all := []string{s.Spec.ClusterIP + ":80", net.JoinHostPort(up.NodeIP("node1").String(), fmt.Sprint(s.Spec.Ports[0].NodePort))}
	const label = `{"metadata":{"labels":{"service.kubernetes.io/service-proxy-name":%s}}}`
	for i, value := range []string{"null", `"another"`, "null"} {
		patch(t, ns, "web", fmt.Sprintf(label, value))
		for _, at := range all {
			waitAsked(t, at, i != 1)
		}
	}
}

// A client comes back to the same Pod until it was away for longer than the time-out.
func testAffinityTimeout(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	startPods(t, ns)
	const timeout = time.Second
	apply(t, ns, strings.Replace(nodePortService, "type: NodePort",
		"type: NodePort\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}", 1))
	at := net.JoinHostPort(up.NodeIP("node1").String(), fmt.Sprint(service(t, ns, "web").Spec.Ports[0].NodePort))
	answers(t, at)
	waitEndpoints(t, ns, 2)
	seen := map[string]int{}
	for range 30 { // two Pods with the same chance: the other one is missed 30 times in a row by nobody
		first, last := "", time.Time{}
		for range 5 {
			asked := time.Now()
			a, err := ask(t.Context(), httpFrom(cluster.ClientHost, 2*time.Second, false), at)
			if err != nil {
				t.Fatal(err)
			}
			if first != "" && a.Pod != first && time.Since(last) < timeout {
				t.Fatalf("answer of %s, want %s", a.Pod, first)
			}
			first, last = a.Pod, asked
		}
		if seen[first]++; len(seen) == 2 {
			t.Logf("the other Pod after %d times away", seen["one"]+seen["two"]-1)
			return
		}
		away := time.NewTimer(timeout * 13 / 10)
		<-away.C
	}
	t.Errorf("never another Pod: %v", seen)
}

// waitEndpoints waits for so many endpoints, which come one after the other.
func waitEndpoints(t *testing.T, namespace string, want int) {
	t.Helper()
	suite.Wait(t, 10*time.Second, fmt.Sprintf("%d endpoints", want), func(ctx context.Context) string {
		out, err := up.Kubectl(ctx, "get", "endpointslices", "-n", namespace, "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}")
		if len(strings.Fields(out)) != want {
			return out + text(err)
		}
		return ""
	})
}
