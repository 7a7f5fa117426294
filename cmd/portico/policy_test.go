package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const policyManifest = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: default
  annotations:
    nginx.ingress.kubernetes.io/load-balance: ewma
    nginx.ingress.kubernetes.io/affinity: cookie
    nginx.ingress.kubernetes.io/session-cookie-name: SERVERID
    nginx.ingress.kubernetes.io/proxy-next-upstream: error timeout http_503
    portico.dev/health-check: http
    portico.dev/health-check-path: /healthz
    portico.dev/health-check-interval: 1s
    portico.dev/health-check-fall: "1"
spec:
  ingressClassName: portico
  rules:
    - host: a.example
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80}]}
`

const policySlice = `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-%d, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: %s}]
endpoints: [{addresses: [127.0.0.1]}]
`

// From annotations to metrics, by the whole program: an answer that is retried, a session, an
// endpoint that fails its check and one that does not.
func TestServeWithAPolicy(t *testing.T) {
	var ill atomic.Bool
	manifest := policyManifest
	for i := range 2 {
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if i == 0 && (ill.Load() || r.URL.Path == "/busy") {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			fmt.Fprint(w, i)
		}))
		defer backend.Close()
		_, port, err := net.SplitHostPort(backend.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		manifest += fmt.Sprintf(policySlice, i, port)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "web.yaml"), manifest)
	s := start(t, "--manifests", dir)

	for range 20 {
		if a := get(t, s.http, "http://a.example/busy"); a.code != 200 || a.body != "1" {
			t.Fatalf("one endpoint answers 503: %+v", a)
		}
	}
	a := get(t, s.http, "http://a.example/")
	if cookie := a.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "SERVERID=") || !strings.HasSuffix(cookie, "; Path=/; HttpOnly") {
		t.Errorf("Set-Cookie: %q", cookie)
	}
	ill.Store(true)
	eventually(t, "the check takes the endpoint out", func() error {
		if a := get(t, s.admin, "http://admin/api/v1/backends"); strings.Count(a.body, `"state": "unhealthy"`) != 1 {
			return fmt.Errorf("%s", a.body)
		}
		return nil
	})
	m := get(t, s.admin, "http://admin/metrics").body
	for _, line := range []string{
		`portico_backend_endpoints_out{backend="default/web:80",state="unhealthy"} 1`,
		`portico_endpoints{state="unhealthy"} 1`,
		`portico_backend_retries_total{backend="default/web:80",reason="status"} `,
	} {
		if !strings.Contains(m, line) {
			t.Errorf("metrics have no line %s", line)
		}
	}
	if a := get(t, s.admin, "http://admin/api/v1/routes"); !strings.Contains(a.body, "sticky=balanced(SERVERID)") {
		t.Errorf("the policy of the route: %s", a.body)
	}
	ill.Store(false)
	eventually(t, "the check brings it back", func() error {
		if a := get(t, s.admin, "http://admin/api/v1/backends"); strings.Contains(a.body, "unhealthy") {
			return fmt.Errorf("%s", a.body)
		}
		return nil
	})
}
