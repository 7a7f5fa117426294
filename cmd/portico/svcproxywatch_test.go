package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

const watchedObjects = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: 172.30.0.1
  ports: [{name: http, port: 80}]
  loadBalancerSourceRanges: [203.0.113.0/24]
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.180.0.10], nodeName: node0}
- {addresses: [10.180.0.11], nodeName: node0, targetRef: {kind: Pod, name: web-b}}
`

// One of two endpoints refuses: portico svcproxy skips it, and its API, its metrics and explain packet
// say so.
func TestSvcproxySkipsWhoRefuses(t *testing.T) {
	l := netlab.New(t, 2)
	l.Pods[0][0].Serve(t, 8080)
	dir := t.TempDir()
	binary := filepath.Join(dir, "portico")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	objects := filepath.Join(dir, "objects")
	if err := errors.Join(os.Mkdir(objects, 0o755), os.WriteFile(filepath.Join(objects, "web.yaml"), []byte(watchedObjects), 0o600)); err != nil {
		t.Fatal(err)
	}
	node := l.Nodes[0]
	portico := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), binary, append(args, "--manifests", objects)...)
		cmd.Env = append(os.Environ(), "NODE_NAME=node0")
		return cmd
	}
	proxy := portico("svcproxy", "--mode", "nftables", "--outlier-detection", "--admin", "127.0.0.1:10276")
	var stderr bytes.Buffer
	proxy.Stderr = &stderr
	var err error
	node.Do(t, func() { err = proxy.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proxy.Process.Signal(syscall.SIGTERM)
		_ = proxy.Wait()
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (c net.Conn, err error) {
			node.Do(t, func() { c, err = (&net.Dialer{}).DialContext(ctx, network, to) })
			return c, err
		},
	}}
	get := func(path string) string {
		t.Helper()
		response, err := client.Get("http://127.0.0.1:10276" + path)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return strings.ReplaceAll(string(body), `": `, `":`)
	}
	vip := netip.MustParseAddrPort("172.30.0.1:80")
	has := func(text string, all ...string) bool {
		for _, want := range all {
			if !strings.Contains(text, want) {
				return false
			}
		}
		return true
	}
	skipped := `"why":"skipped: refused 3 connections in ` // however long that took
	labels := `{endpoint="10.180.0.11:8080",namespace="default",port="http",protocol="TCP",`
	told := func() (missing string) {
		if got := get("/api/v1/outliers"); !has(got, `"node":"node0"`, `"endpoint":"10.180.0.11:8080"`, `"why":"refused 3 connections in `) {
			return got
		}
		if got := get("/metrics"); !has(got, "portico_svcproxy_outliers 1\n", "portico_svcproxy_outlier_ejections_total ",
			"portico_svcproxy_endpoint_failures_total"+labels+`reason="refused",service="web"}`,
			"portico_svcproxy_endpoint_received_bytes_total"+labels+`service="web"}`,
			`portico_svcproxy_source_range_drops_total{namespace="default",port="http",protocol="TCP",service="web"} `,
			`portico_svcproxy_undelivered_packets_total{reason="source-ranges",verdict="drop"} `, "portico_svcproxy_handover_passed_segments_total 0\n") {
			return got
		}
		var out []byte
		node.Do(t, func() {
			out, err = portico("explain", "packet", "192.168.0.100", "default/web:http/TCP").CombinedOutput()
		})
		if err != nil || !has(string(out), "no  10.180.0.11:8080 Pod web-b on node0: skipped: refused 3 connections in ", ", until ", "agrees") {
			return fmt.Sprintf("%v\n%s", err, out)
		}
		return ""
	}
	// It is skipped for ten seconds: on a machine that stands still it has to be provoked again.
	deadline := time.Now().Add(60 * time.Second)
	for missing := "all"; missing != ""; missing = told() {
		for !has(get("/api/v1/services"), skipped) {
			if time.Now().After(deadline) {
				t.Fatal(missing, get("/api/v1/services"))
			}
			_, _ = l.Client.Ask(t, "tcp", vip)
		}
		if time.Now().After(deadline) {
			t.Fatal(missing)
		}
		for range 20 {
			if _, err := l.Client.AskPatiently(t, "tcp", vip); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Client.Ask(t, "tcp", netip.MustParseAddrPort("192.0.2.1:80")); !errors.Is(err, netlab.ErrSilent) {
			t.Fatal(err)
		}
	}
}

// The data plane in userspace hears of failures from itself.
func TestWatchFlags(t *testing.T) {
	f := newSvcproxyFlags()
	f.changed = func(string) bool { return false }
	f.mode.value, f.outlierDetection = "relay", true
	plane, err := f.plane(zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer plane.close()
	if plane.watch.outliers == nil || plane.watch.outliers.Failures == nil || plane.watch.flows != nil {
		t.Errorf("%+v", plane.watch)
	}
}
