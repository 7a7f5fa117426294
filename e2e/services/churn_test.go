package services

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

const (
	// churned is how many Services come, change and go, and churnRate how many of these a second at
	// most: the API server is everybody's.
	churned   = 1000
	churnRate = 250
	// Each so many-th has endpoints, and each so many-th of all is asked. The others are refused:
	// what their endpoints would cost is work of the controllers' more than of svcproxy's.
	served, sampled = 10, 50
)

// A thousand Services come, change their port and go, while connections by another run.
func testChurn(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, nodePortService)
	web := service(t, ns, "web")
	nodePort := net.JoinHostPort(up.NodeIP("node1").String(), fmt.Sprint(web.Spec.Ports[0].NodePort))
	answers(t, nodePort)
	waitAnswerOf(t, web.Spec.ClusterIP+":80", "one") // on that node, too
	outside, onNode := probe(t, cluster.ClientHost, nodePort), probe(t, "node1", web.Spec.ClusterIP+":80")
	services := churnClient(t).Services(ns)
	start := time.Now()
	addresses := churn(t, "created", func(ctx context.Context, i int, name string) (*corev1.Service, error) {
		s := corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 8080}}}}
		if i%served == 0 {
			s.Spec.Selector = map[string]string{"app": "web"}
		}
		return services.Create(ctx, &s, metav1.CreateOptions{})
	})
	for _, ip := range addresses {
		waitAsked(t, ip+":8080", true)
	}
	churn(t, "changed", func(ctx context.Context, _ int, name string) (*corev1.Service, error) {
		const ports = `[{"op":"replace","path":"/spec/ports/0/port","value":90}]`
		return services.Patch(ctx, name, types.JSONPatchType, []byte(ports), metav1.PatchOptions{})
	})
	for _, ip := range addresses {
		waitAsked(t, ip+":90", true)
		waitAsked(t, ip+":8080", false)
	}
	churn(t, "deleted", func(ctx context.Context, _ int, name string) (*corev1.Service, error) {
		return deleteService(ctx, services, name)
	})
	for _, ip := range addresses {
		waitAsked(t, ip+":90", false)
	}
	t.Logf("%d Services in %s; %d questions from outside and %d on a node meanwhile", churned, time.Since(start).Round(time.Millisecond), outside(), onNode())
}

func churnClient(t *testing.T) typedcorev1.CoreV1Interface {
	t.Helper()
	config := up.RESTConfig()
	config.QPS, config.Burst, config.ContentType = churnRate, 1, "application/vnd.kubernetes.protobuf"
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c.CoreV1()
}

func deleteService(ctx context.Context, services typedcorev1.ServiceInterface, name string) (*corev1.Service, error) {
	return &corev1.Service{}, services.Delete(ctx, name, metav1.DeleteOptions{})
}

// churn does something with all of them, some at a time, and gives the cluster IPs of a sample.
func churn(t *testing.T, what string, do func(context.Context, int, string) (*corev1.Service, error)) (addresses []string) {
	t.Helper()
	start := time.Now()
	addresses = make([]string, churned/sampled)
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(32)
	for i := range churned {
		g.Go(func() error {
			s, err := do(ctx, i, fmt.Sprintf("churn%d", i))
			if err == nil && i%sampled == 0 {
				addresses[i/sampled] = s.Spec.ClusterIP
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d Services %s in %s", churned, what, time.Since(start).Round(time.Millisecond))
	return addresses
}

// waitAsked waits until an address answers on a node, or does not any more.
func waitAsked(t *testing.T, at string, answered bool) {
	t.Helper()
	suite.Wait(t, 20*time.Second, fmt.Sprintf("%s answers: %v", at, answered), func(ctx context.Context) string {
		if _, err := ask(ctx, httpFrom("node1", 300*time.Millisecond, false), at); (err == nil) != answered {
			return "last: " + text(err)
		}
		return ""
	})
}
