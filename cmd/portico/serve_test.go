package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// transcript is what a running program has written until now.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// serving is a running `portico serve`.
type serving struct {
	stdout, stderr transcript
	http           string // host:port
	https, admin   string
	stop           context.CancelFunc // SIGTERM
	code           chan int           // gets the exit code
}

// start runs `portico serve` with args on free ports, and waits until it serves.
func start(t *testing.T, args ...string) *serving {
	t.Helper()
	s := launch(t, args...)
	line := regexp.MustCompile(`"http": ?"(.*?)", ?"https": ?"(.*?)", ?"admin": ?"(.*?)"`)
	eventually(t, "it serves", func() error {
		found := line.FindStringSubmatch(s.stderr.String())
		if found == nil {
			return fmt.Errorf("stderr: %s", s.stderr.String())
		}
		s.http, s.https, s.admin = found[1], found[2], found[3]
		return nil
	})
	return s
}

// launch runs it and waits for nothing.
func launch(t *testing.T, args ...string) *serving {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &serving{stop: cancel, code: make(chan int, 1)}
	args = append([]string{"serve", "--http=127.0.0.1:0", "--https=127.0.0.1:0", "--admin=127.0.0.1:0"}, args...)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.code <- run(ctx, args, &s.stdout, &s.stderr)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return s
}

// patience bounds every wait for something that has to come.
const patience = 30 * time.Second

// eventually tries until it succeeds.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: still not: %v", what, err)
}

func (s *serving) exit(t *testing.T) int {
	t.Helper()
	select {
	case code := <-s.code:
		return code
	case <-time.After(patience):
		t.Fatal("it does not exit")
		return -1
	}
}

// client speaks to addr whatever the URL says, with a connection for each request.
func client(t *testing.T, addr string) *http.Client {
	t.Helper()
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what is left of an HTTP response.
type answer struct {
	code   int
	body   string
	header http.Header
	tls    *tls.ConnectionState
}

func get(t *testing.T, addr, url string) answer {
	t.Helper()
	a, err := tryGet(t, addr, url)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tryGet(t *testing.T, addr, url string) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	r, err := client(t, addr).Do(req)
	if err != nil {
		return answer{}, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return answer{r.StatusCode, string(b), r.Header, r.TLS}, err
}

const webManifest = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: default}
spec:
  ingressClassName: portico
  rules:
    - host: %s
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: %s}]
endpoints: [{addresses: [127.0.0.1]}]
`

// webFolder is a folder of manifests for one host that leads to backend.
func webFolder(t *testing.T, host string, backend *httptest.Server) string {
	t.Helper()
	dir := t.TempDir()
	_, port, err := net.SplitHostPort(backend.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "web.yaml"), fmt.Sprintf(webManifest, host, port))
	return dir
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServeFolder(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Host, r.URL.Path)
	}))
	defer backend.Close()
	dir := webFolder(t, "a.example", backend)
	s := start(t, "--manifests", dir)

	if a := get(t, s.http, "http://a.example/x"); a.code != 200 || a.body != "a.example /x" || a.header.Get("Server") != "portico" {
		t.Errorf("over HTTP: %+v", a)
	}
	if a := get(t, s.https, "https://a.example/x"); a.code != 200 || a.body != "a.example /x" {
		t.Errorf("over HTTPS: %+v", a)
	}
	if a := get(t, s.http, "http://b.example/"); a.code != 404 {
		t.Errorf("an unknown host: %+v", a)
	}
	if a := get(t, s.admin, "http://admin/readyz"); a.code != 200 {
		t.Errorf("readyz: %+v", a)
	}
	if a := get(t, s.admin, "http://admin/api/v1/routes"); !strings.Contains(a.body, `"host": "a.example"`) {
		t.Errorf("routes: %+v", a)
	}
	if a := get(t, s.admin, "http://admin/api/v1/certificates"); !strings.Contains(a.body, "self-signed") {
		t.Errorf("certificates: %+v", a)
	}
	lines := []string{
		`portico_requests_total{host="a.example",ingress="default/web",method="GET",`,
		`portico_requests_total{host="",ingress="",method="GET",service="",status="4xx"} 1`,
		`portico_config_generation `,
		`portico_certificate_expiry_timestamp_seconds{name="self-signed"}`,
	}
	eventually(t, "the requests are counted", func() error { // which is after their last byte
		a := get(t, s.admin, "http://admin/metrics")
		for _, line := range lines {
			if !strings.Contains(a.body, line) {
				return fmt.Errorf("metrics have no line %s", line)
			}
		}
		return nil
	})
	write(t, filepath.Join(dir, "web.yaml"), strings.ReplaceAll(read(t, filepath.Join(dir, "web.yaml")), "a.example", "c.example"))
	eventually(t, "the new host is served", func() error {
		if a, err := tryGet(t, s.http, "http://c.example/"); err != nil || a.code != 200 {
			return fmt.Errorf("%+v, %w", a, err)
		}
		return nil
	})
	s.stop()
	if code := s.exit(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, s.stderr.String())
	}
	checkAccessLog(t, s.stdout.String())
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func checkAccessLog(t *testing.T, log string) {
	t.Helper()
	first, _, _ := strings.Cut(log, "\n")
	var line struct {
		Host, Path, Ingress, Endpoint string
		Status                        int
	}
	if err := json.Unmarshal([]byte(first), &line); err != nil {
		t.Fatalf("%v in %q", err, log)
	}
	if line.Host != "a.example" || line.Path != "/x" || line.Ingress != "default/web" || line.Endpoint == "" || line.Status != 200 {
		t.Errorf("access log: %s", first)
	}
}

// SIGTERM: not ready, new connections welcome for the delay, requests under way finished, exit 0.
func TestServeDrains(t *testing.T) {
	arrived, finish := make(chan struct{}, 1), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrived <- struct{}{}
			<-finish
		}
		fmt.Fprint(w, "done")
	}))
	defer backend.Close()
	const delay = time.Second
	s := start(t, "--manifests", webFolder(t, "a.example", backend), "--shutdown-delay="+delay.String(), "--shutdown-grace-period=1m")

	slow := make(chan error, 1)
	go func() {
		a, err := tryGet(t, s.http, "http://a.example/slow")
		if err == nil && a.body != "done" {
			err = fmt.Errorf("%+v", a)
		}
		slow <- err
	}()
	<-arrived
	stopped := time.Now()
	s.stop()
	eventually(t, "readyz says that it drains", func() error {
		if a := get(t, s.admin, "http://admin/readyz"); a.code != 503 || !strings.Contains(a.body, "draining") {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	if a := get(t, s.admin, "http://admin/healthz"); a.code != 500 {
		t.Errorf("healthz: %+v", a)
	}
	if a, err := tryGet(t, s.http, "http://a.example/"); a.code != 200 && time.Since(stopped) < delay {
		t.Errorf("a connection within the delay: %+v, %v", a, err)
	}
	eventually(t, "no more connections are accepted", func() error {
		if _, err := tryGet(t, s.http, "http://a.example/"); err == nil {
			return fmt.Errorf("one was")
		}
		return nil
	})
	close(finish)
	if err := <-slow; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if code := s.exit(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, s.stderr.String())
	}
}

// A request that never ends does not keep the process for ever.
func TestServeCutsOffAfterTheGracePeriod(t *testing.T) {
	arrived := make(chan struct{}, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	defer backend.Close()
	s := start(t, "--manifests", webFolder(t, "a.example", backend), "--shutdown-grace-period=100ms")
	go func() { _, _ = tryGet(t, s.http, "http://a.example/") }()
	<-arrived
	s.stop()
	if code := s.exit(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(s.stderr.String(), "cut off") {
		t.Errorf("stderr says nothing of it: %s", s.stderr.String())
	}
}

// Two cannot have one address. That is no wrong flag: it works once the other has gone.
func TestServeAddressInUse(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	code, _, stderr := command(t, "serve", "--manifests", t.TempDir(), "--http="+addr, "--https=", "--admin=")
	want := "portico: --http " + addr + ": bind: address already in use\n"
	if code != exitFailure || stderr != want {
		t.Errorf("code %d, stderr %q, want %q", code, stderr, want)
	}
}

const unreachableCluster = `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
current-context: c
`

// Without a cluster's answer there is nothing to serve: probes say so, clients wait, and
// SIGTERM ends it at once.
func TestServeUnreachableCluster(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	write(t, kubeconfig, unreachableCluster)
	s := launch(t, "--kubeconfig", kubeconfig)
	admin := regexp.MustCompile(`"admin": ?"(.*?)"`)
	eventually(t, "it starts", func() error {
		found := admin.FindStringSubmatch(s.stderr.String())
		if found == nil {
			return fmt.Errorf("stderr: %s", s.stderr.String())
		}
		s.admin = found[1]
		return nil
	})
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/healthz": 200, "/api/v1/routes": 200, "/api/v1/certificates": 200, "/metrics": 200} {
		if a := get(t, s.admin, "http://admin"+path); a.code != want {
			t.Errorf("%s: %+v, want %d", path, a, want)
		}
	}
	s.stop()
	if code := s.exit(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, s.stderr.String())
	}
}

func TestServeDemo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := start(t, "--demo")
	eventually(t, "it says what to try", func() error {
		if !strings.Contains(s.stdout.String(), "Ctrl+C") {
			return fmt.Errorf("stdout: %s", s.stdout.String())
		}
		return nil
	})
	if a := get(t, s.http, "http://demo.localhost/"); a.code != 200 || !strings.Contains(a.body, "It works.") {
		t.Errorf("page: %+v", a)
	}
	a := get(t, s.http, "http://demo.localhost/echo/hello")
	if a.code != 200 || !strings.Contains(a.body, `"target": "/echo/hello"`) || !strings.Contains(a.body, "X-Forwarded-Host: demo.localhost") {
		t.Errorf("echo: %+v", a)
	}
	a = get(t, s.https, "https://secure.localhost/echo")
	if a.code != 200 || a.tls.PeerCertificates[0].VerifyHostname("secure.localhost") != nil {
		t.Errorf("TLS: %+v", a)
	}
	seen := map[string]int{}
	for range 6 {
		seen[get(t, s.http, "http://demo.localhost/whoami?1").body]++
	}
	if seen["echo-1\n"] != 3 || seen["echo-2\n"] != 3 {
		t.Errorf("balancing: %v", seen)
	}
	if a := get(t, s.admin, "http://admin/api/v1/problems"); strings.Contains(a.body, "text") {
		t.Errorf("the demo has problems: %s", a.body)
	}
	s.stop()
	if code := s.exit(t); code != exitOK {
		t.Errorf("exit code %d\n%s", code, s.stderr.String())
	}
}
