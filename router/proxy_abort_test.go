package router

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

func TestAClientThatLeavesCancelsItsRequest(t *testing.T) {
	leave := map[string]func(c *client){
		"by closing":      func(c *client) { c.Close() },
		"by tearing down": func(c *client) { c.Conn.(*net.TCPConn).SetLinger(0); c.Close() },
	}
	requests := map[string]string{
		"GET":                       "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n",
		"POST with a whole body":    "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello",
		"POST and its body to come": "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 500\r\n\r\nhello",
	}
	for how, leave := range leave {
		for what, raw := range requests {
			t.Run(what+" "+how, func(t *testing.T) {
				t.Parallel()
				asked, gone := make(chan struct{}), make(chan struct{})
				b := startBackend(t, func(c *upstreamConn) {
					http.ReadRequest(c.r)
					close(asked)
					c.gone()
					close(gone)
				})
				f := startFront(t, b.addr)
				c := f.dial(t).send(raw)
				<-asked
				time.Sleep(20 * time.Millisecond)
				w := startWatch()
				leave(c)
				select {
				case <-gone:
				case <-time.After(patience):
					t.Error("the backend never sees it")
				}
				if took, _ := w.stop(); took > 2500*time.Millisecond {
					t.Errorf("the backend sees it after %v", took)
				}
				want := engine.StatusClientGone
				if strings.Contains(raw, "500") && how == "by closing" {
					want = 400 // a body that ends too early, from one who may still listen
				}
				if e := f.log.await(t, 1)[0]; e.Status != want || e.Note == "" {
					t.Errorf("in the log: %+v", e)
				}
			})
		}
	}
}

func TestAClientThatLeavesInTheMiddleOfTheAnswer(t *testing.T) {
	gone := make(chan struct{})
	b := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		c.gone()
		close(gone)
	})
	f := startFront(t, b.addr)
	c := f.dial(t).send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
	c.head("GET")
	c.Close()
	<-gone
	if e := f.log.await(t, 1)[0]; e.Note == "" {
		t.Errorf("in the log: %+v", e)
	}
}

func TestABackendThatBreaksOffIsSeenByTheClient(t *testing.T) {
	tests := []struct{ name, version, answer, want string }{
		{"by length", "HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "short"},
		{"by length, HTTP/1.0", "HTTP/1.0", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "short"},
		{"chunked", "HTTP/1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "short"},
		{"chunked, HTTP/1.0", "HTTP/1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "reset"},
		{"in a chunk", "HTTP/1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello", "short"},
		{"malformed later", "HTTP/1.1", "later", "short"},
		{"malformed later, HTTP/1.0", "HTTP/1.0", "later", "reset"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			begun := make(chan struct{}) // with the client, or the whole could be seen to be broken
			b := startBackend(t, func(c *upstreamConn) {
				c.request()
				if tt.answer == "later" {
					c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
					<-begun
					c.send("5\r\nhelloX")
					c.gone()
					return
				}
				c.send(tt.answer)
				<-begun
			})
			f := startFront(t, b.addr)
			c := f.dial(t).send("GET / " + tt.version + "\r\nHost: h.test\r\n\r\n")
			resp := c.head("GET")
			close(begun)
			_, err := io.ReadAll(resp.Body)
			switch {
			case tt.want == "short" && !errors.Is(err, io.ErrUnexpectedEOF):
				t.Errorf("got %v, want the end too early", err)
			case tt.want == "reset" && !errors.Is(err, syscall.ECONNRESET):
				t.Errorf("got %v, want a reset", err)
			}
			if e := f.log.await(t, 1)[0]; e.Note == "" || e.Status != 200 {
				t.Errorf("in the log: %+v", e)
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	slow := setup{
		pool:   engine.PoolConfig{ReadTimeout: short},
		limits: engine.Limits{BodyTimeout: short, HeadTimeout: short, IdleTimeout: short},
	}
	quiet := startBackend(t, func(c *upstreamConn) { c.gone() })
	run := func(name string, test func(t testing.TB)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steadily(t, short/4, test)
		})
	}
	run("a backend that does not answer: 504", func(t testing.TB) {
		t.Helper()
		f := slow.start(t, quiet.addr)
		if resp, _ := f.talk(t, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"); resp.StatusCode != 504 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
	run("a backend that stops in its answer: cut", func(t testing.TB) {
		t.Helper()
		b := startBackend(t, func(c *upstreamConn) {
			c.request()
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")
			c.gone()
		})
		f := slow.start(t, b.addr)
		resp := f.dial(t).send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").head("GET")
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	})
	run("a client whose body does not come: 408", func(t testing.TB) {
		t.Helper()
		f := slow.start(t, quiet.addr)
		c := f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 50\r\n\r\nhello")
		if resp, _ := c.answer("POST"); resp.StatusCode != 408 || !resp.Close {
			t.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
		}
	})
	run("a body that comes slowly is no fault of the backend", func(t testing.TB) {
		t.Helper()
		b := startBackend(t, answerAll)
		s := slow
		s.limits.BodyTimeout = 5 * time.Second
		c := s.start(t, b.addr).dial(t)
		c.send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\n")
		for _, letter := range []string{"h", "e", "l", "l", "o"} {
			time.Sleep(120 * time.Millisecond)
			c.send(letter)
		}
		if resp, _ := c.answer("POST"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
	run("a head that does not come whole: 408", func(t testing.TB) {
		t.Helper()
		c := slow.start(t, quiet.addr).dial(t)
		go func() {
			for _, b := range "GET / HTTP/1.1\r\nHost: h.test\r\nX-A: " + strings.Repeat("a", 1000) {
				if _, err := c.Write([]byte{byte(b)}); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		if resp, _ := c.answer("GET"); resp.StatusCode != 408 || !resp.Close {
			t.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
		}
	})
	run("a connection that is not used closes silently", func(t testing.TB) {
		t.Helper()
		b := startBackend(t, answerAll)
		c := slow.start(t, b.addr).dial(t)
		c.get("/", 200)
		c.closed()
		slow.start(t, b.addr).dial(t).closed()
	})
	run("a backend that takes nothing", func(t testing.TB) {
		t.Helper()
		b := startDeaf(t)
		s := setup{pool: slow.pool} // the client may be slow: it is a busy machine
		s.pool.WriteTimeout = short
		raw := "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 16777216\r\n\r\n" + strings.Repeat("x", 16<<20)
		f := s.start(t, b.addr)
		go io.WriteString(f.dial(t).Conn, raw) // more than is read before the end: the answer may be lost
		if e := f.log.await(t, 1)[0]; e.Status != 504 {
			t.Errorf("in the log: %+v", e)
		}
	})
}

func TestErrorsOfTheEngineAreTimeoutsWhereTheyShouldBe(t *testing.T) {
	err := error(&engine.UpstreamError{Cause: engine.CauseTimeout, Err: os.ErrDeadlineExceeded})
	if !errors.Is(err, os.ErrDeadlineExceeded) || err.Error() != "timeout: i/o timeout" {
		t.Error(err)
	}
}
