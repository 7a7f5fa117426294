package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testURLs = demoURLs{HTTP: "http://demo.localhost:8080", HTTPS: "https://secure.localhost:8443", Admin: "http://127.0.0.1:10254"}

func TestEcho(t *testing.T) {
	h := (&echo{name: "echo-1", urls: testURLs}).handler()
	r := httptest.NewRequest(http.MethodPost, "/echo/a%2Fb?c=d", strings.NewReader("hello"))
	r.Host = "demo.localhost"
	r.Header.Set("X-Request-Id", "1")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var got echoed
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := echoed{Backend: "echo-1", Method: "POST", Host: "demo.localhost", Target: "/echo/a%2Fb?c=d", Headers: []string{"X-Request-Id: 1"}, Body: "hello"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEchoSaysWhoItIs(t *testing.T) {
	h := (&echo{name: "echo-2"}).handler()
	if got := ask(h, http.MethodGet, "/whoami?1").Body.String(); got != "echo-2\n" {
		t.Errorf("%q", got)
	}
}

func TestDemoPage(t *testing.T) {
	h := (&echo{name: "echo-1", urls: testURLs}).handler()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-Evil", "<script>alert(1)</script>")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body := w.Body.String()
	for _, want := range []string{"curl http://demo.localhost:8080/echo/hello", `href="http://127.0.0.1:10254/api/v1/routes"`, "echo-1", "</html>"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if strings.Contains(body, "<script>alert") {
		t.Error("a header became a script")
	}
}
