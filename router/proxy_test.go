package router

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// front is a proxy that listens, with one route to the given upstreams.
type front struct {
	*Proxy
	server *engine.Server
	addr   string
}

func startFront(t testing.TB, upstreams ...string) *front {
	t.Helper()
	targets := make([]Target, 0, len(upstreams))
	for _, u := range upstreams {
		targets = append(targets, Target{Address: netip.MustParseAddrPort(u), Name: u})
	}
	backends := NewBackends(BackendsConfig{NewPool: func(a netip.AddrPort) *engine.Pool {
		return engine.NewPool(a.String(), engine.PoolConfig{ReadTimeout: 5 * time.Second})
	}})
	t.Cleanup(func() { backends.Keep(nil) })
	b := backends.Get("test/echo:80")
	backends.SetTargets("test/echo:80", targets)
	route := &Route{Host: "h.test", Path: "/", Origin: "test/ingress", Service: "test/echo:80", Backend: b, Stats: new(Stats)}
	edit := NewTable().Edit()
	edit.Put(NewHost("h.test", []*Route{route}, nil))
	return startProxy(t, edit.Table(), ProxyConfig{})
}

func startProxy(t testing.TB, table *Table, cfg ProxyConfig) *front {
	t.Helper()
	p := NewProxy(cfg)
	p.Swap(table)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &engine.Server{Handler: p}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := contextWithTimeout(5 * time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != engine.ErrServerClosed {
			t.Errorf("serve: %v", err)
		}
	})
	return &front{Proxy: p, server: s, addr: ln.Addr().String()}
}

// upstream is a real HTTP server of the standard library.
func upstream(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// talk sends raw bytes and returns the answer to the last request in them.
func (f *front) talk(t testing.TB, raw string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, raw)
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%q: body: %v", raw, err)
	}
	return resp, string(body)
}

func TestProxyPassesARequestOn(t *testing.T) {
	f := startFront(t, upstream(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s host=%s xff=%s proto=%s real=%s", r.Method, r.RequestURI, r.Host,
			r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Real-IP"))
	}))
	resp, body := f.talk(t, "GET /a/../b?x=1 HTTP/1.1\r\nHost: H.test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
	if resp.StatusCode != 200 {
		t.Fatalf("status %d, body %q", resp.StatusCode, body)
	}
	if want := "GET /b?x=1 host=H.test xff=127.0.0.1 proto=http real=127.0.0.1"; body != want {
		t.Errorf("upstream saw %q, want %q", body, want)
	}
	if got := resp.Header.Get("Server"); got != "portico" {
		t.Errorf("Server: %q", got)
	}
}
