// Package e2e tests Portico on a real cluster: real API server, kubelets and
// containers, the image as it is shipped, and clients on a host outside.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-ingress/portico/e2e/cluster"
)

// The one cluster all tests share, and a client of its administrator's.
var (
	up     *cluster.Cluster
	client kubernetes.Interface
)

// keepEnv leaves the cluster up after the tests, for the next run and for
// looking around.
const keepEnv = "PORTICO_E2E_KEEP"

func TestMain(m *testing.M) {
	flag.Parse()
	// Tests wait for the cluster more than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, m)
	if err != nil {
		// Not being able to run is a failure: a skipped test proves nothing.
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run runs the tests on a cluster: one that is up and fits, which is left alone
// afterwards, or a new one.
func run(ctx context.Context, m *testing.M) (code int, err error) {
	keep := os.Getenv(keepEnv) != ""
	cfg := cluster.Config{Log: os.Stderr}
	up, err = cluster.Open(ctx, cfg)
	if err != nil {
		fmt.Fprintf(os.Stderr, "booting a cluster: %v\n", err)
		if up, err = cluster.Up(ctx, cfg); err != nil {
			return 1, err
		}
	} else {
		fmt.Fprintln(os.Stderr, "using the cluster that is up")
		keep = true
	}
	if !keep {
		defer func() {
			if downErr := up.Down(context.WithoutCancel(ctx)); err == nil {
				err = downErr
			}
		}()
	}
	if client, err = up.Client(); err != nil {
		return 1, err
	}
	if err := clearLeftovers(ctx); err != nil {
		return 1, err
	}
	// An interrupted run must still end the cluster, so it is ended from here.
	done := make(chan int, 1)
	go func() { done <- m.Run() }()
	select {
	case code = <-done:
	case <-ctx.Done():
		return 1, fmt.Errorf("interrupted")
	}
	if keep {
		fmt.Fprintf(os.Stderr, "the cluster stays up; logs in %s\n", up.Logs())
	}
	return code, nil
}

// waitFor waits until cond is satisfied, which then returns nothing and until
// then what is still missing. It logs how long that took.
func waitFor(t *testing.T, deadline time.Duration, what string, cond func(context.Context) string) {
	t.Helper()
	t.Logf("%s after %s", what, waitQuietly(t, deadline, what, cond).Round(time.Millisecond))
}

// waitQuietly is waitFor for what nobody wants to read about unless it fails.
func waitQuietly(t *testing.T, deadline time.Duration, what string, cond func(context.Context) string) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	last := ""
	for {
		missing := cond(ctx)
		if missing == "" {
			return time.Since(start)
		}
		if ctx.Err() == nil || last == "" {
			last = missing
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s; last: %s", deadline, what, last)
		case <-tick.C:
		}
	}
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
	prefix := strings.ToLower(regexp.MustCompile("[^A-Za-z0-9]+").ReplaceAllString(strings.TrimPrefix(t.Name(), "Test"), "-"))
	prefix = strings.Trim(prefix[:min(len(prefix), 40)], "-")
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-", Labels: map[string]string{testLabel: ""}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endNamespace(t, ns.Name) })
	// Pods are refused until its default ServiceAccount is there.
	waitQuietly(t, 20*time.Second, "namespace "+ns.Name, func(ctx context.Context) string {
		if _, err := client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	return ns.Name
}

func endNamespace(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if t.Failed() {
		all, _ := up.Kubectl(ctx, "get", "pods,services,endpointslices,ingresses", "-n", name, "-o", "wide")
		events, _ := up.Kubectl(ctx, "get", "events", "-n", name, "--sort-by=.lastTimestamp")
		t.Logf("left behind:\n%s\n%s", all, events)
		pods, _ := up.Kubectl(ctx, "get", "pods", "-n", name, "-o", "name")
		for pod := range strings.FieldsSeq(pods) {
			logs, _ := up.Kubectl(ctx, "logs", "-n", name, pod, "--all-containers", "--tail=30")
			t.Logf("logs of %s:\n%s", pod, logs)
		}
	}
	if err := client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
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
