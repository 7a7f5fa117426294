package filter

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/portico-ingress/portico/router/engine"
)

// passing answers 200 to what the filter lets through.
type passing struct{ filter *HTTPSRedirect }

func (p passing) Serve(x *engine.Exchange) {
	if !p.filter.Request(x) {
		x.Reply(http.StatusOK, "text/plain", []byte("passed"))
	}
	p.filter.Response(x)
	_ = x.Send() // the client tells
}

func (p passing) Refuse(x *engine.Exchange, _ *engine.Refusal) {
	x.Reply(http.StatusBadRequest, "", nil)
	_ = x.Send() // the client tells
}

func (passing) Done(*engine.Exchange) {}

// exchange sends one request, written by hand, through a filter.
func exchange(t *testing.T, f *HTTPSRedirect, secure bool, request string, trusted ...netip.Prefix) *http.Response {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &engine.Server{Handler: passing{f}, ProxyFrom: trusted}
	done := make(chan error)
	var conn net.Conn
	if secure {
		donor := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
		defer donor.Close()
		go func() { done <- server.ServeTLS(ln, &tls.Config{Certificates: donor.TLS.Certificates}) }()
		conn, err = tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	} else {
		go func() { done <- server.Serve(ln) }()
		conn, err = net.Dial("tcp", ln.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		if err := server.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		<-done
	})
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

func TestHTTPSRedirect(t *testing.T) {
	all, some := NewHTTPSRedirect(), NewHTTPSRedirect("a.example", "*.b.example")
	for _, tt := range []struct {
		name         string
		filter       *HTTPSRedirect
		secure       bool
		target, host string
		want         string // Location; "" for passed
	}{
		{"root", all, false, "/", "a.example", "https://a.example/"},
		{"path and query", all, false, "/x//y%2Fz?q=1&r", "a.example", "https://a.example/x//y%2Fz?q=1&r"},
		{"empty query", all, false, "/?", "a.example", "https://a.example/?"},
		{"port is dropped", all, false, "/x", "a.example:8080", "https://a.example/x"},
		{"host in normal form", all, false, "/x", "A.Example.", "https://a.example/x"},
		{"no other site", all, false, "//evil.example/", "a.example", "https://a.example//evil.example/"},
		{"whole URL", all, false, "http://a.example/x?y", "a.example", "https://a.example/x?y"},
		{"IPv6", all, false, "/x", "[::1]:8080", "https://[::1]/x"},
		{"https passes", all, true, "/", "a.example", ""},
		{"named host", some, false, "/x", "a.example", "https://a.example/x"},
		{"under a wildcard", some, false, "/x", "x.b.example", "https://x.b.example/x"},
		{"wildcard is one label", some, false, "/x", "y.x.b.example", ""},
		{"wildcard is not none", some, false, "/x", "b.example", ""},
		{"another host", some, false, "/x", "c.example", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := exchange(t, tt.filter, tt.secure, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", tt.target, tt.host))
			status := http.StatusPermanentRedirect
			if tt.want == "" {
				status = http.StatusOK
			}
			if r.StatusCode != status || r.Header.Get("Location") != tt.want {
				t.Errorf("got %d %q, want %d %q", r.StatusCode, r.Header.Get("Location"), status, tt.want)
			}
		})
	}
}

// A load balancer that ends TLS says so by the port that the client has connected to. There is nowhere else to send it.
func TestHTTPSRedirectBehindALoadBalancer(t *testing.T) {
	for port, want := range map[int]int{80: http.StatusPermanentRedirect, 443: http.StatusOK, 8443: http.StatusPermanentRedirect} {
		header := fmt.Sprintf("PROXY TCP4 192.0.2.1 198.51.100.2 55555 %d\r\n", port)
		r := exchange(t, NewHTTPSRedirect(), false, header+"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", netip.MustParsePrefix("127.0.0.0/8"))
		if r.StatusCode != want {
			t.Errorf("port %d: got %d, want %d", port, r.StatusCode, want)
		}
	}
}

func TestHTTPSRedirectNeedsAHost(t *testing.T) {
	if r := exchange(t, NewHTTPSRedirect(), false, "GET / HTTP/1.0\r\n\r\n"); r.StatusCode != http.StatusOK {
		t.Errorf("got %d, want it to pass: there is nowhere to send the client", r.StatusCode)
	}
}

func TestHTTPSRedirectString(t *testing.T) {
	for want, f := range map[string]*HTTPSRedirect{
		"https-redirect":                        NewHTTPSRedirect(),
		"https-redirect(*.b.example,a.example)": NewHTTPSRedirect("a.example", "*.b.example", "a.example"),
	} {
		if got := f.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestHTTPSRedirectAllocatesTheLocationOnly(t *testing.T) {
	r := &engine.Request{Host: []byte("a.example"), Target: []byte("/x?y"), Path: []byte("/x"), Query: []byte("y"), HasQuery: true}
	f := NewHTTPSRedirect("a.example")
	if n := testing.AllocsPerRun(100, func() {
		if f.covers(r.Host) {
			sink = location(r)
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

var sink []byte
