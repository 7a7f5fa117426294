package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// secureHost makes a host with TLS that leads to blue, and also serves plain
// HTTP.
func secureHost(t *testing.T, e *edge, ns string) (host string, ca *authority) {
	t.Helper()
	paintServices(t, ns)
	ca = newAuthority(t)
	host = ns + ".test"
	c := ca.issue(t, "ECDSA", month, host)
	putSecret(t, ns, "tls", c.crt, c.key)
	ing := withTLS(newIngress("secure", rule{host: host, path: "/", backend: "blue"}), "tls", host)
	ing.Annotations = map[string]string{"portico.dev/ssl-redirect": "false"}
	createIngress(t, ns, ing)
	e.settle(t)
	e.waitCertificate(t, host, c.serial)
	return host, ca
}

func TestCurl(t *testing.T) {
	t.Parallel()
	e := portico(t)
	host, ca := secureHost(t, e, newNamespace(t))
	for _, tt := range []struct {
		name, scheme, path string
		args               []string
		proto              string
		want               func(answer) bool
	}{
		{"HTTP/1.0", "http", "/", []string{"--http1.0"}, "HTTP/1.1", nil},
		{"HTTP/1.1", "http", "/", []string{"--http1.1"}, "HTTP/1.1", nil},
		{"HTTP/2", "https", "/", []string{"--http2"}, "HTTP/2", nil},
		{"an upgrade to h2c is not taken up", "http", "/", []string{"--http2"}, "HTTP/1.1", nil},
		{"HEAD", "https", "/?bytes=100000", []string{"--head"}, "HTTP/2", func(a answer) bool {
			return a.body == "" && a.head.Get("Content-Length") == "100000"
		}},
		{"a form", "https", "/", []string{"--data", "a=b"}, "HTTP/2", func(a answer) bool { return a.echo.BodyLength == 3 }},
		{
			"an upload that asks first", "http", "/",
			[]string{"--http1.1", "--expect100-timeout", "5", "--header", "Expect: 100-continue", "--data", "a=b"},
			"HTTP/1.1",
			func(a answer) bool { return a.echo.BodyLength == 3 },
		},
		{
			"an upload of unknown length", "http", "/",
			[]string{"--http1.1", "--header", "Transfer-Encoding: chunked", "--data", "a=b"},
			"HTTP/1.1",
			func(a answer) bool { return a.echo.BodyLength == 3 },
		},
		{"compression is the backend's", "https", "/", []string{"--compressed"}, "HTTP/2", func(a answer) bool {
			return strings.Contains(strings.Join(a.echo.Headers["Accept-Encoding"], ","), "gzip")
		}},
		{"a large answer", "https", "/?bytes=3000000", []string{"--http1.1"}, "HTTP/1.1", func(a answer) bool { return len(a.body) == 3000000 }},
		{"a range is the backend's", "http", "/", []string{"--range", "0-1"}, "HTTP/1.1", func(a answer) bool {
			return strings.Join(a.echo.Headers["Range"], "") == "bytes=0-1"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := e.ask(t.Context(), tt.scheme+"://"+host+tt.path, append(tt.args, "--cacert", ca.file)...)
			if a.err != nil || a.by() != "blue" || a.proto != tt.proto || tt.want != nil && !tt.want(a) {
				t.Error(a)
			}
		})
	}
}

// nghttp shows the frames, so what is asked for is seen there.
func TestNghttp(t *testing.T) {
	t.Parallel()
	e := portico(t)
	host, _ := secureHost(t, e, newNamespace(t))
	ask := func(args ...string) (string, error) {
		argv := append([]string{"timeout", "20", "nghttp", "--verbose", "--no-verify-peer", "--header=:authority: " + host}, args...)
		return up.ExecClient(t.Context(), append(argv, "https://"+netJoin(e.next(), e.https)+"/")...)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string // in what it writes
	}{
		{"one request", nil, `:status: 200`},
		{"many on one connection", []string{"--multiply=50", "--null-out"}, `(?s)(:status: 200.*){50}`},
		{"a small window", []string{"--window-bits=1", "--null-out"}, `:status: 200`},
		{"padding", []string{"--padding=200"}, `:status: 200`},
		{"a header block in CONTINUATION frames", []string{"--continuation"}, `:status: 200`},
		{"trailers of the request", []string{"--trailer=x-checksum: 1", "--data=/etc/hostname"}, `:status: 200`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := ask(tt.args...)
			if err != nil || !regexp.MustCompile(tt.want).MatchString(out) || strings.Contains(strings.ReplaceAll(out, "NO_ERROR", ""), "_ERROR") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Each event is there before the next is sent.
func TestEventsComeAsTheyAreSent(t *testing.T) {
	t.Parallel()
	e := portico(t)
	host, ca := secureHost(t, e, newNamespace(t))
	for _, version := range []string{"--http1.1", "--http2"} {
		out, err := up.ExecClient(t.Context(), "curl", "--silent", "--no-buffer", "--max-time", "20", version, "--cacert", ca.file,
			"--connect-to", fmt.Sprintf("::%s:%d", e.next(), e.https), "--write-out", "%{time_starttransfer} %{time_total}",
			"https://"+host+"/sse?count=4&interval=500ms")
		if err != nil {
			t.Fatal(err)
		}
		var first, last float64
		if _, err := fmt.Sscan(out[strings.LastIndex(out, "\n"):], &first, &last); err != nil {
			t.Fatal(err, out)
		}
		if n := strings.Count(out, "data: "); n != 4 || last-first < 1.4 {
			t.Errorf("%s: %d events, the first after %.2f s and the last after %.2f s", version, n, first, last)
		}
	}
}

// overNode is an HTTP client on the client host that asks one node.
func overNode(e *edge, ca *authority) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.pool},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			port := e.http
			if strings.HasSuffix(address, ":443") {
				port = e.https
			}
			return up.DialClient(ctx, network, netJoin(e.next(), port))
		},
	}}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	host, ca := secureHost(t, e, ns)
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ws, res, err := websocket.Dial(ctx, scheme+"://"+host+"/ws", &websocket.DialOptions{HTTPClient: overNode(e, ca)})
			if err != nil {
				t.Fatal(err, res)
			}
			defer func() { _ = ws.CloseNow() }()
			ws.SetReadLimit(-1)
			for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
				message := bytes.Repeat([]byte{'x'}, size)
				if err := ws.Write(ctx, websocket.MessageBinary, message); err != nil {
					t.Fatal(err)
				}
				kind, got, err := ws.Read(ctx)
				if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, message) {
					t.Fatalf("a message of %d: %d bytes of %v came back, %v", size, len(got), kind, err)
				}
			}
			// A change of the routes, which ends no connection.
			e.settle(t)
			if err := ws.Write(ctx, websocket.MessageText, []byte("still here")); err != nil {
				t.Fatal(err)
			}
			if _, got, err := ws.Read(ctx); err != nil || string(got) != "still here" {
				t.Fatalf("after a change of the routes: %q, %v", got, err)
			}
			err = ws.Close(4321, "as it was said")
			if closed := (websocket.CloseError{}); err != nil && (!errors.As(err, &closed) || closed.Code != 4321 || closed.Reason != "as it was said") {
				t.Errorf("closed with %v", err)
			}
		})
	}
}
