package router

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

func TestConnectionsAreKeptOnBothSides(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startFront(t, b.addr)
	c := f.dial(t)
	for range 50 {
		c.get("/", 200)
	}
	if n := b.conns(); n != 1 {
		t.Errorf("50 requests one after the other took %d connections to the backend, want 1", n)
	}
	if got := f.server.Stats(); got.Accepted != 1 || got.Requests != 50 {
		t.Errorf("stats: %+v", got)
	}
}

func TestTwoRequestsAtATimeTakeTwoConnections(t *testing.T) {
	both := make(chan struct{}, 2)
	release := make(chan struct{})
	b := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			both <- struct{}{}
			<-release
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	f := startFront(t, b.addr)
	one, two := f.dial(t), f.dial(t)
	for _, c := range []*client{one, two} {
		c.send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
	}
	<-both
	<-both
	close(release)
	one.answer("GET")
	two.answer("GET")
	for range 10 {
		one.get("/", 200)
		<-both
	}
	if n := b.conns(); n != 2 {
		t.Errorf("%d connections to the backend, want 2", n)
	}
}

func TestABackendThatClosesIsConnectedToAnew(t *testing.T) {
	tests := map[string]string{
		"it says so":              "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
		"it is HTTP/1.0":          "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"the answer ends by it":   "HTTP/1.1 200 OK\r\n\r\nok",
		"close wins over keeping": "HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 2\r\n\r\nok",
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBackend(t, func(c *upstreamConn) {
				if _, _, ok := c.request(); ok {
					c.send(answer)
				}
			})
			c := startFront(t, b.addr).dial(t)
			for range 5 {
				if got := c.get("/", 200); got != "ok" {
					t.Fatalf("body %q", got)
				}
			}
			if n := b.conns(); n != 5 {
				t.Errorf("%d connections, want 5", n)
			}
		})
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		for {
			r, body, ok := c.request()
			if !ok {
				return
			}
			if strings.HasSuffix(r.URL.Path, "0") {
				time.Sleep(5 * time.Millisecond)
			}
			text := r.URL.Path + body
			c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
		}
	})
	c := startFront(t, b.addr).dial(t)
	var raw strings.Builder
	const n = 200
	for i := range n {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&raw, "GET /%d HTTP/1.1\r\nHost: h.test\r\n\r\n", i)
		case 1:
			fmt.Fprintf(&raw, "POST /%d HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\n-body", i)
		default:
			fmt.Fprintf(&raw, "POST /%d HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n-b\r\n3\r\nody\r\n0\r\n\r\n", i)
		}
	}
	go c.Write([]byte(raw.String()))
	for i := range n {
		want := fmt.Sprint("/", i)
		if i%3 > 0 {
			want += "-body"
		}
		if _, got := c.answer("GET"); got != want {
			t.Fatalf("answer %d: %q, want %q", i, got, want)
		}
	}
}

func TestPipelinedRequestsThatComeByteByByte(t *testing.T) {
	b := startBackend(t, answerAll)
	c := startFront(t, b.addr).dial(t)
	go func() {
		for _, b := range []byte(strings.Repeat("POST / HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-T: 1\r\n\r\n", 5)) {
			c.Write([]byte{b})
		}
	}()
	for range 5 {
		if resp, _ := c.answer("POST"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
}

func TestAConnectionEndsAfterSoManyRequests(t *testing.T) {
	b := startBackend(t, answerAll)
	c := setup{limits: engine.Limits{MaxRequests: 3}}.start(t, b.addr).dial(t)
	c.get("/", 200)
	c.get("/", 200)
	resp, _ := c.send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").answer("GET")
	if !resp.Close {
		t.Error("the last answer does not say that the connection closes")
	}
	c.closed()
}

func TestHTTP10(t *testing.T) {
	chunked := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		}
	})
	plain := startBackend(t, answerAll)
	t.Run("a client that does not ask for it is not kept", func(t *testing.T) {
		c := startFront(t, plain.addr).dial(t)
		c.send("GET / HTTP/1.0\r\n\r\n").answer("GET")
		c.closed()
	})
	t.Run("a client that asks for it is kept, and told so", func(t *testing.T) {
		c := startFront(t, plain.addr).dial(t)
		for range 3 {
			resp, _ := c.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer("GET")
			if got := resp.Header.Get("Connection"); got != "keep-alive" {
				t.Fatalf("Connection: %q", got)
			}
		}
	})
	t.Run("a chunked answer loses its coding and ends by closing", func(t *testing.T) {
		c := startFront(t, chunked.addr).dial(t)
		resp, body := c.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer("GET")
		if body != "hello" || len(resp.TransferEncoding) > 0 || !resp.Close {
			t.Errorf("body %q, coding %v, close %v", body, resp.TransferEncoding, resp.Close)
		}
		c.closed()
	})
}
