package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/load"
	"github.com/portico-ingress/portico/e2e/suite"
)

// outage is how long the API server is away.
const outage = 60 * time.Second

func TestServingGoesOnWhileTheAPIServerIsAway(t *testing.T) {
	e := portico(t)
	e.settled(t)
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 2})
	paintServices(t, ns)
	ca := newAuthority(t)
	host := ns + ".test"
	c := ca.issue(t, "ECDSA", month, "tls."+host)
	putSecret(t, ns, "tls", c.crt, c.key)
	createIngress(t, ns, newIngress("echo", rule{host: host, path: "/", backend: "echo"}))
	createIngress(t, ns, withTLS(newIngress("tls", rule{host: "tls." + host, path: "/", backend: "blue"}), "tls", "tls."+host))
	e.waitAnsweredBy(t, "echo", "http://"+host+"/")
	e.waitCertificate(t, "tls."+host, c.serial)
	waitReplicasHave(t, e, host, "tls."+host)

	tr := e.steady(t, "http", host, loadRate, nodesOf(e.all())...)
	tr.add(t, "HTTPS new connections", load.Options{
		URL: "https://" + netJoin(up.NodeIP("node1").String(), e.https), Host: "tls." + host, Rate: 20, NewConnections: true,
	})
	t.Cleanup(func() { // whatever happens: all other tests need them
		for _, name := range []string{cluster.APIServer, cluster.ControllerManager} {
			_ = up.Start(context.Background(), name) // it says that it runs
		}
	})
	// A controller manager ends when it cannot renew its lease, and in this
	// cluster it has none. One that slept through the outage would take all nodes
	// for dead, for none has reported to it, and all Pods for not ready.
	stop := errors.Join(up.Stop(t.Context(), cluster.ControllerManager), up.Stop(t.Context(), cluster.APIServer))
	if stop != nil {
		t.Fatal(stop)
	}
	stopped := time.Now()

	// A backend that takes longer than Portico waits for one, meanwhile.
	// A POST, which is not tried again on another.
	slow := make(chan answer, 1)
	go func() { slow <- e.ask(t.Context(), "http://"+host+"/?sleep=90s", "--max-time", "80", "--data", "x=1") }()
	late := startLate(t)

	suite.Wait(t, outage+time.Minute, "the end of the outage", func(ctx context.Context) string {
		for _, r := range e.all() {
			if status, body, err := r.admin(ctx, "/readyz"); err != nil || status != http.StatusOK {
				t.Errorf("%s after %s: readyz %d %s %v", r.pod, time.Since(stopped), status, body, err)
			}
		}
		if status, body := late.admin(ctx, t, "/readyz"); status != http.StatusServiceUnavailable {
			t.Errorf("a Portico that started without an API server: readyz %d %s", status, body)
		}
		if left := outage - time.Since(stopped); left > 0 {
			return left.String() + " left"
		}
		return ""
	})
	if status, body := late.admin(t.Context(), t, "/livez"); status != http.StatusOK {
		t.Errorf("a Portico that started without an API server: livez %d %s", status, body)
	}
	if got := <-slow; got.status != http.StatusGatewayTimeout || wrongPage(got, 504, false) != "" {
		t.Errorf("want 504 from a backend that does not answer within a minute\n%s", got)
	}

	start := errors.Join(up.Start(t.Context(), cluster.APIServer), up.Start(t.Context(), cluster.ControllerManager))
	if start != nil {
		t.Fatal(start)
	}
	t.Logf("API server away for %s", time.Since(stopped).Round(time.Millisecond))
	suite.Wait(t, time.Minute, "the API server takes changes", func(context.Context) string {
		_, err := client.NetworkingV1().Ingresses(ns).Create(t.Context(), newIngress("after", rule{host: "after." + host, path: "/", backend: "blue"}), metav1.CreateOptions{})
		if err != nil {
			return err.Error()
		}
		return ""
	})
	created := time.Now()
	late.waitStatus(t, "/readyz", http.StatusOK)
	t.Logf("one that reads the cluster directly has caught up after %s", time.Since(created).Round(time.Millisecond))
	// Pods reach the API server by its Service, and kube-proxy takes up to a
	// minute until it asks again who is behind that. One that starts asks at once.
	for _, node := range up.Nodes() {
		name := node + "/kube-proxy"
		if err := errors.Join(up.Stop(t.Context(), name), up.Start(t.Context(), name)); err != nil {
			t.Fatal(err)
		}
	}
	reachable := time.Now()
	waitReplicasHave(t, e, "after."+host)
	e.mustBeAnsweredBy(t, "blue", "http://after."+host+"/")
	t.Logf("a new Ingress is served by all replicas %s after kube-proxy is up to date, %s after the Ingress was made",
		time.Since(reachable).Round(time.Millisecond), time.Since(created).Round(time.Millisecond))
	if took := time.Since(reachable); took > 10*time.Second {
		t.Errorf("that took %s, want 10s at most", took)
	}
	moved := time.Now()
	updateSlice(t, ns, "blue", "blue", 8080, endpoint{ip: paint(t)["red"]})
	suite.Wait(t, time.Minute, "the new endpoint is used", func(ctx context.Context) string {
		for range e.all() {
			if a := e.ask(ctx, "http://after."+host+"/"); a.by() != "red" {
				return a.String()
			}
		}
		return ""
	})
	t.Logf("a new endpoint is used %s after the change", time.Since(moved).Round(time.Millisecond))
	e.waitLeader(t)
	tr.mustLoseNothing(t, "API server away")
	wakeOthers(t)
	e.settled(t)
}

// wakeOthers restarts what would go on for up to a minute as if there were no API
// server, because it asks ever more seldom.
func wakeOthers(t *testing.T) {
	t.Helper()
	names := []string{cluster.Scheduler}
	for _, node := range up.Nodes() {
		names = append(names, node+"/kubelet")
	}
	for _, name := range names {
		if err := errors.Join(up.Stop(t.Context(), name), up.Start(t.Context(), name)); err != nil {
			t.Fatal(err)
		}
	}
	testNodesReady(t)
}

// waitReplicasHave waits until all replicas have routes for the hosts.
func waitReplicasHave(t *testing.T, e *edge, hosts ...string) {
	t.Helper()
	suite.Wait(t, 90*time.Second, fmt.Sprintf("all replicas serve %v", hosts), func(ctx context.Context) string {
		for _, r := range e.all() {
			v, err := r.table(ctx)
			if err != nil {
				return err.Error()
			}
			for _, host := range hosts {
				found := false
				for _, h := range v.Hosts {
					found = found || h.Host == host
				}
				if !found {
					return r.pod + " does not serve " + host
				}
			}
		}
		return ""
	})
}

// lateComer is a Portico on the client host that reads the cluster from there.
type lateComer struct{ address string }

// startLate starts one while there is no API server.
func startLate(t *testing.T) *lateComer {
	t.Helper()
	l := &lateComer{address: "127.0.0.1:10999"}
	cmd, err := up.Command(t.Context(), cluster.ClientHost, porticoBinary, "serve", "--kubeconfig", up.Kubeconfig(),
		"--http", "127.0.0.1:10998", "--https", "", "--admin", l.address, "--update-status=false")
	if err != nil {
		t.Fatal(err)
	}
	(&local{cmd: cmd, log: &tail{}}).start(t)
	l.waitStatus(t, "/readyz", http.StatusServiceUnavailable)
	return l
}

func (l *lateComer) waitStatus(t *testing.T, path string, want int) {
	t.Helper()
	waitFor(t, time.Minute, fmt.Sprintf("%s of the late one says %d", path, want), func(ctx context.Context) string {
		if status, body := l.admin(ctx, t, path); status != want {
			return fmt.Sprintf("%d %s", status, body)
		}
		return ""
	})
}

func (l *lateComer) admin(ctx context.Context, t *testing.T, path string) (status int, body string) {
	t.Helper()
	hc := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return up.DialClient(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := hc.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	var v map[string]string
	_ = json.NewDecoder(res.Body).Decode(&v)
	return res.StatusCode, strings.Join([]string{v["status"], v["error"]}, "")
}
