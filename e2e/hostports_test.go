package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/suite"
)

const hostPortsFolder = repository + "/manifests/install/hostports"

// Beside the Deployment, whose Service takes in the DaemonSet's Pods too: so this
// runs alone. Afterwards all is as before.
func TestADaemonSetServesOnThePortsOfItsNodes(t *testing.T) {
	e := portico(t)
	e.settled(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	host := ns + ".test"
	c := ca.issue(t, "ECDSA", month, host)
	putSecret(t, ns, "tls", c.crt, c.key)
	ing := withTLS(newIngress("hostports", rule{host: host, path: "/", backend: "blue"}), "tls", host)
	ing.Annotations = map[string]string{"portico.dev/ssl-redirect": "false"}
	createIngress(t, ns, ing)
	waitReplicasHave(t, e, host)

	kubectl(t, "apply", "-k", hostPortsFolder, "--dry-run=server")
	if a := askVia(t.Context(), fmt.Sprintf("::%s:80", up.NodeIP("node1")), "http://"+host+"/"); a.status != 0 {
		t.Errorf("somebody serves on port 80 already\n%s", a)
	}
	t.Cleanup(func() { endHostPorts(t) })
	kubectl(t, "apply", "-k", hostPortsFolder)
	start := time.Now()
	kubectl(t, "rollout", "status", "daemonset/portico", "-n", porticoNamespace, "--timeout=90s")
	t.Logf("the DaemonSet is ready after %s", time.Since(start).Round(time.Millisecond))
	for _, node := range up.Nodes() {
		for scheme, port := range map[string]int{"http": 80, "https": 443} {
			for _, ip := range up.NodeIPs(node) {
				t.Run(fmt.Sprintf("%s on %s at %s", scheme, node, ip), func(t *testing.T) {
					to := ip.String()
					if ip.Is6() {
						to = "[" + to + "]"
					}
					var last answer
					suite.Wait(t, 15*time.Second, "an answer", func(ctx context.Context) string {
						last = askVia(ctx, fmt.Sprintf("::%s:%d", to, port), scheme+"://"+host+"/", "--cacert", ca.file)
						if last.by() != "blue" {
							return last.String()
						}
						return ""
					})
					// The address of the client is kept, unless it is hidden by the CNI's port map.
					t.Logf("the backend was told %v", last.echo.Headers["X-Real-Ip"])
				})
			}
		}
	}
}

// endHostPorts makes the installation what it was.
func endHostPorts(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"delete", "daemonset", "portico", "-n", porticoNamespace, "--cascade=foreground", "--timeout=60s", "--ignore-not-found"},
		{"apply", "-k", installFolder},
		{"rollout", "status", "deployment/portico", "-n", porticoNamespace, "--timeout=90s"},
	} {
		if _, err := up.Kubectl(ctx, args...); err != nil {
			t.Error(err)
		}
	}
	ns, err := client.CoreV1().Namespaces().Get(ctx, porticoNamespace, metav1.GetOptions{})
	if err != nil || !strings.Contains(fmt.Sprint(ns.Labels), "enforce:restricted") {
		t.Errorf("the namespace is not restricted again: %v %v", ns.Labels, err)
	}
}
