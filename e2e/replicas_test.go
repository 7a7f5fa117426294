package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/suite"
)

// leader is the replica that the Lease names.
func (e *edge) leader(ctx context.Context) (replica, error) {
	lease, err := client.CoordinationV1().Leases(porticoNamespace).Get(ctx, "portico-leader", metav1.GetOptions{})
	if err != nil {
		return replica{}, err
	}
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	replicas, err := porticoReplicas(ctx)
	if err != nil {
		return replica{}, err
	}
	if i := slices.IndexFunc(replicas, func(r replica) bool { return r.pod == holder }); i >= 0 {
		return replicas[i], nil
	}
	return replica{}, fmt.Errorf("the Lease names %q, the replicas are %v", holder, replicas)
}

// waitLeader waits until one replica leads and says so, and no other does.
func (e *edge) waitLeader(t *testing.T) replica {
	t.Helper()
	var found replica
	waitFor(t, 40*time.Second, "one leader", func(ctx context.Context) string {
		r, err := e.leader(ctx)
		if err != nil {
			return err.Error()
		}
		replicas, err := porticoReplicas(ctx)
		if err != nil {
			return err.Error()
		}
		for _, other := range replicas {
			m, err := other.metrics(ctx)
			if err != nil {
				return err.Error()
			}
			want := 0.0
			if other.pod == r.pod {
				want = 1
			}
			if got := m.sum("portico_leader"); got != want {
				return fmt.Sprintf("portico_leader of %s is %v, want %v", other.pod, got, want)
			}
		}
		found = r
		return ""
	})
	return found
}

// The Service's externalTrafficPolicy is Local, and the load goes to both nodes.
func TestNoRequestIsLostWhilePorticoItselfIsRolledOver(t *testing.T) {
	e := portico(t)
	before := e.settled(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	host := ns + ".test"
	createIngress(t, ns, newIngress("echo", rule{host: host, path: "/", backend: "blue"}))
	waitReplicasHave(t, e, host)
	e.waitAnsweredBy(t, "blue", "http://"+host+"/")
	tr := e.steady(t, "http", host, loadRate, nodesOf(before)...)
	start := time.Now()
	kubectl(t, "rollout", "restart", "deployment/portico", "-n", porticoNamespace)
	waitRollout(t, porticoNamespace, "portico")
	after := e.settled(t)
	t.Logf("rolled over after %s", time.Since(start).Round(time.Millisecond))
	tr.mustLoseNothing(t, "Portico's own rolling restart")
	for _, r := range after {
		if slices.ContainsFunc(before, func(b replica) bool { return b.pod == r.pod }) {
			t.Errorf("%s is an old one", r.pod)
		}
	}
	e.mustAgree(t)
}

func TestTheStatusIsWrittenByOneReplicaAndAnotherTakesOver(t *testing.T) {
	e := portico(t)
	e.settled(t)
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 1})
	const address = "172.30.0.203"
	publish(t, address)
	old := e.waitLeader(t)
	host := ns + ".test"
	createIngress(t, ns, newIngress("first", rule{host: host, path: "/", backend: "echo"}))
	waitStatus(t, ns, "first", address)
	for _, r := range e.all() {
		m, err := r.metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := m.sum("portico_status_writes_total"); (n > 0) != (r.pod == old.pod) {
			t.Errorf("%s has written %v statuses; the leader is %s", r.pod, n, old.pod)
		}
	}

	// The leader goes while a request is under way.
	e.waitAnsweredBy(t, "echo", "http://"+host+"/")
	slow := make(chan answer, 1)
	go func() {
		slow <- e.askAt(t.Context(), up.NodeIP(old.node).String(), "http://"+host+"/?sleep=7s", "--max-time", "20")
	}()
	suite.Wait(t, 10*time.Second, "the request is under way", func(ctx context.Context) string {
		m, err := old.metrics(ctx)
		if err != nil {
			return err.Error()
		}
		if m.sum("portico_requests_in_flight") == 0 {
			return "it is not"
		}
		return ""
	})
	if err := client.CoreV1().Pods(porticoNamespace).Delete(t.Context(), old.pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	draining := map[string]string{}
	suite.Wait(t, 20*time.Second, "the old leader drains", func(ctx context.Context) string {
		status, body, err := old.admin(ctx, "/readyz")
		if err != nil {
			return err.Error()
		}
		if status != http.StatusServiceUnavailable || !strings.Contains(string(body), "draining") {
			return fmt.Sprintf("%d %s", status, body)
		}
		for _, path := range []string{"/healthz", "/livez"} {
			status, _, err := old.admin(ctx, path)
			draining[path] = fmt.Sprintf("%d %v", status, err)
		}
		return ""
	})
	if draining["/healthz"] != "500 <nil>" {
		t.Errorf("healthz while draining: %s, want 500", draining["/healthz"])
	}
	if draining["/livez"] != "200 <nil>" {
		t.Errorf("livez while draining: %s, want 200", draining["/livez"])
	}
	if a := <-slow; a.by() != "echo" || a.head.Get("Connection") != "close" {
		t.Errorf("the request under way: want its answer, with Connection: close\n%s", a)
	}
	e.settled(t)
	next := e.waitLeader(t)
	if next.pod == old.pod {
		t.Errorf("%s still leads", old.pod)
	}
	t.Logf("%s took over from %s within %s", next.pod, old.pod, time.Since(start).Round(time.Millisecond))
	createIngress(t, ns, newIngress("second", rule{host: "second." + host, path: "/", backend: "echo"}))
	waitStatus(t, ns, "second", address)
	waitStatus(t, ns, "first", address)
}

func TestAKilledReplicaComesBackAndServesTheSame(t *testing.T) {
	e := portico(t)
	replicas := e.settled(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	host := ns + ".test"
	c := ca.issue(t, "ECDSA", month, host)
	putSecret(t, ns, "tls", c.crt, c.key)
	ing := withTLS(newIngress("echo", rule{host: host, path: "/", backend: "blue"}), "tls", host)
	ing.Annotations = map[string]string{"portico.dev/ssl-redirect": "false"}
	createIngress(t, ns, ing)
	waitReplicasHave(t, e, host)
	e.waitAnsweredBy(t, "blue", "http://"+host+"/")
	victim, other := replicas[0], replicas[1]
	before := dump(t, victim, ns)

	restarts := restartsOf(t, victim)
	onVictim := e.steady(t, "http", host, loadRate, victim.node)
	onOther := e.steady(t, "http", host, loadRate, other.node)
	if err := up.KillContainer(t.Context(), porticoNamespace, victim.pod, "portico"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	suite.Wait(t, time.Minute, "the killed one is back", func(context.Context) string {
		pod, err := client.CoreV1().Pods(porticoNamespace).Get(t.Context(), victim.pod, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if s := pod.Status.ContainerStatuses[0]; s.RestartCount == restarts || !s.Ready {
			return fmt.Sprintf("restarts %d, ready %t", s.RestartCount, s.Ready)
		}
		return ""
	})
	t.Logf("killed with -9, and ready again after %s", time.Since(start).Round(time.Millisecond))
	e.settled(t)
	// kube-proxy has to hear of it; then it serves as before.
	node := up.NodeIP(victim.node).String()
	waitFor(t, 20*time.Second, "requests get to it again", func(ctx context.Context) string {
		return answeredBy("blue")(e.askAt(ctx, node, "http://"+host+"/"))
	})
	for range 20 {
		if a := e.askAt(t.Context(), node, "http://"+host+"/"); a.by() != "blue" {
			t.Errorf("the killed one, back again\n%s", a)
		}
	}
	onOther.mustLoseNothing(t, "the other replica killed")
	for kind, r := range onVictim.stop(t, "killed with -9") {
		last := time.Duration(0)
		for _, f := range r.Failures {
			last = max(last, f.After+f.Took)
		}
		t.Logf("%s: %d of %d failed, the last ended %s after the start of the load; the first:\n%s", kind, r.Failed, r.Sent, last.Round(time.Millisecond), failures(r, 3))
		if r.OK == 0 || last > r.Duration-time.Second && r.Failed > 0 {
			t.Errorf("%s: it does not serve again", kind)
		}
	}
	suite.Wait(t, 10*time.Second, "the same configuration", func(context.Context) string {
		if after := dump(t, victim, ns); after != before {
			return fmt.Sprintf("before:\n%s\nafter:\n%s", before, after)
		}
		return ""
	})
	e.mustAgree(t)
	state, err := handshakeAt(t.Context(), up.NodeIP(victim.node).String(), e.https, tlsFor(host))
	if err != nil || state.PeerCertificates[0].SerialNumber.Text(16) != c.serial {
		t.Errorf("the killed one, back again, has another certificate: %v", err)
	}
}

func restartsOf(t *testing.T, r replica) int32 {
	t.Helper()
	pod, err := client.CoreV1().Pods(porticoNamespace).Get(t.Context(), r.pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.Status.ContainerStatuses[0].RestartCount
}

// mustAgree waits until all replicas have the same configuration.
func (e *edge) mustAgree(t *testing.T) {
	t.Helper()
	waitFor(t, 20*time.Second, "all replicas have the same configuration", func(context.Context) string {
		all := e.all()
		first := dump(t, all[0], "")
		for _, r := range all[1:] {
			if other := dump(t, r, ""); other != first {
				return fmt.Sprintf("%s:\n%s\n%s:\n%s", all[0].pod, first, r.pod, other)
			}
		}
		return ""
	})
}

// dump is the configuration of a replica: the whole, or what is of one namespace.
// Only the generation, which counts the changes a process has seen, is left out.
func dump(t *testing.T, r replica, namespace string) string {
	t.Helper()
	table, err := r.table(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	table.Generation = 0
	if namespace != "" {
		table = table.of(namespace)
	}
	var backends backendsView
	if err := r.adminJSON(t.Context(), "/api/v1/backends", &backends); err != nil {
		t.Fatal(err)
	}
	backends.sort()
	backends.Backends = slices.DeleteFunc(backends.Backends, func(b backendView) bool {
		return namespace != "" && !strings.HasPrefix(b.Name, namespace+"/")
	})
	var all certificatesView
	if err := r.adminJSON(t.Context(), "/api/v1/certificates", &all); err != nil {
		t.Fatal(err)
	}
	// The self-signed default certificate is made at each start.
	all.Certificates = slices.DeleteFunc(all.Certificates, func(c certificateView) bool {
		return c.Default || namespace != "" && !strings.HasPrefix(c.Name, namespace+"/")
	})
	b, err := json.MarshalIndent([]any{table, backends, all}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sort puts everything in order.
func (v *backendsView) sort() {
	slices.SortFunc(v.Backends, func(a, b backendView) int { return strings.Compare(a.Name, b.Name) })
	for _, b := range v.Backends {
		slices.SortFunc(b.Endpoints, func(a, b endpointView) int { return strings.Compare(a.Address, b.Address) })
	}
}

// of is what the table has of Ingresses in some namespaces.
func (v *tableView) of(namespaces ...string) tableView {
	theirs := func(r routeView) bool {
		ns, _, _ := strings.Cut(r.Ingress, "/")
		return slices.Contains(namespaces, ns)
	}
	var some tableView
	for _, h := range v.Hosts {
		var routes []routeView
		for _, r := range h.Routes {
			if theirs(r) {
				routes = append(routes, r)
			}
		}
		if h.Fallback != nil && !theirs(*h.Fallback) {
			h.Fallback = nil
		}
		if h.Routes = routes; len(routes) > 0 || h.Fallback != nil {
			some.Hosts = append(some.Hosts, h)
		}
	}
	if v.Fallback != nil && theirs(*v.Fallback) {
		some.Fallback = v.Fallback
	}
	return some
}
