package services

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// balanced is a LoadBalancer Service; more is what its spec has besides.
func balanced(name, annotations, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s, annotations: {%s}}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
%s
---
`, name, annotations, more)
}

func TestLoadBalancer(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, balanced("web", "", ""))
	ip := vip(t, ns, "web")
	if !netip.MustParsePrefix(cluster.LoadBalancerCIDR4).Contains(netip.MustParseAddr(ip)) {
		t.Errorf("%s is not of the pool", ip)
	}
	answers(t, ip+":80")
	event(t, "Service", ns, "web", "AddressAssigned", ip)
	event(t, "Service", ns, "web", "Announced", ip)

	patch(t, ns, "web", `{"spec":{"externalTrafficPolicy":"Local"}}`)
	suite.Wait(t, 10*time.Second, "the client's own address arrives", func(ctx context.Context) string {
		a, err := ask(ctx, httpFrom(cluster.ClientHost, time.Second, false), ip+":80")
		if err != nil || !strings.HasPrefix(a.RemoteAddr, up.ClientIP().String()+":") {
			return a.RemoteAddr + text(err)
		}
		return ""
	})
	if got := service(t, ns, "web").Status.LoadBalancer.Ingress; len(got) != 1 || got[0].IP != ip {
		t.Errorf("the address has changed: %v", got)
	}

	if err := client.CoreV1().Services(ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	suite.Wait(t, 10*time.Second, "the Service is gone, and its finalizer with it", func(ctx context.Context) string {
		if _, err := client.CoreV1().Services(ns).Get(ctx, "web", metav1.GetOptions{}); err == nil {
			return "still there"
		}
		by, err := owners(ctx)
		return by[ip] + text(err)
	})
}

func patch(t *testing.T, namespace, name, body string) {
	t.Helper()
	if _, err := client.CoreV1().Services(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// With externalTrafficPolicy Local the address follows the endpoints, and the client's address
// arrives from wherever it is announced.
func TestLocalFollowsEndpoints(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	for pod, node := range map[string]string{"one": "node1", "two": "node2"} {
		apply(t, ns, balanced(pod, "", "  externalTrafficPolicy: Local"))
		patch(t, ns, pod, fmt.Sprintf(`{"spec":{"selector":{"at":%q}}}`, node))
		ip := vip(t, ns, pod)
		a := answers(t, ip+":80")
		if a.Pod != pod || !strings.HasPrefix(a.RemoteAddr, up.ClientIP().String()+":") {
			t.Errorf("%s: answer of %s, which saw %s", pod, a.Pod, a.RemoteAddr)
		}
		by, err := owners(t.Context())
		if err != nil || by[ip] != node {
			t.Errorf("%s is announced by %s, %v; want %s", ip, by[ip], err, node)
		}
	}
}

func TestEventsTellWhatIsWrong(t *testing.T) {
	ns := newNamespace(t)
	apply(t, own, `
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: bad}
spec: {addresses: [172.30.0.999-172.30.0.1000]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: one}
spec: {addresses: [192.0.2.7/32], autoAssign: false}
`)
	t.Cleanup(func() {
		if _, err := up.Kubectl(context.Background(), "delete", "ipaddresspool", "-n", own, "bad", "one"); err != nil {
			t.Error(err)
		}
	})
	event(t, "IPAddressPool", own, "bad", "BadPool", "172.30.0.999")
	apply(t, ns, balanced("first", "metallb.io/address-pool: one", ""))
	vip(t, ns, "first")
	apply(t, ns, balanced("second", "metallb.io/address-pool: one", ""))
	event(t, "Service", ns, "second", "NoAddress", "one")
	condition(t, ns, "first", "True", "Assigned", "192.0.2.7 of pool one")
	condition(t, ns, "second", "False", "NoAddress", "no free IPv4 address in one (192.0.2.7); add addresses to a pool")
	apply(t, ns, balanced("third", "portico.dev/loadBalancerIPs: 192.0.2.7", ""))
	event(t, "Service", ns, "third", "NoAddress", "192.0.2.7")
	apply(t, ns, balanced("fourth", "portico.dev/loadBalancerIPs: 192.0.2.x", ""))
	event(t, "Service", ns, "fourth", "NoAddress", "192.0.2.x")

	// The first is deleted, and somebody else's finalizer keeps it: its address is the second's all the same, and its own no more.
	patch(t, ns, "first", `{"metadata":{"finalizers":["service.kubernetes.io/load-balancer-cleanup","example.com/hold"]}}`)
	if err := client.CoreV1().Services(ns).Delete(t.Context(), "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		body := []byte(`{"metadata":{"finalizers":null}}`)
		_, err := client.CoreV1().Services(ns).Patch(context.Background(), "first", types.MergePatchType, body, metav1.PatchOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	condition(t, ns, "second", "True", "Assigned", "192.0.2.7 of pool one")
	if s := service(t, ns, "first"); len(s.Status.LoadBalancer.Ingress) > 0 || fmt.Sprint(s.Finalizers) != "[example.com/hold]" || len(s.Status.Conditions) != 1 {
		t.Errorf("the first has %v, %v", s.Finalizers, s.Status)
	}

	// Two Services with one external IP and port.
	const external = "  externalIPs: [192.0.2.50]"
	for _, name := range []string{"fifth", "sixth"} {
		apply(t, ns, strings.Replace(balanced(name, "", external), "LoadBalancer", "ClusterIP", 1))
	}
	event(t, "Service", ns, "sixth", "NotServed", "192.0.2.50")
}

// condition waits until a Service says so of its address, beside a condition of somebody else's, which stays.
func condition(t *testing.T, namespace, name, status, reason, message string) {
	t.Helper()
	body := []byte(`{"status":{"conditions":[{"type":"example.com/Ready","status":"True","reason":"Theirs","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`)
	if _, err := client.CoreV1().Services(namespace).Patch(t.Context(), name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	suite.Wait(t, 20*time.Second, "the condition of "+name, func(context.Context) string {
		all := service(t, namespace, name).Status.Conditions
		for _, c := range all {
			if c.Type == "portico.dev/AddressAssigned" && len(all) == 2 && string(c.Status) == status && c.Reason == reason && strings.Contains(c.Message, message) {
				return ""
			}
		}
		return fmt.Sprint(all)
	})
}

// The namespace of a pool counts, and a pool that is edited to something that cannot be read takes nothing off the air.
func TestPoolsThatDoNotCount(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, `
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: tenants}
spec: {addresses: [192.0.2.9/32]}
`)
	event(t, "IPAddressPool", ns, "tenants", "BadPool", "start svcproxy with --lb-pool-namespace")
	l2 := func(expression string) string {
		return `
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: typo}
spec: {ipAddressPools: [typo], nodeSelectors: [{matchExpressions: [{` + expression + `}]}]}
`
	}
	pool := func(addresses string) string {
		return "\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: typo}\nspec: {addresses: [" + addresses + "], autoAssign: false}\n---\n"
	}
	const free = "172.30.1.7"
	apply(t, own, pool(free+"/32")+l2("key: kubernetes.io/hostname, operator: Exists"))
	t.Cleanup(func() {
		if _, err := up.Kubectl(context.Background(), "delete", "ipaddresspool,l2advertisement", "-n", own, "typo"); err != nil {
			t.Error(err)
		}
	})
	apply(t, ns, balanced("web", "metallb.io/address-pool: typo", ""))
	vip(t, ns, "web")
	holder := func(ctx context.Context) string {
		by, err := owners(ctx)
		if err != nil || by[free] == "" {
			return "nobody has " + free + text(err)
		}
		return ""
	}
	suite.Wait(t, 20*time.Second, "a node has the address", holder)
	for spec, why := range map[string]string{
		l2("key: kubernetes.io/hostname, operator: Perhaps"):                                                   `Unsupported value: "Perhaps"`,
		l2("key: kubernetes.io/hostname, operator: In"):                                                        "spec.nodeSelectors[0].matchExpressions[0]",
		l2("key: kubernetes.io/hostname, operator: Exists, values: [node1]"):                                   "spec.nodeSelectors[0].matchExpressions[0]",
		strings.Replace(l2("key: a, operator: Exists"), "nodeSelectors", "serviceSelectors", 1):                "spec.serviceSelectors: Too many",
		strings.Replace(l2("key: a, operator: Exists"), "nodeSelectors", `interfaces: [""], nodeSelectors`, 1): "spec.interfaces[0]",
	} {
		if _, err := up.KubectlInput(t.Context(), spec, "apply", "-n", own, "-f", "-"); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("the API server does not refuse with %q: %v\n%s", why, err, spec)
		}
	}
	// What it cannot know to be wrong takes nothing off the air.
	apply(t, own, pool(free+"/320")+l2("key: a host, operator: Exists"))
	event(t, "IPAddressPool", own, "typo", "BadPool", "/320")
	event(t, "L2Advertisement", own, "typo", "BadL2Advertisement", "it counts as it was before")
	condition(t, ns, "web", "True", "KeepsAddress", "the Service keeps "+free)
	if missing := holder(t.Context()); missing != "" {
		t.Error(missing)
	}
}

// A program on the node has the port that a Service's health checks are to be answered on.
func TestHealthCheckNodePortTaken(t *testing.T) {
	ns := newNamespace(t)
	host := strings.Replace(echoPod("host", "node1", `, {name: PORTS, value: "31999"}`), "  nodeName", "  hostNetwork: true\n  nodeName", 1)
	host = strings.Replace(host, "port: 8080", "port: 31999", 1)
	apply(t, ns, host)
	ready(t, ns, "host")
	apply(t, ns, balanced("web", "", "  externalTrafficPolicy: Local\n  healthCheckNodePort: 31999"))
	event(t, "Service", ns, "web", "FailedToStartServiceHealthcheck", "31999")
}

// Portico's own edge is behind a LoadBalancer Service, and sees the addresses of clients.
func TestEdgeBehindItsOwnLoadBalancer(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: portico
  defaultBackend: {service: {name: web, port: {number: 80}}}
`)
	ip := vip(t, "portico", "portico")
	// It may have begun before svcproxy did, and then its first look for the API server was in vain.
	if _, err := up.Kubectl(t.Context(), "rollout", "status", "deployment/portico", "-n", "portico", "--timeout=120s"); err != nil {
		t.Fatal(err)
	}
	a := answers(t, ip+":80")
	if got := strings.Join(a.Headers["X-Forwarded-For"], ","); got != up.ClientIP().String() {
		t.Errorf("X-Forwarded-For is %q, want %s", got, up.ClientIP())
	}
	suite.Wait(t, 20*time.Second, "the Ingress has the address", func(ctx context.Context) string {
		in, err := client.NetworkingV1().Ingresses(ns).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		for _, l := range in.Status.LoadBalancer.Ingress {
			if l.IP == ip {
				return ""
			}
		}
		return fmt.Sprint(in.Status)
	})
}
