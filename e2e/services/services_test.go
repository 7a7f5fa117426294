// Package services tests `portico svcproxy` on a real cluster that has no kube-proxy: it is
// installed as manifests/install says, and everything else lives by it.
package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

const (
	repository    = "../.."
	archive       = repository + "/bin/portico.tar"
	installFolder = "testdata/install"
	// own is the namespace of svcproxy.
	own = "portico-svcproxy"
)

// The one cluster all tests share, and a client of its administrator's.
var (
	up     *cluster.Cluster
	client kubernetes.Interface
)

func TestMain(m *testing.M) {
	cfg := cluster.Config{Name: "services", WithoutKubeProxy: true}
	suite.Main(m, cfg, func(ctx context.Context, c *cluster.Cluster, admin kubernetes.Interface) error {
		up, client = c, admin
		g, installing := errgroup.WithContext(ctx)
		g.Go(func() error { return install(installing) })
		g.Go(func() error { return installDNS(installing) })
		return g.Wait()
	})
}

// readmeCommands are those that README has for a bare cluster, with what only this cluster knows: where its API server is, and which addresses
// of the segment are free.
func readmeCommands() (string, error) {
	text, err := os.ReadFile(repository + "/README.md")
	if err != nil {
		return "", err
	}
	_, after, ok := strings.Cut(string(text), "takes three commands")
	_, after, found := strings.Cut(after, "```sh\n")
	commands, _, closed := strings.Cut(after, "```")
	if !ok || !found || !closed {
		return "", errors.New("README.md has no three commands for a bare cluster")
	}
	for was, is := range map[string]string{
		"manifests/install/edge": installFolder,
		"[192.0.2.192/26]":       fmt.Sprintf("[%q, %q]", cluster.LoadBalancerCIDR4, cluster.LoadBalancerCIDR6),
	} {
		if strings.Count(commands, was) != 1 {
			return "", fmt.Errorf("README.md: %s is not in the three commands once:\n%s", was, commands)
		}
		commands = strings.Replace(commands, was, is, 1)
	}
	return commands, nil
}

// install is what README says for a bare cluster.
func install(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	if _, err := os.Stat(archive); err != nil {
		if out, err := exec.CommandContext(ctx, "make", "-C", repository, "image").CombinedOutput(); err != nil {
			return fmt.Errorf("make image: %w\n%s", err, out)
		}
	}
	if err := up.LoadImage(ctx, archive); err != nil {
		return err
	}
	// A host without a default route reaches no cluster IP: routing comes before svcproxy's rules.
	for _, node := range up.Nodes() {
		for _, ip := range up.ClientIPs() {
			if _, err := up.Exec(ctx, node, "ip", "route", "replace", "default", "via", ip.String()); err != nil {
				return err
			}
		}
	}
	commands, err := readmeCommands()
	if err != nil {
		return err
	}
	path := "PATH=" + filepath.Dir(up.Program("kubectl")) + ":" + os.Getenv("PATH")
	if out, err := up.ExecClient(ctx, "env", path, "sh", "-eu", "-c", commands); err != nil {
		return fmt.Errorf("the commands of README.md: %w\n%s", err, out)
	}
	_, err = up.Kubectl(ctx, "rollout", "status", "daemonset/portico-svcproxy", "-n", own, "--timeout=90s")
	return err
}

// newNamespace makes a namespace that goes with the test. If the test fails, what svcproxy says is shown.
func newNamespace(t *testing.T) string {
	t.Helper()
	return suite.NewNamespace(t, client, nil, func(ctx context.Context, name string) {
		if !t.Failed() {
			return
		}
		all, _ := up.Kubectl(ctx, "get", "pods,services,endpointslices", "-n", name, "-o", "wide")
		events, _ := up.Kubectl(ctx, "get", "events", "-n", name)
		logs, _ := up.Kubectl(ctx, "logs", "-n", own, "-l", "app.kubernetes.io/name=portico-svcproxy", "--tail=15", "--prefix")
		t.Logf("left behind:\n%s\n%s\n%s", all, events, logs)
	})
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func apply(t *testing.T, namespace, yaml string) {
	t.Helper()
	if _, err := up.KubectlInput(t.Context(), yaml, "apply", "-n", namespace, "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// echoPod is a Pod on a node that answers HTTP on 8080 and UDP on 8081.
func echoPod(name, node string, env ...string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: web, at: %s}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: localhost/echo:1
      imagePullPolicy: Never
      env: [{name: UDP_PORTS, value: "8081"}, {name: LAMEDUCK, value: "0s"}%s]
      readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
`, name, node, node, strings.Join(env, ""))
}

// startPods makes a Pod on each node and waits until they are ready.
func startPods(t *testing.T, namespace string) {
	t.Helper()
	apply(t, namespace, echoPod("one", "node1")+echoPod("two", "node2"))
	ready(t, namespace, "one", "two")
}

func ready(t *testing.T, namespace string, pods ...string) {
	t.Helper()
	for _, pod := range pods {
		suite.Wait(t, time.Minute, "Pod "+pod, func(ctx context.Context) string {
			p, err := client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
			if err != nil {
				return err.Error()
			}
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					return ""
				}
			}
			return string(p.Status.Phase)
		})
	}
}

func service(t *testing.T, namespace, name string) *corev1.Service {
	t.Helper()
	s, err := client.CoreV1().Services(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answer is what echo says of a request.
type answer struct {
	Pod        string              `json:"pod"`
	RemoteAddr string              `json:"remoteAddr"`
	Headers    map[string][]string `json:"headers"`
}

// httpFrom is a client on a host of the cluster, with a connection of its own for each request.
func httpFrom(host string, timeout time.Duration, keep bool) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: !keep,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return up.Dial(ctx, host, network, address)
		},
	}}
}

// ask asks echo.
func ask(ctx context.Context, c *http.Client, address string) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return a, err
	}
	res, err := c.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return a, err
	}
	if res.StatusCode != http.StatusOK {
		return a, fmt.Errorf("status %d: %.200s", res.StatusCode, body)
	}
	return a, json.Unmarshal(body, &a)
}

// askPacket sends a packet to echo, and gives its Pod and whom it saw.
func askPacket(ctx context.Context, host, address string) (pod, from string, err error) {
	conn, err := up.Dial(ctx, host, "udp", address)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return "", "", err
	}
	buf := make([]byte, 200)
	n, err := conn.Read(buf)
	pod, from, _ = strings.Cut(string(buf[:n]), " ")
	return pod, from, err
}

// vip waits for the address of a LoadBalancer Service, and until it answers from the client host.
func vip(t *testing.T, namespace, name string) string {
	t.Helper()
	var ip string
	took := suite.Wait(t, 20*time.Second, "an address for "+name, func(context.Context) string {
		for _, in := range service(t, namespace, name).Status.LoadBalancer.Ingress {
			ip = in.IP
			return ""
		}
		return "none"
	})
	t.Logf("%s has %s after %s", name, ip, took.Round(time.Millisecond))
	return ip
}

// answers waits until an address answers from the client host.
func answers(t *testing.T, address string) answer {
	t.Helper()
	var a answer
	took := suite.Wait(t, 20*time.Second, address+" answers", func(ctx context.Context) string {
		var err error
		a, err = ask(ctx, httpFrom(cluster.ClientHost, time.Second, false), address)
		return text(err)
	})
	t.Logf("%s answers after %s", address, took.Round(time.Millisecond))
	return a
}

// owners says which node answers for which address, as the Lease has it.
func owners(ctx context.Context) (map[string]string, error) {
	lease, err := client.CoordinationV1().Leases(own).Get(ctx, "portico-announce", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var record struct {
		Held   map[string][]string `json:"held"`
		Fenced []struct {
			Holder    string   `json:"holder"`
			Addresses []string `json:"addresses"`
		} `json:"fenced"`
	}
	if err := json.Unmarshal([]byte(lease.Annotations["portico.dev/announcements"]), &record); err != nil {
		return nil, err
	}
	by := map[string]string{}
	for node, all := range record.Held {
		for _, a := range all {
			by[a] = node
		}
	}
	for _, f := range record.Fenced {
		for _, a := range f.Addresses {
			by[a] = f.Holder
		}
	}
	return by, nil
}

// event waits for an Event on an object, whose text contains note.
func event(t *testing.T, kind, namespace, name, reason, note string) {
	t.Helper()
	suite.Wait(t, 20*time.Second, fmt.Sprintf("Event %s on %s %s", reason, kind, name), func(ctx context.Context) string {
		list, err := client.EventsV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		var seen []string
		for _, e := range list.Items {
			if e.Regarding.Kind != kind || e.Regarding.Name != name {
				continue
			}
			if e.Reason == reason && strings.Contains(e.Note, note) && e.Regarding.UID != "" {
				return ""
			}
			seen = append(seen, e.Reason+": "+e.Note)
		}
		return fmt.Sprintf("it has %q", seen)
	})
}

// svcproxyPod is the one on a node.
func svcproxyPod(t *testing.T, node string) string {
	t.Helper()
	list, err := client.CoreV1().Pods(own).List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("svcproxy of %s: %v, %d Pods", node, err, len(list.Items))
	}
	return list.Items[0].Name
}

// admin reads from the admin address of the svcproxy of a node.
func admin(t *testing.T, node, path string) string {
	t.Helper()
	res, err := httpFrom(node, 5*time.Second, false).Get("http://127.0.0.1:10276" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// metric reads one metric of the svcproxy of a node, by its name with its labels.
func metric(t *testing.T, node, name string) string {
	t.Helper()
	for line := range strings.Lines(admin(t, node, "/metrics")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no metric %s", name)
	return ""
}
