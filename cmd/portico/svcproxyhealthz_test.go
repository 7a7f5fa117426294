package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
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
	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// The words are kube-proxy's: load balancers and people know them.
func TestHealthzAnswers(t *testing.T) {
	updated := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name   string
		health svcproxy.ProxyHealth
		codes  map[string]int
	}{
		{"all is well", svcproxy.ProxyHealth{LastUpdated: updated, Healthy: true, NodeEligible: true}, map[string]int{"/healthz": 200, "/livez": 200, "/": 404}},
		{"a change waits", svcproxy.ProxyHealth{LastUpdated: updated, NodeEligible: true}, map[string]int{"/healthz": 503, "/livez": 503}},
		{"the node goes", svcproxy.ProxyHealth{LastUpdated: updated, Healthy: true}, map[string]int{"/healthz": 503, "/livez": 200}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &healthz{health: func() svcproxy.ProxyHealth { return c.health }}
			for path, code := range c.codes {
				w := httptest.NewRecorder()
				h.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
				if w.Code != code {
					t.Errorf("%s: %d, want %d", path, w.Code, code)
				}
				if code == http.StatusNotFound {
					continue
				}
				var got map[string]any
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s: %v %v %s", path, err, w.Header(), w.Body)
				}
				want := map[string]any{"healthy": c.health.Healthy, "currentTime": got["currentTime"], "lastUpdated": updated.Format(time.RFC3339)}
				if code == http.StatusOK {
					want["lastUpdated"] = got["currentTime"]
				}
				if path == "/healthz" {
					want["nodeEligible"] = c.health.NodeEligible
				}
				for k, v := range want {
					if got[k] != v {
						t.Errorf("%s: %s is %v, want %v", path, k, got[k], v)
					}
				}
				if len(got) != len(want) {
					t.Errorf("%s: %s", path, w.Body)
				}
			}
		})
	}
}

// Where kube-proxy runs, portico svcproxy starts and works all the same, and answers /healthz as soon as
// that has ended.
func TestSvcproxyBesideKubeProxy(t *testing.T) {
	h := netlab.NewHost(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "portico")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var taken []net.Listener
	h.Do(t, func() {
		for _, address := range []string{"0.0.0.0:10256", "127.0.0.1:10249"} {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, l)
		}
	})
	objects := filepath.Join(dir, "objects")
	if err := os.Mkdir(objects, 0o755); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	proxy := exec.CommandContext(t.Context(), binary, "svcproxy", "--manifests", objects, "--node-name", "node0")
	proxy.Stderr = &stderr
	var err error
	h.Do(t, func() { err = proxy.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range taken {
			_ = l.Close()
		}
		_ = proxy.Process.Signal(syscall.SIGTERM)
		_ = proxy.Wait()
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (c net.Conn, err error) {
			h.Do(t, func() { c, err = (&net.Dialer{}).DialContext(ctx, network, to) })
			return c, err
		},
	}}
	until := func(url string, code int, text string) {
		t.Helper()
		last := ""
		for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			response, err := client.Get(url)
			if err != nil {
				last = err.Error()
				continue
			}
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			last = response.Status + " " + string(body)
			if response.StatusCode == code && strings.Contains(string(body), text) {
				return
			}
		}
		t.Fatalf("%s: %s, want %d %s", url, last, code, text)
	}
	until("http://"+defaultAdmin+"/readyz", 200, "ok")
	until("http://"+defaultAdmin+"/api/v1/problems", 200, "address already in use; end who listens there")
	for _, l := range taken {
		_ = l.Close()
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		until("http://"+host+":10256/healthz", 200, `"nodeEligible": true`)
	}
	until("http://"+defaultAdmin+"/api/v1/problems", 200, `"problems": []`)
	// explain packet knows by it that this is the node, whatever the host is called.
	for node, want := range map[string]string{"node0": "agrees", "node1": "this is another host"} {
		explain := exec.CommandContext(t.Context(), binary, "explain", "packet", "192.0.2.1", "172.30.0.1:80/TCP", "--manifests", objects, "--node-name", node)
		var out []byte
		h.Do(t, func() { out, _ = explain.CombinedOutput() })
		if !strings.Contains(string(out), want) {
			t.Errorf("explain packet on %s lacks %q:\n%s", node, want, out)
		}
	}
}
