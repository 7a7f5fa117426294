package services

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/e2e/image"
	"github.com/portico-ingress/portico/e2e/suite"
)

const (
	dnsManifest = "testdata/dns/coredns.yaml"
	// dnsServer is what resolv.conf of every Pod says.
	dnsServer = "10.96.0.10:53"
)

// installDNS runs CoreDNS in the cluster. Its Pods start while svcproxy does, and read the cluster
// through the API server's Service.
func installDNS(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "coredns")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	archive := filepath.Join(dir, "coredns.tar")
	if err := image.WriteFile(image.Config{Binary: up.Program("coredns"), Name: "localhost/coredns:1"}, archive); err != nil {
		return err
	}
	if err := up.LoadImage(ctx, archive); err != nil {
		return err
	}
	_, err = up.Kubectl(ctx, "apply", "-f", dnsManifest)
	return err
}

// named are the Services that DNS is asked about; the Pods come after them.
const named = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: packets, port: 81, targetPort: 8081, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: set}
spec:
  clusterIP: None
  selector: {app: set}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.NAMESPACE.svc.cluster.local}
`

// namedPods are those of the headless Service. One is not ready.
const namedPods = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  serviceName: set
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: localhost/echo:1
          imagePullPolicy: Never
          env: [{name: LAMEDUCK, value: "0s"}]
          readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: late, labels: {app: set}}
spec:
  hostname: late
  subdomain: set
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: localhost/echo:1
      imagePullPolicy: Never
      env: [{name: LAMEDUCK, value: "0s"}]
      readinessProbe: {httpGet: {path: /ready, port: 1}}
---
`

// Names and environment variables, as Pods see them.
func testNames(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	apply(t, ns, strings.ReplaceAll(named, "NAMESPACE", ns))
	apply(t, ns, namedPods+echoPod("one", "node1")+echoPod("two", "node2"))
	pod := startInside(t, ns)
	ready(t, ns, "one", "two", "set-0", "set-1")
	t.Run("DNS", func(t *testing.T) {
		for _, network := range []string{"udp", "tcp"} {
			for _, l := range lookups(t, ns) {
				l.must(t, pod, network)
			}
		}
	})
	t.Run("by name", func(t *testing.T) {
		for target, want := range map[string][]string{
			"http://web/":                          {"one", "two"},
			"http://web." + ns + ".svc/":           {"one", "two"},
			"http://alias/":                        {"one", "two"},
			"http://set-0.set:8080/":               {"set-0"},
			"http://set-1.set." + ns + ".svc:8080": {"set-1"},
		} {
			// One of the DNS servers may know a name a moment before the other.
			suite.Wait(t, 30*time.Second, target, func(ctx context.Context) string {
				a, err := pod.ask(ctx, target)
				if err == nil && slices.Contains(want, a.Pod) {
					return ""
				}
				return a.Pod + text(err)
			})
		}
	})
	t.Run("environment", func(t *testing.T) { checkEnvironment(t, ns, pod) })
}

// lookupCase is a question and its only right answer.
type lookupCase struct {
	kind, name string
	want       []string
}

func lookups(t *testing.T, ns string) []lookupCase {
	t.Helper()
	web := service(t, ns, "web").Spec.ClusterIP
	zone := "." + ns + ".svc.cluster.local."
	set := []string{podIP(t, ns, "set-0"), podIP(t, ns, "set-1")}
	return []lookupCase{
		{"host", "web", []string{web}},
		{"host", "web." + ns, []string{web}},
		{"host", "web." + ns + ".svc.cluster.local.", []string{web}},
		{"srv", "_http._tcp.web", []string{"80 web" + zone}},
		{"srv", "_packets._udp.web", []string{"81 web" + zone}},
		{"addr", web, []string{"web" + zone}},
		{"host", "set", set},
		{"host", "set-0.set", set[:1]},
		{"host", "set-1.set", set[1:]},
		{"srv", "_http._tcp.set", []string{"8080 set-0.set" + zone, "8080 set-1.set" + zone}},
		{"addr", set[0], []string{"set-0.set" + zone}},
		{"cname", "alias", []string{"web" + zone}},
		{"host", "alias", []string{web}},
		{"host", "late.set" + zone, nil},
		{"host", "nobody" + zone, nil},
		{"host", "kubernetes.default.svc", []string{"10.96.0.1"}},
	}
}

// must ask until the answer is right: CoreDNS watches the cluster too. Every answer has to be of the
// cluster's DNS Service.
func (l lookupCase) must(t *testing.T, pod inside, network string) {
	t.Helper()
	l.want = slices.Sorted(slices.Values(l.want))
	suite.Wait(t, 30*time.Second, fmt.Sprintf("%s %s over %s is %q", l.kind, l.name, network, l.want), func(ctx context.Context) string {
		got, err := pod.lookup(ctx, network, l.kind, l.name)
		switch {
		case err != nil:
			return err.Error()
		case !slices.Equal(got.Asked, []string{network + " " + dnsServer}):
			return fmt.Sprintf("asked %q", got.Asked)
		case len(l.want) == 0 && !strings.Contains(got.Error, "no such host"), len(l.want) > 0 && got.Error != "", !slices.Equal(got.Answers, l.want):
			return fmt.Sprintf("%+v", got)
		}
		return ""
	})
}

// checkEnvironment finds Services by the variables that kubelets give to Pods.
func checkEnvironment(t *testing.T, ns string, pod inside) {
	t.Helper()
	env := pod.environment(t)
	s := service(t, ns, "web")
	for name, want := range map[string]string{
		"WEB_SERVICE_HOST": s.Spec.ClusterIP, "WEB_SERVICE_PORT": "80", "WEB_SERVICE_PORT_PACKETS": "81",
		"WEB_PORT_81_UDP":         "udp://" + s.Spec.ClusterIP + ":81",
		"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	if a, err := pod.ask(t.Context(), "http://"+env["WEB_SERVICE_HOST"]+":"+env["WEB_SERVICE_PORT"]); err != nil || a.Pod != "one" && a.Pod != "two" {
		t.Errorf("WEB_SERVICE_HOST leads to %q, %v", a.Pod, err)
	}
	for _, host := range []string{env["KUBERNETES_SERVICE_HOST"], "kubernetes.default.svc"} {
		body, err := pod.fetch(t.Context(), "https://"+host+":"+env["KUBERNETES_SERVICE_PORT"]+"/version")
		if err != nil || !strings.Contains(string(body), "gitVersion") {
			t.Errorf("API server at %s: %s %v", host, body, err)
		}
	}
}
