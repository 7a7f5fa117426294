package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy"
)

// portico svcproxy --manifests works for somebody who is not root, by --mode relay and by auto: a
// NodePort answers with a backend that listens on loopback.
func TestSvcproxyRelayTakesNoPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the program runs as whoever runs the test")
	}
	dir, err := os.MkdirTemp("", "portico-relay") //nolint:usetesting // t.TempDir is for its owner alone, and the program is run by another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	binary := filepath.Join(dir, "portico")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "from the backend") }))
	t.Cleanup(backend.Close)
	for _, mode := range []string{"relay", "auto"} {
		t.Run(mode, func(t *testing.T) {
			testUnprivileged(t, dir, binary, mode, backend.Listener.Addr().(*net.TCPAddr).Port)
		})
	}
}

func testUnprivileged(t *testing.T, dir, binary, mode string, backend int) {
	t.Helper()
	nodePort, admin := freePort(t), freePort(t)
	folder := filepath.Join(dir, mode)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIP: 192.0.2.1
  ports: [{port: 80, nodePort: %d}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: %d}]
endpoints: [{addresses: [127.0.0.1]}]
`, nodePort, backend)
	if err := os.WriteFile(filepath.Join(folder, "web.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, "svcproxy", "--manifests", folder, "--mode", mode, "--admin", fmt.Sprintf("127.0.0.1:%d", admin), "--healthz-bind-address=")
	cmd.Stderr, cmd.Dir = &stderr, "/"
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	body, err := fetchPatiently(ctx, fmt.Sprintf("http://127.0.0.1:%d/", nodePort))
	if err != nil || body != "from the backend" {
		t.Errorf("the NodePort: %q, %v", body, err)
	}
	eventually(t, "the problem is told", func() error { // which follows what is served
		body, err := fetchPatiently(ctx, fmt.Sprintf("http://127.0.0.1:%d/api/v1/problems", admin))
		var problems problemsView
		if err := json.Unmarshal([]byte(body), &problems); err != nil || len(problems.Problems) != 1 ||
			!strings.Contains(problems.Problems[0].Text, "ClusterIP 192.0.2.1:80/TCP is not served in userspace: is not an address of this host") {
			return fmt.Errorf("problems: %s, %w", body, err)
		}
		return err
	})
	for to, want := range map[string]svcproxy.Verdict{
		fmt.Sprintf("127.0.0.1:%d/TCP", nodePort): svcproxy.Delivered,
		"192.0.2.1:80/TCP":                        svcproxy.PassedOn, // as the problem says
	} {
		var said, stderr bytes.Buffer
		code := run(ctx, []string{"explain", "packet", "127.0.0.1", to, "--admin", fmt.Sprintf("http://127.0.0.1:%d/", admin), "-o", "json"}, &said, &stderr)
		var e svcproxy.Explanation
		if err := json.Unmarshal(said.Bytes(), &e); err != nil || e.Service != "default/web" || e.Verdict != want ||
			e.Kernel.Plane != "userspace" || !e.Kernel.Agrees || (code == exitOK) != (want == svcproxy.Delivered) {
			t.Errorf("explain packet to %s: %d %s%s", to, code, said.String(), stderr.String())
		}
	}
	endpoint := fmt.Sprintf(`{endpoint="127.0.0.1:%d",namespace="default",port="",protocol="TCP",`, backend)
	body, _ = fetchPatiently(ctx, fmt.Sprintf("http://127.0.0.1:%d/metrics", admin))
	for _, want := range []string{
		fmt.Sprintf(`portico_svcproxy_relay_connections_total{frontend="*:%d",port="default/web:/TCP/IPv4"} 1`, nodePort),
		`portico_svcproxy_connections_total{action="forwarded",frontend="NodePort",namespace="default",port="",protocol="TCP",service="web"} 1`,
		`portico_svcproxy_undelivered_packets_total{reason="source-ranges",verdict="drop"} 0`,
		"portico_svcproxy_endpoint_connections_total" + endpoint + `service="web"} 1`,
		"portico_svcproxy_endpoint_failures_total" + endpoint + `reason="refused",service="web"} 0`,
		"portico_svcproxy_endpoint_received_bytes_total" + endpoint + `service="web"} `,
		"portico_svcproxy_endpoint_uncounted_total 0",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics are without %s: %s", want, body)
		}
	}
	if strings.Contains(body, "portico_svcproxy_endpoint_received_bytes_total"+endpoint+`service="web"} 0`) {
		t.Errorf("no bytes: %s", body)
	}
	cancel()
	_ = cmd.Wait()
	if why := strings.Contains(stderr.String(), "nftables cannot be used"); err != nil || why != (mode == "auto") {
		t.Errorf("it says why it does not use nftables: %v\n%s", why, stderr.String())
	}
}

// fetchPatiently asks until somebody listens, on a connection that is then closed.
func fetchPatiently(ctx context.Context, url string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(req)
		if errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
}

// freePort is one that nobody listens at, and that the kernel gives to nobody meanwhile
// (net.ipv4.ip_local_port_range).
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 20000 + rand.IntN(10000)
		if l, err := net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
}
