package router

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// short is long enough for a busy machine to do what does not have to wait, and much shorter
// than the defaults.
const short = 200 * time.Millisecond

// withTimeouts is a setup whose route has these, and whose pools wait for minutes.
func withTimeouts(t engine.Timeouts) setup {
	return setup{h2c: true, route: func(r *Route) { r.Timeouts = t }}
}

func TestTimeoutsOfARoute(t *testing.T) {
	quiet := startBackend(t, func(c *upstreamConn) { c.gone() })
	half := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		c.gone()
	})
	late := startBackend(t, func(c *upstreamConn) {
		c.request()
		time.Sleep(4 * short)
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		c.gone()
	})
	drips := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			if _, err := io.WriteString(c.Conn, "1\r\nx\r\n"); err != nil {
				return
			}
			time.Sleep(short / 10)
		}
	})
	deaf := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	tests := []struct {
		name     string
		timeouts engine.Timeouts
		backend  *rawBackend
		dial     func(context.Context, string, string) (net.Conn, error)
		status   int
		cut      bool
		note     string // a part of it
	}{
		{name: "connect", timeouts: engine.Timeouts{Connect: short}, backend: quiet, dial: deaf, status: 504, note: "connect: "},
		{name: "first byte", timeouts: engine.Timeouts{FirstByte: short}, backend: quiet, status: 504, note: "timeout: "},
		{name: "read, before the answer", timeouts: engine.Timeouts{Read: short}, backend: quiet, status: 504, note: "timeout: "},
		{name: "read, in the answer", timeouts: engine.Timeouts{FirstByte: time.Minute, Read: short}, backend: half, status: 200, cut: true, note: "timeout"},
		{name: "first byte is for the beginning alone", timeouts: engine.Timeouts{FirstByte: short, Read: 20 * short, Total: 5 * short}, backend: half, status: 200, cut: true, note: "request: "},
		{name: "a first byte that may be late", timeouts: engine.Timeouts{FirstByte: time.Minute, Read: short}, backend: late, status: 200},
		{name: "total, connecting", timeouts: engine.Timeouts{Total: short}, backend: quiet, dial: deaf, status: 504, note: "deadline: "},
		{name: "total, before the answer", timeouts: engine.Timeouts{Total: short}, backend: quiet, status: 504, note: "deadline: "},
		{name: "total, in the answer", timeouts: engine.Timeouts{Total: short}, backend: drips, status: 200, cut: true, note: "request: "},
	}
	for _, tt := range tests {
		s := withTimeouts(tt.timeouts)
		s.pool.DialContext = tt.dial
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			steadily(t, short/4, func(t testing.TB) {
				t.Helper()
				f := s.start(t, tt.backend.addr)
				resp := f.dial(t).send(getIt).head("GET")
				_, err := io.ReadAll(resp.Body)
				if resp.StatusCode != tt.status || errors.Is(err, io.ErrUnexpectedEOF) != tt.cut {
					t.Errorf("status %d, then %v", resp.StatusCode, err)
				}
				if e := f.log.await(t, 1)[0]; !strings.Contains(e.Note, tt.note) || tt.status == 504 && e.Status != 504 {
					t.Errorf("in the log: %+v", e)
				}
			})
		})
		t.Run(tt.name+", HTTP/2", func(t *testing.T) {
			t.Parallel()
			steadily(t, short/4, func(t testing.TB) {
				t.Helper()
				c := s.start(t, tt.backend.addr).rawH2(t)
				c.request(1, "/")
				if status := c.answerHead(1)[":status"]; status != map[int]string{200: "200", 504: "504"}[tt.status] {
					t.Errorf("status %s", status)
				}
				if tt.cut {
					c.reset(1, http2.ErrCodeInternal)
				}
			})
		})
	}
}

// The time for a request is for all tries together, and ends them.
func TestTheTotalTimeoutCoversRetries(t *testing.T) {
	quiet := func(c *upstreamConn) { c.gone() }
	one, two, three := startBackend(t, quiet), startBackend(t, quiet), startBackend(t, quiet)
	f := withTimeouts(engine.Timeouts{FirstByte: 2 * short, Total: 3 * short}).start(t, one.addr, two.addr, three.addr)
	if resp, _ := f.talk(t, getIt); resp.StatusCode != 504 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if e := f.log.await(t, 1)[0]; e.Tries > 2 || !strings.HasPrefix(e.Note, "deadline: ") {
		t.Errorf("in the log: %+v", e)
	}
}

func TestABackendThatTakesNothingOfARequest(t *testing.T) {
	b := startDeaf(t)
	f := withTimeouts(engine.Timeouts{Send: short}).start(t, b.addr)
	go io.WriteString(f.dial(t).Conn, "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 16777216\r\n\r\n"+strings.Repeat("x", 16<<20))
	if e := f.log.await(t, 1)[0]; e.Status != 504 {
		t.Errorf("in the log: %+v", e)
	}
}

// The time for a request is also over for a client that does not read its answer.
func TestTheTotalTimeoutOfAReaderThatStops(t *testing.T) {
	b := startBackend(t, flood)
	for _, h2 := range []bool{false, true} {
		steadily(t, short/2, func(t testing.TB) {
			t.Helper()
			f := withTimeouts(engine.Timeouts{Total: 2 * short}).start(t, b.addr)
			if h2 {
				f.rawH2(t).request(1, "/")
			} else {
				f.dial(t).send(getIt)
			}
			if e := f.log.await(t, 1)[0]; e.Status != 200 || e.Note == "" {
				t.Errorf("HTTP/2 %t, in the log: %+v", h2, e)
			}
		})
	}
}

// flood answers with bytes without end.
func flood(c *upstreamConn) {
	c.request()
	c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	piece := []byte("8000\r\n" + strings.Repeat("x", 32<<10) + "\r\n")
	for {
		if _, err := c.Write(piece); err != nil {
			return
		}
	}
}
