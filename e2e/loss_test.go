package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/load"
	"github.com/portico-ingress/portico/e2e/suite"
)

// traffic is steady load of several kinds of clients.
type traffic struct {
	kinds     []string
	processes []*load.Process
}

// steady starts load on a host: clients that keep their connections and never
// forgive one that is closed under a request, and clients that make a new one
// for each. Each node in nodes gets both.
func (e *edge) steady(t *testing.T, scheme, host string, rate int, nodes ...string) *traffic {
	t.Helper()
	tr := &traffic{}
	for _, node := range nodes {
		url := fmt.Sprintf("%s://%s/", scheme, netJoin(up.NodeIP(node).String(), e.port(scheme)))
		tr.add(t, node+" kept connections", load.Options{URL: url, Host: host, Rate: rate, StrictReuse: true})
		tr.add(t, node+" new connections", load.Options{URL: url, Host: host, Rate: rate, NewConnections: true})
	}
	return tr
}

func (tr *traffic) add(t *testing.T, kind string, o load.Options) {
	t.Helper()
	tr.kinds = append(tr.kinds, kind)
	tr.processes = append(tr.processes, startLoad(t, o))
}

// stop ends the load, prints what came of it and returns it by kind.
func (tr *traffic) stop(t *testing.T, during string) map[string]*load.Result {
	t.Helper()
	results := map[string]*load.Result{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, p := range tr.processes {
		wg.Go(func() {
			r, err := p.Stop()
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			results[tr.kinds[i]] = r
		})
	}
	wg.Wait()
	for _, kind := range slices.Sorted(maps.Keys(results)) {
		r := results[kind]
		t.Logf("%s, %s: %s; answers of %d Pods", during, kind, r, len(r.Pods))
	}
	return results
}

// mustLoseNothing ends the load, which must not have failed at all.
func (tr *traffic) mustLoseNothing(t *testing.T, during string) map[string]*load.Result {
	t.Helper()
	results := tr.stop(t, during)
	for kind, r := range results {
		if r.Failed > 0 || r.Stale > 0 || r.OK == 0 || r.OK != r.Sent {
			t.Errorf("%s, %s: %d of %d requests failed, %d were sent twice; the first:\n%s", during, kind, r.Failed, r.Sent, r.Stale, failures(r, 5))
		}
	}
	return results
}

func failures(r *load.Result, most int) string {
	var s []string
	for _, f := range r.Failures[:min(most, len(r.Failures))] {
		s = append(s, "  "+f.String())
	}
	return strings.Join(s, "\n")
}

// loadRate is for each kind of client; several of these tests share two cores.
const loadRate = 60

func nodesOf(replicas []replica) []string {
	var nodes []string
	for _, r := range replicas {
		if !slices.Contains(nodes, r.node) {
			nodes = append(nodes, r.node)
		}
	}
	return nodes
}

func TestNoRequestIsLostWhileADeploymentIsScaled(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 1})
	host := ns + ".test"
	createIngress(t, ns, newIngress("echo", rule{host: host, path: "/", backend: "echo"}))
	e.waitAnsweredBy(t, "echo", "http://"+host+"/")
	tr := e.steady(t, "http", host, loadRate, e.all()[0].node)
	for _, n := range []int{5, 1} {
		scale(t, ns, "echo", n)
		waitRollout(t, ns, "echo")
		waitEndpoints(t, ns, "echo", n)
	}
	waitGone(t, ns, 1)
	for kind, r := range tr.mustLoseNothing(t, "scaled 1 to 5 to 1") {
		if len(r.Pods) != 5 {
			t.Errorf("%s: answers of %d Pods, want 5", kind, len(r.Pods))
		}
	}
}

// waitGone waits until there are no more Pods than that, not even terminating ones.
func waitGone(t *testing.T, namespace string, left int) {
	t.Helper()
	suite.Wait(t, time.Minute, "Pods are gone", func(ctx context.Context) string {
		list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		if len(list.Items) > left {
			return fmt.Sprintf("%d are left", len(list.Items))
		}
		return ""
	})
}

func TestNoRequestIsLostInARollingUpdate(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 2})
	host := ns + ".test"
	createIngress(t, ns, newIngress("echo", rule{host: host, path: "/", backend: "echo"}))
	e.waitAnsweredBy(t, "echo", "http://"+host+"/")
	tr := e.steady(t, "http", host, loadRate, e.all()[0].node)
	kubectl(t, "rollout", "restart", "deployment/echo", "-n", ns)
	waitRollout(t, ns, "echo")
	waitGone(t, ns, 2)
	for kind, r := range tr.mustLoseNothing(t, "rolling update of 2 Pods") {
		if len(r.Pods) != 4 {
			t.Errorf("%s: answers of %d Pods, want 4", kind, len(r.Pods))
		}
	}
}

func TestNoRequestIsLostWhenAPodIsDeleted(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 2})
	host := ns + ".test"
	createIngress(t, ns, newIngress("echo", rule{host: host, path: "/", backend: "echo"}))
	e.waitAnsweredBy(t, "echo", "http://"+host+"/")
	list, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tr := e.steady(t, "http", host, loadRate, e.all()[0].node)
	kubectl(t, "delete", "pod", "-n", ns, list.Items[0].Name)
	waitRollout(t, ns, "echo")
	waitEndpoints(t, ns, "echo", 2)
	tr.mustLoseNothing(t, "a Pod deleted")
}

func TestNoRequestIsLostWhenACertificateIsRotated(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	host := ns + ".test"
	first := ca.issue(t, "ECDSA", month, host)
	putSecret(t, ns, "tls", first.crt, first.key)
	createIngress(t, ns, withTLS(newIngress("tls", rule{host: host, path: "/", backend: "blue"}), "tls", host))
	e.waitCertificate(t, host, first.serial)
	e.waitAnsweredBy(t, "blue", "https://"+host+"/", "--insecure")
	tr := e.steady(t, "https", host, loadRate/2, e.all()[0].node)
	serials := map[string]bool{first.serial: true}
	for i := range 10 {
		next := ca.issue(t, []string{"RSA", "ECDSA"}[i%2], month, host)
		serials[next.serial] = true
		putSecret(t, ns, "tls", next.crt, next.key)
		e.waitCertificate(t, host, next.serial)
	}
	for kind, r := range tr.mustLoseNothing(t, "10 rotations") {
		handshakes := 0
		for serial, n := range r.Certificates {
			handshakes += n
			if !serials[serial] {
				t.Errorf("%s: %d handshakes with a certificate of somebody else", kind, n)
			}
		}
		t.Logf("10 rotations, %s: %d handshakes, with %d certificates", kind, handshakes, len(r.Certificates))
		if strings.Contains(kind, "new") && len(r.Certificates) < 2 {
			t.Errorf("%s: the new certificates were not used", kind)
		}
	}
}
