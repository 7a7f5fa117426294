package router

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// upstream is a real HTTP server of the standard library.
func upstream(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
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
