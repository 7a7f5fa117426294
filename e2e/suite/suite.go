// Package suite is what test packages on a real cluster have in common: the cluster they
// share, namespaces of their own, and waiting.
package suite

import (
	"context"
	"errors"
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

// keepEnv leaves the cluster up after the tests, for the next run and for looking around.
const keepEnv = "PORTICO_E2E_KEEP"

// Main is a TestMain: it runs m on the cluster that cfg describes, once prepare has been called with it
// and with a client of its administrator's. Not being able to run is a failure: a skipped test proves
// nothing.
func Main(m *testing.M, cfg cluster.Config, prepare func(context.Context, *cluster.Cluster, kubernetes.Interface) error) {
	flag.Parse()
	// Tests wait for the cluster more than they compute.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cfg.Log = os.Stderr
	code, err := run(ctx, m, cfg, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run runs the tests on a cluster: one that is up and fits, which is left alone
// afterwards, or a new one.
func run(ctx context.Context, m *testing.M, cfg cluster.Config, prepare func(context.Context, *cluster.Cluster, kubernetes.Interface) error) (code int, err error) {
	keep := os.Getenv(keepEnv) != ""
	up, err := cluster.Open(ctx, cfg)
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
		defer func() { err = errors.Join(err, up.Down(context.WithoutCancel(ctx))) }()
	}
	client, err := up.Client()
	if err != nil {
		return 1, err
	}
	if err := prepare(ctx, up, client); err != nil {
		return 1, err
	}
	// An interrupted run must still end the cluster, so it is ended from here.
	done := make(chan int, 1)
	go func() { done <- m.Run() }()
	select {
	case code = <-done:
	case <-ctx.Done():
		return 1, errors.New("interrupted")
	}
	if keep {
		fmt.Fprintf(os.Stderr, "the cluster stays up; logs in %s\n", up.Logs())
	}
	return code, nil
}

// Wait waits until cond is satisfied, which then returns nothing and until then what is still
// missing, and returns how long that took.
func Wait(t *testing.T, deadline time.Duration, what string, cond func(context.Context) string) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for last := ""; ; {
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

var notInNames = regexp.MustCompile("[^A-Za-z0-9]+")

// NewNamespace makes a namespace with a name that nobody else has, after the test's. When the test
// is over end is called, and the namespace and what is in it go.
func NewNamespace(t *testing.T, client kubernetes.Interface, labels map[string]string, end func(ctx context.Context, name string)) string {
	t.Helper()
	prefix := notInNames.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "-")
	prefix = strings.Trim(prefix[:min(len(prefix), 40)], "-")
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-", Labels: labels},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		end(ctx, ns.Name)
		if err := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	// Pods are refused until its default ServiceAccount is there.
	Wait(t, 20*time.Second, "namespace "+ns.Name, func(ctx context.Context) string {
		if _, err := client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	return ns.Name
}
