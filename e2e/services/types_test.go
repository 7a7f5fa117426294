package services

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// Without kube-proxy, nothing but svcproxy leads to the API server's Service. Portico is a Pod,
// and is ready only when it has read the cluster through it.
func TestPodsReachTheAPIServer(t *testing.T) {
	for _, node := range up.Nodes() {
		conn, err := up.Dial(t.Context(), node, "tcp", "10.96.0.1:443")
		if err != nil {
			t.Fatal(err)
		}
		// The certificate is not what this is about.
		c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	for namespace, deployment := range map[string]string{"portico": "portico", "kube-system": "coredns"} {
		if _, err := up.Kubectl(t.Context(), "rollout", "status", "deployment/"+deployment, "-n", namespace, "--timeout=60s"); err != nil {
			t.Error(err)
		}
		logStart(t, namespace)
	}
}

// logStart tells how long Pods took, which may have begun before svcproxy did. The times in a Pod
// are whole seconds.
func logStart(t *testing.T, namespace string) {
	t.Helper()
	list, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.Status.ContainerStatuses[0].State.Running != nil {
				t.Logf("%s: ready %s after its start", p.Name, c.LastTransitionTime.Sub(p.Status.ContainerStatuses[0].State.Running.StartedAt.Time))
			}
		}
	}
}

// The NodePorts are kept free on the node itself: no connection of its own begins at one.
func TestNodePortsAreReserved(t *testing.T) {
	for _, node := range up.Nodes() {
		out, err := up.Exec(t.Context(), node, "cat", "/proc/sys/net/ipv4/ip_local_reserved_ports")
		if err != nil || strings.TrimSpace(out) != "30000-32767" {
			t.Errorf("%s reserves %q, %v", node, out, err)
		}
	}
}

const nodePortService = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: udp, port: 80, protocol: UDP, targetPort: 8081}
`

func testClusterIPAndNodePort(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, nodePortService)
	s := service(t, ns, "web")
	http, udp := fmt.Sprint(s.Spec.Ports[0].NodePort), fmt.Sprint(s.Spec.Ports[1].NodePort)
	for _, node := range up.Nodes() {
		both(t, "cluster IP from "+node, func(ctx context.Context) (string, error) {
			a, err := ask(ctx, httpFrom(node, 2*time.Second, false), s.Spec.ClusterIP+":80")
			return a.Pod, err
		})
		both(t, "UDP to the cluster IP from "+node, func(ctx context.Context) (string, error) {
			pod, _, err := askPacket(ctx, node, s.Spec.ClusterIP+":80")
			return pod, err
		})
		at := up.NodeIP(node).String()
		both(t, "NodePort of "+node, func(ctx context.Context) (string, error) {
			a, err := ask(ctx, httpFrom(cluster.ClientHost, 2*time.Second, false), net.JoinHostPort(at, http))
			return a.Pod, err
		})
		both(t, "UDP NodePort of "+node, func(ctx context.Context) (string, error) {
			pod, _, err := askPacket(ctx, cluster.ClientHost, net.JoinHostPort(at, udp))
			return pod, err
		})
	}
}

// both asks until both Pods have answered. After the first answer no question may fail.
func both(t *testing.T, what string, ask func(context.Context) (pod string, err error)) {
	t.Helper()
	seen := map[string]bool{}
	suite.Wait(t, 20*time.Second, what, func(ctx context.Context) string {
		pod, err := ask(ctx)
		if err != nil && len(seen) > 0 {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil {
			seen[pod] = true
		}
		if seen["one"] && seen["two"] {
			return ""
		}
		return fmt.Sprint(seen, err)
	})
}

func testAffinity(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, strings.Replace(nodePortService, "type: NodePort", "type: NodePort\n  sessionAffinity: ClientIP", 1))
	s := service(t, ns, "web")
	at := net.JoinHostPort(up.NodeIP("node1").String(), fmt.Sprint(s.Spec.Ports[0].NodePort))
	first := answers(t, at).Pod
	waitEndpoints(t, ns, 2)
	for range 20 {
		a, err := ask(t.Context(), httpFrom(cluster.ClientHost, 2*time.Second, false), at)
		if err != nil || a.Pod != first {
			t.Errorf("answer of %s, %v; want %s", a.Pod, err, first)
		}
	}
}

func testRefusedWithoutEndpoints(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	apply(t, ns, nodePortService)
	s := service(t, ns, "web")
	suite.Wait(t, 10*time.Second, "refused", func(ctx context.Context) string {
		conn, err := up.Dial(ctx, "node1", "tcp", s.Spec.ClusterIP+":80")
		if err == nil {
			_ = conn.Close()
			return "connected"
		}
		if !strings.Contains(err.Error(), "refused") {
			return err.Error()
		}
		return ""
	})
}
