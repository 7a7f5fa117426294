package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portico-ingress/portico/e2e/suite"
)

// These take all requests that nobody else does, so they run alone.
func TestADefaultBackendAnswersWhatNoRuleDoes(t *testing.T) {
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	host := ns + ".test"
	withRules := newIngress("with-rules", rule{host: host, path: "/api", backend: "blue"})
	withRules.Spec.DefaultBackend = backendOf("green")
	withRules.Spec.Rules = append(withRules.Spec.Rules, networkingv1.IngressRule{Host: "bare." + host})
	createIngress(t, ns, withRules)
	e.settle(t)
	e.waitAnsweredBy(t, "blue", "http://"+host+"/api")

	for _, tt := range []struct{ name, url, want string }{
		{"of its Ingress, for other paths of its hosts", "http://" + host + "/other", "green"},
		{"of its Ingress, for a host without paths", "http://bare." + host + "/", "green"},
		{"of its Ingress, and of no other host", "http://other." + host + "/", "404"},
	} {
		t.Run(tt.name, func(t *testing.T) { e.mustBeAnsweredBy(t, tt.want, tt.url) })
	}

	t.Run("of an Ingress without rules, for all hosts", func(t *testing.T) {
		catchAll := newIngress("catch-all")
		catchAll.Spec.DefaultBackend = backendOf("red")
		createIngress(t, ns, catchAll)
		e.settle(t)
		e.mustBeAnsweredBy(t, "red", "http://other."+host+"/")
		e.mustBeAnsweredBy(t, "red", "http://elsewhere.test/some/path")
		e.mustBeAnsweredBy(t, "green", "http://"+host+"/other")
		second := newIngress("catch-all-too")
		second.Spec.DefaultBackend = backendOf("blue")
		createIngress(t, ns, second)
		e.waitProblem(t, "Ingress", ns, second.Name, "catch-all")
		e.mustBeAnsweredBy(t, "red", "http://elsewhere.test/")
		deleteIngress(t, ns, "catch-all")
		e.waitAnsweredBy(t, "blue", "http://elsewhere.test/")
		deleteIngress(t, ns, second.Name)
		e.waitAnsweredBy(t, "404", "http://elsewhere.test/")
	})
}

// With the flag, on the machine's loopback.
func TestADefaultBackendServiceAnswersWhatNoIngressDoes(t *testing.T) {
	t.Parallel()
	if err := haveImage(t.Context()); err != nil {
		t.Fatal(err)
	}
	backend := startEcho(t)
	dir := t.TempDir()
	host, port, _ := strings.Cut(backend, ":")
	yaml := fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: rest, namespace: default}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: rest, namespace: default, labels: {kubernetes.io/service-name: rest}}
addressType: IPv4
ports: [{name: http, port: %s}]
endpoints: [{addresses: [%s]}]
`, port, host)
	if err := os.WriteFile(filepath.Join(dir, "rest.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	l := startLocal(t, "--manifests", dir, "--default-backend-service", "default/rest")
	l.waitReady(t)
	status, body, err := get(t.Context(), "http://"+l.http+"/anything")
	if err != nil || status != 200 || !strings.Contains(string(body), `"requestURI": "/anything"`) {
		t.Errorf("got %d %s %v, want the backend's answer", status, body, err)
	}
	l.stop(t)
}

// startEcho starts an echo backend on the machine's loopback.
func startEcho(t *testing.T) (address string) {
	t.Helper()
	address = freePort(t)
	_, port, _ := strings.Cut(address, ":")
	cmd := exec.CommandContext(t.Context(), up.Program("echo"))
	cmd.Env = append(os.Environ(), "PORTS="+port, "NAME=local", "LAMEDUCK=0s")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	suite.Wait(t, 10*time.Second, "local echo", func(ctx context.Context) string {
		if _, _, err := get(ctx, "http://"+address+"/ready"); err != nil {
			return err.Error()
		}
		return ""
	})
	return address
}
