package main

import (
	"encoding/json"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// testAdmin serves one host with a route, a route without backend and a problem.
func testAdmin(t *testing.T) *admin {
	t.Helper()
	backends := router.NewBackends(router.BackendsConfig{})
	backends.SetTargets("default/web:80", []router.Target{
		{Address: netip.MustParseAddrPort("10.0.0.1:8080"), Name: "web-1", Zone: "a"},
		{Address: netip.MustParseAddrPort("[fd00::1]:8080")},
	})
	edit := router.NewTable().Edit()
	edit.Put(router.NewHost("a.example", []*router.Route{
		{Host: "a.example", Path: "/", Origin: "default/web", Service: "default/web:80", Backend: backends.Get("default/web:80")},
		{Host: "a.example", Path: "/gone", PathType: router.Exact, Origin: "default/web", Service: "default/gone:80", Status: 503, Reason: "no such Service"},
	}, nil))
	table := edit.Table()
	set := certs.NewSet(selfSigned(t), nil)
	return &admin{
		health:       &health{configured: func() bool { return true }},
		table:        func() *router.Table { return table },
		backends:     backends.All,
		certificates: set.Certificates,
		problems: func() []manifests.Problem {
			return []manifests.Problem{{Object: manifests.Ref{Kind: "Ingress", Namespace: "default", Name: "web"}, Field: "spec", Text: "no such Service"}}
		},
		metrics: http.NotFoundHandler(),
	}
}

func selfSigned(t *testing.T) *certs.Certificate {
	t.Helper()
	c, err := certs.SelfSigned("a.example")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestAdminProbes(t *testing.T) {
	a := testAdmin(t)
	configured := false
	a.health.configured = func() bool { return configured }
	h := a.handler()
	check := func(when string, livez, readyz, healthz int) {
		t.Helper()
		for path, want := range map[string]int{"/livez": livez, "/readyz": readyz, "/healthz": healthz} {
			if got := ask(h, "GET", path).Code; got != want {
				t.Errorf("%s: %s is %d, want %d", when, path, got, want)
			}
		}
	}
	check("at start", 200, 503, 200)
	configured = true
	check("serving", 200, 200, 200)
	a.health.drain()
	check("draining", 200, 503, 500)
}

func TestAdminAPI(t *testing.T) {
	h := testAdmin(t).handler()
	tests := []struct{ path, want string }{
		{"/api/v1/routes", `{
			"generation": 1,
			"hosts": [{"host": "a.example", "routes": [
				{"path": "/gone", "pathType": "Exact", "ingress": "default/web", "service": "default/gone:80", "status": 503, "reason": "no such Service", "filters": []},
				{"path": "/", "pathType": "Prefix", "ingress": "default/web", "service": "default/web:80", "backend": "default/web:80", "filters": []}
			]}]
		}`},
		{"/api/v1/backends", `{"backends": [{"name": "default/web:80", "pending": 0, "endpoints": [
			{"address": "10.0.0.1:8080", "pod": "web-1", "zone": "a", "inFlight": 0, "down": false, "state": "up"},
			{"address": "[fd00::1]:8080", "inFlight": 0, "down": false, "state": "up"}
		]}]}`},
		{"/api/v1/problems", `{"problems": [
			{"object": {"kind": "Ingress", "namespace": "default", "name": "web"}, "field": "spec", "text": "no such Service"}
		]}`},
	}
	for _, tt := range tests {
		w := ask(h, "GET", tt.path)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", tt.path, w.Code, w.Header())
		}
		if diff := cmp.Diff(decodeJSON(t, tt.want), decodeJSON(t, w.Body.String())); diff != "" {
			t.Errorf("%s: %s", tt.path, diff)
		}
	}
}

func decodeJSON(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return v
}

func TestAdminCertificatesHaveNoKeys(t *testing.T) {
	body := ask(testAdmin(t).handler(), "GET", "/api/v1/certificates").Body.String()
	if !strings.Contains(body, `"name": "self-signed"`) || !strings.Contains(body, `"notAfter"`) {
		t.Errorf("no certificate in %s", body)
	}
	if strings.Contains(strings.ToUpper(body), "PRIVATE") {
		t.Errorf("a key in %s", body)
	}
}

// Before there is anything to tell, lists are empty and not null.
func TestAdminListsAreNeverNull(t *testing.T) {
	a := &admin{
		health:       &health{configured: func() bool { return false }},
		table:        func() *router.Table { return nil },
		backends:     func() iter.Seq[*router.Backend] { return func(func(*router.Backend) bool) {} },
		certificates: func() []certs.Info { return nil },
		problems:     func() []manifests.Problem { return nil },
		metrics:      http.NotFoundHandler(),
	}
	for _, path := range []string{"routes", "backends", "certificates", "problems"} {
		w := ask(a.handler(), "GET", "/api/v1/"+path)
		if w.Code != 200 || strings.Contains(w.Body.String(), "null") || !strings.Contains(w.Body.String(), "[]") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestAdminRefusals(t *testing.T) {
	h := testAdmin(t).handler()
	tests := []struct {
		method, path string
		code         int
	}{
		{"GET", "/", 404},
		{"GET", "/api/v1/", 404},
		{"GET", "/api/v1/secrets", 404},
		{"GET", "/debug/pprof/", 404},
		{"POST", "/api/v1/routes", 405},
		{"DELETE", "/readyz", 405},
		{"PUT", "/nowhere", 404},
	}
	for _, tt := range tests {
		w := ask(h, tt.method, tt.path)
		if w.Code != tt.code || !strings.HasPrefix(w.Body.String(), "{\n  \"error\": ") {
			t.Errorf("%s %s: %d %s, want %d and JSON", tt.method, tt.path, w.Code, w.Body, tt.code)
		}
		if tt.code == 405 && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", tt.method, tt.path, w.Header().Get("Allow"))
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: headers %v", tt.method, tt.path, w.Header())
		}
	}
}

func TestAdminHead(t *testing.T) {
	s := httptest.NewServer(testAdmin(t).handler())
	defer s.Close()
	r, err := s.Client().Head(s.URL + "/api/v1/routes")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v", r.Status, r.Header)
	}
}
