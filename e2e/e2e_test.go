// Package e2e tests Portico on a real cluster: real API server, kubelets and
// containers, the image as it is shipped, and clients on a host outside.
package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// The one cluster all tests share, and a client of its administrator's.
var (
	up     *cluster.Cluster
	client kubernetes.Interface
)

func TestMain(m *testing.M) {
	suite.Main(m, cluster.Config{}, func(ctx context.Context, c *cluster.Cluster, admin kubernetes.Interface) error {
		up, client = c, admin
		return clearLeftovers(ctx)
	})
}

// waitFor waits until cond is satisfied, which then returns nothing and until
// then what is still missing. It logs how long that took.
func waitFor(t *testing.T, deadline time.Duration, what string, cond func(context.Context) string) {
	t.Helper()
	t.Logf("%s after %s", what, suite.Wait(t, deadline, what, cond).Round(time.Millisecond))
}

// kubectl runs kubectl and returns what it wrote.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := up.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply applies YAML to a namespace.
func apply(t *testing.T, namespace, yaml string) {
	t.Helper()
	if _, err := up.KubectlInput(t.Context(), yaml, "apply", "-n", namespace, "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// testLabel marks what tests made, so that the next run can clear it away.
const testLabel = "e2e.portico.dev/test"

// newNamespace makes a namespace for one test, and a name that nobody else has:
// hosts of the test end in NAME.test. It and what is in it go when the test is
// over, unless it failed: then its Pods are shown first.
func newNamespace(t *testing.T) string {
	t.Helper()
	return suite.NewNamespace(t, client, map[string]string{testLabel: ""}, func(ctx context.Context, name string) {
		if t.Failed() {
			showNamespace(ctx, t, name)
		}
	})
}

func showNamespace(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	all, _ := up.Kubectl(ctx, "get", "pods,services,endpointslices,ingresses", "-n", name, "-o", "wide")
	events, _ := up.Kubectl(ctx, "get", "events", "-n", name, "--sort-by=.lastTimestamp")
	t.Logf("left behind:\n%s\n%s", all, events)
	pods, _ := up.Kubectl(ctx, "get", "pods", "-n", name, "-o", "name")
	for pod := range strings.FieldsSeq(pods) {
		logs, _ := up.Kubectl(ctx, "logs", "-n", name, pod, "--all-containers", "--tail=30")
		t.Logf("logs of %s:\n%s", pod, logs)
	}
}

// clearLeftovers removes what an earlier run left in a cluster that stayed up.
// Namespaces take their time to go, and nobody waits for their names.
func clearLeftovers(ctx context.Context) error {
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: testLabel})
	if err != nil {
		return err
	}
	for _, ns := range namespaces.Items {
		if err := client.NetworkingV1().Ingresses(ns.Name).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			return err
		}
		if ns.DeletionTimestamp != nil {
			continue
		}
		if err := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	return client.NetworkingV1().IngressClasses().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: testLabel})
}

// curl runs curl on the client host and returns the body. Trouble of any kind,
// including an error status, is an error.
func curl(ctx context.Context, args ...string) (string, error) {
	return up.ExecClient(ctx, append([]string{"curl", "--silent", "--show-error", "--fail", "--max-time", "10"}, args...)...)
}
