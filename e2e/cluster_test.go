package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/load"
)

// TestCluster holds the cluster itself to what the other tests take for
// granted. When it fails, nothing the others say means much. Of the tests that
// run alone it is the first, by the name of its file: Pods of other tests would
// have other addresses after it.
func TestCluster(t *testing.T) {
	t.Run("nodes are ready", testNodesReady)
	t.Run("services", testServices)
	t.Run("parts stop and start", testPartsStopAndStart)
	t.Run("a node loses power", testNodeLosesPower)
}

func testNodesReady(t *testing.T) {
	t.Helper()
	// In a cluster that was up, an earlier run may just have ended.
	waitFor(t, time.Minute, "two nodes are ready", func(ctx context.Context) string {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		if len(nodes.Items) != 2 {
			return fmt.Sprintf("%d nodes", len(nodes.Items))
		}
		for _, n := range nodes.Items {
			ready := false
			for _, c := range n.Status.Conditions {
				ready = ready || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
			}
			if !ready || len(n.Spec.Taints) > 0 || len(n.Spec.PodCIDRs) == 0 {
				return fmt.Sprintf("%s: ready %t, taints %v, Pod subnets %v", n.Name, ready, n.Spec.Taints, n.Spec.PodCIDRs)
			}
		}
		return ""
	})
}

// testServices follows a Service from its Pods to a client outside, under load
// while it grows, shrinks and loses a container.
func testServices(t *testing.T) {
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 2, nodePort: true})
	port := nodePort(t, ns, "echo")

	endpoints := waitEndpoints(t, ns, "echo", 2)
	nodes := map[string]bool{}
	for _, n := range endpoints {
		nodes[n] = true
	}
	if len(nodes) != 2 {
		t.Errorf("endpoints are %v, want one on each node", endpoints)
	}
	for _, n := range up.Nodes() {
		waitNodePort(t, n, port, 2)
	}

	p := startLoad(t, load.Options{
		URL: fmt.Sprintf("http://%s:%d/", up.NodeIP("node1"), port), Rate: 100, NewConnections: true,
	})
	for _, replicas := range []int{4, 2} {
		scale(t, ns, "echo", replicas)
		waitRollout(t, ns, "echo")
		waitEndpoints(t, ns, "echo", replicas)
		waitNodePort(t, "node2", port, replicas)
	}
	r, err := p.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("load while scaling: %s", r)
	if r.Failed > 0 {
		// kube-proxy's doing, not ours, and no reason to fail; but a reader of
		// later results wants to know how still this water is.
		t.Logf("first failures: %v", r.Failures[:min(3, len(r.Failures))])
	}

	killOne(t, ns)
}

// killOne kills the process of one Pod and waits until it runs again.
func killOne(t *testing.T, ns string) {
	t.Helper()
	pods, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "status.phase=Running"})
	if err != nil {
		t.Fatal(err)
	}
	// One that is on its way out would not come back.
	i := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp == nil })
	if i < 0 {
		t.Fatalf("no Pod runs, of %d", len(pods.Items))
	}
	name := pods.Items[i].Name
	if err := up.KillContainer(t.Context(), ns, name, "echo"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, time.Minute, "container restarted", func(ctx context.Context) string {
		pod, err := client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if s := pod.Status.ContainerStatuses[0]; s.RestartCount != 1 || !s.Ready {
			return fmt.Sprintf("restarts %d, ready %t", s.RestartCount, s.Ready)
		}
		return ""
	})
}

// waitNodePort waits until a node's port has led to that many Pods.
func waitNodePort(t *testing.T, node string, port, pods int) {
	t.Helper()
	seen := map[string]bool{}
	waitFor(t, 20*time.Second, fmt.Sprintf("%s leads to %d Pods", node, pods), func(ctx context.Context) string {
		rep, err := echo(ctx, fmt.Sprintf("http://%s:%d/hello?x=1", up.NodeIP(node), port))
		if err != nil {
			return err.Error()
		}
		if rep.RequestURI != "/hello?x=1" || rep.Name != "echo" {
			return fmt.Sprintf("strange answer %+v", rep)
		}
		seen[rep.Pod] = true
		if len(seen) < pods {
			return fmt.Sprintf("seen so far: %v", seen)
		}
		return ""
	})
}

// startLoad starts load from the client host, and ends it with the test at the
// latest.
func startLoad(t *testing.T, o load.Options) *load.Process {
	t.Helper()
	cmd, err := up.Command(t.Context(), cluster.ClientHost, up.Program("load"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := load.Start(cmd, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testPartsStopAndStart(t *testing.T) {
	for _, name := range []string{cluster.APIServer, "node1/kubelet", "node2/containerd"} {
		if err := up.Stop(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		for _, s := range up.Status(t.Context()) {
			if (s.Component == name) == (s.Err == nil) {
				t.Errorf("with %s stopped, %s: %v", name, s.Component, s.Err)
			}
		}
		if err := up.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, time.Minute, "everything works again", func(ctx context.Context) string {
		for _, s := range up.Status(ctx) {
			if s.Err != nil {
				return s.Component + ": " + s.Err.Error()
			}
		}
		_, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

func testNodeLosesPower(t *testing.T) {
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 2, nodePort: true})
	port := nodePort(t, ns, "echo")
	waitNodePort(t, "node1", port, 2)

	if err := up.KillNode(t.Context(), "node2"); err != nil {
		t.Fatal(err)
	}
	if _, err := curl(t.Context(), "--connect-timeout", "1", fmt.Sprintf("http://%s:%d/", up.NodeIP("node2"), port)); err == nil {
		t.Error("a node without power answers")
	}
	if err := up.StartNode(t.Context(), "node2"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 2*time.Minute, "the node's Pod runs again", func(ctx context.Context) string {
		pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node2"})
		if err != nil || len(pods.Items) != 1 {
			return fmt.Sprintf("%d Pods, %v", len(pods.Items), err)
		}
		if s := pods.Items[0].Status.ContainerStatuses[0]; s.RestartCount == 0 || !s.Ready {
			return fmt.Sprintf("restarts %d, ready %t", s.RestartCount, s.Ready)
		}
		return ""
	})
	waitNodePort(t, "node1", port, 2)
	waitNodePort(t, "node2", port, 2)
}
