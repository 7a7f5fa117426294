package services

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/e2e/cluster"
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
	if _, err := up.Kubectl(t.Context(), "rollout", "status", "deployment/portico", "-n", "portico", "--timeout=60s"); err != nil {
		t.Error(err)
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

func TestClusterIPAndNodePort(t *testing.T) {
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
	waitFor(t, 20*time.Second, what, func(ctx context.Context) string {
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

func TestAffinity(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, strings.Replace(nodePortService, "type: NodePort", "type: NodePort\n  sessionAffinity: ClientIP", 1))
	s := service(t, ns, "web")
	at := net.JoinHostPort(up.NodeIP("node1").String(), fmt.Sprint(s.Spec.Ports[0].NodePort))
	first := answers(t, at).Pod
	// Endpoints come one after the other; what counts is from when both are there.
	waitFor(t, 10*time.Second, "both endpoints", func(ctx context.Context) string {
		out, err := up.Kubectl(ctx, "get", "endpointslices", "-n", ns, "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}")
		if len(strings.Fields(out)) != 2 {
			return out + text(err)
		}
		return ""
	})
	for range 20 {
		a, err := ask(t.Context(), httpFrom(cluster.ClientHost, 2*time.Second, false), at)
		if err != nil || a.Pod != first {
			t.Errorf("answer of %s, %v; want %s", a.Pod, err, first)
		}
	}
}

func TestRefusedWithoutEndpoints(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, nodePortService)
	s := service(t, ns, "web")
	waitFor(t, 10*time.Second, "refused", func(ctx context.Context) string {
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
