package router

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const expecting = "POST / HTTP/1.1\r\nHost: h.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

func TestA100IsForwardedAndNotInvented(t *testing.T) {
	ask := make(chan struct{})
	b := startBackend(t, func(c *upstreamConn) {
		r, err := http.ReadRequest(c.r)
		if err != nil {
			return
		}
		if got := r.Header.Get("Expect"); got != "100-continue" {
			t.Errorf("the backend saw Expect: %q", got)
		}
		<-ask
		c.send("HTTP/1.1 100 Continue\r\n\r\n")
		body, _ := io.ReadAll(r.Body)
		c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		c.gone()
	})
	c := startFront(t, b.addr).dial(t)
	c.send(expecting)
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := c.r.ReadByte(); err == nil {
		t.Fatalf("the proxy sent %q before the backend said anything", b)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	close(ask)
	if resp := c.head("POST"); resp.StatusCode != 100 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if resp, body := c.send("hello").answer("POST"); resp.StatusCode != 200 || body != "hello" || resp.Close {
		t.Errorf("status %d, body %q, close %t", resp.StatusCode, body, resp.Close)
	}
}

func TestABackendThatKnowsNo100(t *testing.T) {
	b := startBackend(t, answerAll)
	c := startFront(t, b.addr).dial(t)
	c.send(expecting)
	time.Sleep(30 * time.Millisecond) // the client loses patience, as it should
	if resp, _ := c.send("hello").answer("POST"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// After a final answer in place of a 100, nobody knows whether a body will come. What comes
// then may be the next request: it must not travel as a body.
func TestAFinalAnswerInPlaceOfA100Closes(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		if _, err := http.ReadRequest(c.r); err == nil {
			c.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
			c.gone()
		}
	})
	c := startFront(t, b.addr).dial(t)
	w := startWatch()
	resp, _ := c.send(expecting).answer("POST")
	if resp.StatusCode != 417 || !resp.Close {
		t.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
	}
	c.Write([]byte("GET /smuggled HTTP/1.1\r\nHost: h.test\r\n\r\n"))
	io.Copy(io.Discard, c.r)
	if took, _ := w.stop(); took > 3*time.Second {
		t.Errorf("closing took %v", took)
	}
	if raw := strings.Join(b.saw(), ""); strings.Contains(raw, "smuggled") {
		t.Errorf("the backend saw %q", raw)
	}
}

func TestInterimAnswers(t *testing.T) {
	hints := strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", 3)
	tests := []struct {
		name, request, interims, want string
	}{
		{"103 is passed on", "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n", hints, "103 103 103 200"},
		{"102 is passed on", "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", "102 200"},
		{"HTTP/1.0 knows none", "GET / HTTP/1.0\r\nHost: h.test\r\n\r\n", hints, "200"},
		{"100 only where it was asked for", "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + hints, "103 103 103 200"},
		{"100 are enough", "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 2000), strings.Repeat("102 ", 100) + "502"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := startBackend(t, func(c *upstreamConn) {
				if _, _, ok := c.request(); ok {
					c.send(tt.interims + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					c.gone()
				}
			})
			c := startFront(t, b.addr).dial(t)
			c.send(tt.request)
			var got []string
			for {
				resp, _ := c.answer("GET")
				got = append(got, fmt.Sprint(resp.StatusCode))
				if resp.StatusCode >= 200 {
					break
				}
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("the client saw %s, want %s", s, tt.want)
			}
		})
	}
}

func TestAnEarlyFinalAnswerArrivesWhole(t *testing.T) {
	page := strings.Repeat("too large ", 10000)
	tests := map[string]func(c *upstreamConn){
		"and the backend closes": func(c *upstreamConn) {
			c.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(page)) + page)
			c.Conn.(*net.TCPConn).CloseWrite()
			c.gone()
		},
		"and the backend stops reading": func(c *upstreamConn) {
			c.send("HTTP/1.1 413 Too Large\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(page)) + page)
			time.Sleep(1500 * time.Millisecond)
			c.untilTaken()
		},
		"and the backend tears down": func(c *upstreamConn) {
			c.send("HTTP/1.1 413 Too Large\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(page)) + page)
			time.Sleep(300 * time.Millisecond)
			c.untilTaken()
			c.reset()
		},
	}
	for name, serve := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBackend(t, func(c *upstreamConn) {
				if _, err := http.ReadRequest(c.r); err == nil {
					serve(c)
				}
			})
			c := startFront(t, b.addr).dial(t)
			const size = 2 << 20 // more or less than the sockets hold: both happen
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				io.WriteString(c.Conn, fmt.Sprintf("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: %d\r\n\r\n", size)+strings.Repeat("x", size))
			}()
			resp, body := c.answer("POST")
			if resp.StatusCode != 413 || body != page {
				t.Errorf("status %d, %d bytes", resp.StatusCode, len(body))
			}
			if resp.Close {
				c.closed()
			}
			<-sent
		})
	}
}

func TestAnEarlyAnswerOfABackendThatReadsOnKeepsTheConnection(t *testing.T) {
	steadily(t, 2*short, func(t testing.TB) { // of the second that the body has
		t.Helper()
		b := startBackend(t, func(c *upstreamConn) {
			for {
				r, err := http.ReadRequest(c.r)
				if err != nil {
					return
				}
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				io.Copy(io.Discard, r.Body)
			}
		})
		c := startFront(t, b.addr).dial(t)
		c.send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 10\r\n\r\nhello")
		if _, body := c.answer("POST"); body != "ok" {
			t.Errorf("body %q", body)
		}
		c.send("hello")
		c.get("/", 200)
		if n := b.conns(); n != 1 {
			t.Errorf("%d connections to the backend, want 1", n)
		}
	})
}
