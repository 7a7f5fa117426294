package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// outage is how long the API server is away: watches end, and are asked for again several times.
const outage = 5 * time.Second

// Without the API server everything is served as it was; what changes after its return is served
// soon.
func TestAPIServerAway(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	one, two := podIP(t, ns, "one"), podIP(t, ns, "two")
	apply(t, ns, nodePortService+manual(one))
	at := service(t, ns, "manual").Spec.ClusterIP + ":80"
	port := fmt.Sprint(service(t, ns, "web").Spec.Ports[0].NodePort)
	nodePorts := []string{net.JoinHostPort(up.NodeIP("node1").String(), port), net.JoinHostPort(up.NodeIP("node2").String(), port)}
	for _, a := range nodePorts {
		answers(t, a)
	}
	waitAnswerOf(t, at, "one")
	outside, onNode := probe(t, cluster.ClientHost, nodePorts...), probe(t, "node1", at)

	t.Cleanup(func() { _ = up.Start(context.Background(), cluster.APIServer) }) // all other tests need it
	if err := up.Stop(t.Context(), cluster.APIServer); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	suite.Wait(t, 3*outage, "the end of the outage", func(context.Context) string {
		if left := outage - time.Since(stopped); left > 0 {
			return left.String() + " left"
		}
		return ""
	})
	if err := up.Start(t.Context(), cluster.APIServer); err != nil {
		t.Fatal(err)
	}
	t.Logf("API server away for %s; %d questions from outside and %d on a node meanwhile", time.Since(stopped).Round(time.Millisecond), outside(), onNode())
	apply(t, ns, manual(two))
	took := waitAnswerOf(t, at, "two")
	t.Logf("a new endpoint is used %s after the change", took.Round(time.Millisecond))
	wakeKubelets(t)
}

// manual is a Service whose endpoint we say ourselves.
func manual(ip string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: manual}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: manual, labels: {kubernetes.io/service-name: manual}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP}]
endpoints: [{addresses: [%s]}]
`, ip)
}

// waitAnswerOf waits until a Pod answers, and no question fails from the first answer on.
func waitAnswerOf(t *testing.T, at, pod string) time.Duration {
	t.Helper()
	answered := false
	return suite.Wait(t, 30*time.Second, at+" is answered by "+pod, func(ctx context.Context) string {
		a, err := ask(ctx, httpFrom("node1", 2*time.Second, false), at)
		if err != nil && answered {
			t.Errorf("%s: %v", at, err)
		}
		answered = answered || err == nil
		if a.Pod != pod {
			return a.Pod + text(err)
		}
		return ""
	})
}

// wakeKubelets starts them anew, because they would go on for up to a minute as if there were no
// API server.
func wakeKubelets(t *testing.T) {
	t.Helper()
	var g errgroup.Group
	for _, node := range up.Nodes() {
		name := node + "/kubelet"
		g.Go(func() error { return errors.Join(up.Stop(t.Context(), name), up.Start(t.Context(), name)) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
