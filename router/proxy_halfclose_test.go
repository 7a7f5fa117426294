package router

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// endHalf ends the client's half of the connection.
func (c *client) endHalf() {
	c.t.Helper()
	conn := c.Conn
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// A client that has said all it wants to say is no client that has gone: it gets its answer,
// however long that takes, and not a byte more.
func TestAHalfClosedClientGetsItsAnswer(t *testing.T) {
	const pause = 1500 * time.Millisecond
	answers := map[string]func(c *upstreamConn){
		"by length": func(c *upstreamConn) {
			time.Sleep(pause)
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
			time.Sleep(pause)
			c.send("0123456789")
		},
		"chunked": func(c *upstreamConn) {
			c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for _, piece := range []string{"0", "1234", "56789"} {
				time.Sleep(pause / 2)
				c.send(chunks(piece, 100))
			}
			time.Sleep(pause / 2)
			c.send("0\r\n\r\n")
		},
		"after an interim answer": func(c *upstreamConn) {
			time.Sleep(pause)
			c.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			time.Sleep(pause)
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789")
		},
	}
	for name, answer := range answers {
		for _, secure := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", TLS"}[secure], func(t *testing.T) {
				t.Parallel()
				b := startBackend(t, func(c *upstreamConn) {
					c.request()
					answer(c)
				})
				f := setup{}.withTLS(secure).start(t, b.addr).trusting(secure)
				c := f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello")
				c.endHalf()
				var raw strings.Builder
				if _, err := io.Copy(&raw, c.r); err != nil {
					t.Fatal(err)
				}
				got := raw.String()
				if strings.HasPrefix(got, "HTTP/1.1 103 Early Hints\r\n") {
					_, got, _ = strings.Cut(got, "\r\n\r\n")
				}
				c = &client{t: t, r: newReader(got)}
				resp, body := c.answer("POST")
				if resp.StatusCode != 200 || body != "0123456789" || c.r.Buffered() > 0 {
					t.Errorf("got %q", raw.String())
				}
				if e := f.log.await(t, 1)[0]; e.Status != 200 || e.Note != "" {
					t.Errorf("in the log: %+v", e)
				}
			})
		}
	}
}

// TestACancelIsSeenAtOnce measures how long the backend works for nobody.
func TestACancelIsSeenAtOnce(t *testing.T) {
	leave := map[string]func(t *testing.T, f *front) func(){
		"closed": func(t *testing.T, f *front) func() {
			t.Helper()
			c := f.dial(t).send(getIt)
			return func() { c.Close() }
		},
		"reset": func(t *testing.T, f *front) func() {
			t.Helper()
			c := f.dial(t).send(getIt)
			return func() { c.Conn.(*net.TCPConn).SetLinger(0); c.Close() }
		},
		"RST_STREAM": func(t *testing.T, f *front) func() {
			t.Helper()
			c := f.rawH2(t)
			c.request(1, "/")
			return func() { c.fr.WriteRSTStream(1, http2.ErrCodeCancel) }
		},
		"connection of HTTP/2 closed": func(t *testing.T, f *front) func() {
			t.Helper()
			c := f.rawH2(t)
			c.request(1, "/")
			return func() { c.Close() }
		},
	}
	begin := map[string]string{
		"before the answer":         "",
		"in a chunked answer":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"after an interim one":      "HTTP/1.1 103 Early Hints\r\n\r\n",
		"in the head of the answer": "HTTP/1.1 200 OK\r\nX-",
	}
	for how, leave := range leave {
		for when, begin := range begin {
			t.Run(how+" "+when, func(t *testing.T) {
				asked, gone := make(chan struct{}), make(chan struct{})
				b := startBackend(t, func(c *upstreamConn) {
					http.ReadRequest(c.r)
					c.send(begin)
					close(asked)
					c.gone()
					close(gone)
				})
				f := setup{h2c: true}.start(t, b.addr)
				quit := leave(t, f)
				<-asked
				time.Sleep(300 * time.Millisecond) // a request that waits, not one that has just come
				w := startWatch()
				quit()
				select {
				case <-gone:
				case <-time.After(patience):
					t.Error("never")
				}
				if took, _ := w.stop(); took > time.Second {
					t.Errorf("after %v", took)
				}
			})
		}
	}
}
