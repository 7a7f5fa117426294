package router

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// idle waits until n connections wait for a request.
func (f *front) idle(t testing.TB, n int) {
	t.Helper()
	eventually(t, "connections are idle", func() bool { return f.server.Stats().Idle == n })
}

func TestDrainTellsClientsToGo(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startFront(t, b.addr)
	c := f.dial(t)
	c.get("/", 200)
	f.idle(t, 1)
	f.server.Drain()
	resp, _ := c.send(getIt).answer("GET")
	if resp.StatusCode != 200 || !resp.Close {
		t.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
	}
	c.closed()
	if resp, _ := f.talk(t, getIt); resp.StatusCode != 200 || !resp.Close { // new ones are still served
		t.Errorf("a new one: status %d, close %t", resp.StatusCode, resp.Close)
	}
}

func TestShutdownFinishesWhatIsInFlightAndClosesTheRest(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	b := startBackend(t, func(c *upstreamConn) {
		for {
			r, _, ok := c.request()
			if !ok {
				return
			}
			if r.URL.Path == "/slow" {
				close(asked)
				<-release
			}
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
		}
	})
	f := startFront(t, b.addr)
	idle, fresh, busy := f.dial(t), f.dial(t), f.dial(t)
	idle.get("/", 200)
	eventually(t, "three connections", func() bool { return f.server.Stats().Open == 2 || f.server.Stats().Open == 3 })
	busy.send("GET /slow HTTP/1.1\r\nHost: h.test\r\n\r\n")
	<-asked
	ended := make(chan error, 1)
	go func() { ended <- f.server.Shutdown(context.Background()) }()
	idle.closed()
	fresh.closed()
	if _, err := net.Dial("tcp", f.addr); err == nil {
		t.Error("it still listens")
	}
	select {
	case <-ended:
		t.Fatal("Shutdown did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if resp, body := busy.answer("GET"); resp.StatusCode != 200 || body != "done" || !resp.Close {
		t.Errorf("status %d, body %q, close %t", resp.StatusCode, body, resp.Close)
	}
	busy.closed()
	busy.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestShutdownGivesUpWhenItsTimeIsOver(t *testing.T) {
	gone := make(chan struct{})
	b := startBackend(t, func(c *upstreamConn) { c.gone(); close(gone) })
	f := startFront(t, b.addr)
	c := f.dial(t).send(getIt)
	eventually(t, "the request is there", func() bool { return b.conns() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := f.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	c.closed()
	<-gone
}

// Clients that ask all the time while the server goes: each of their requests is answered
// whole, or its connection is closed before a byte of an answer came. Nothing hangs.
func TestRequestsInTheMomentOfClosing(t *testing.T) {
	b := startBackend(t, answerAll)
	for range 10 {
		f := startFront(t, b.addr)
		var served, closed, cut atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for {
					conn, err := net.Dial("tcp", f.addr)
					if err != nil {
						return
					}
					conn.SetDeadline(time.Now().Add(patience))
					for r := bufio.NewReader(conn); ; {
						if _, err := io.WriteString(conn, getIt); err != nil {
							closed.Add(1)
							break
						}
						resp, err := http.ReadResponse(r, nil)
						var netErr net.Error
						if errors.As(err, &netErr) && netErr.Timeout() {
							t.Error("a request hangs")
						}
						if err != nil {
							closed.Add(1)
							break
						}
						if _, err := io.Copy(io.Discard, resp.Body); err != nil {
							cut.Add(1)
							break
						}
						served.Add(1)
						if resp.Close {
							break
						}
					}
					conn.Close()
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := f.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v, %+v", err, f.server.Stats())
		}
		cancel()
		wg.Wait()
		if cut.Load() > 0 {
			t.Errorf("%d answers were cut; %d served, %d closed", cut.Load(), served.Load(), closed.Load())
		}
	}
}

// Connections that become idle while Shutdown walks past must not be forgotten.
func TestShutdownIsQuickWhateverTheMoment(t *testing.T) {
	b := startBackend(t, answerAll)
	for i := range 40 {
		f := setup{limits: engine.Limits{IdleTimeout: time.Minute}, mute: true}.start(t, b.addr)
		c := f.dial(t)
		go io.WriteString(c.Conn, getIt)
		time.Sleep(time.Duration(i) * 20 * time.Microsecond)
		go func() { // a client that closes when it is told to
			io.Copy(io.Discard, c.r)
			c.Close()
		}()
		w := startWatch()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := f.server.Shutdown(ctx)
		if took, _ := w.stop(); err != nil || took > 1500*time.Millisecond {
			t.Errorf("%v after %v, %+v", err, took, f.server.Stats())
		}
		cancel()
	}
}

// What is no request yet must not hold up the end: a client that sent half a head, or half a
// handshake, has a second to go on. One that does is served.
func TestShutdownDoesNotWaitForWhatIsNoRequestYet(t *testing.T) {
	b := startBackend(t, answerAll)
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	tests := []struct {
		name   string
		secure bool
		begin  func(t *testing.T, f *front) *client
	}{
		{"half a head", false, func(t *testing.T, f *front) *client { t.Helper(); return f.dial(t).send("GET / HTTP/1.1\r\nHost: h") }},
		{"half a second head", false, func(t *testing.T, f *front) *client {
			t.Helper()
			c := f.dial(t)
			c.get("/", 200)
			return c.send("GET / HTTP/1.1\r\nHost: h")
		}},
		{"half a head over TLS", true, func(t *testing.T, f *front) *client { t.Helper(); return f.dial(t).send("GET / HTTP/1.1\r\nHost: h") }},
		{"half a handshake", true, func(t *testing.T, f *front) *client { t.Helper(); f.tls = nil; return f.dial(t).send(hello) }},
		{"half a preface", false, func(t *testing.T, f *front) *client { t.Helper(); return f.dial(t).send("PRI * HTTP/2.0\r\n") }},
		{"half a head of HTTP/2", false, func(t *testing.T, f *front) *client {
			t.Helper()
			c := f.rawH2(t)
			c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(":method", "GET")})
			return &client{Conn: c.Conn, r: bufio.NewReader(c.Conn), t: t}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := setup{h2c: true}.withTLS(tt.secure).start(t, b.addr).trusting(tt.secure)
			c := tt.begin(t, f)
			time.Sleep(short / 2) // until it has been read
			go func() {
				io.Copy(io.Discard, c.r)
				c.Close()
			}()
			w := startWatch()
			if err := f.server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if took, _ := w.stop(); took > 8*time.Second { // heads have a minute, handshakes ten seconds
				t.Errorf("it took %v", took)
			}
		})
	}
	t.Run("the rest of the head comes", func(t *testing.T) {
		t.Parallel()
		steadily(t, 2*short, func(t testing.TB) { // of the second that it has
			t.Helper()
			f := startFront(t, b.addr)
			c := f.dial(t)
			f.idle(t, 1)
			c.send("GET / HTTP/1.1\r\nHost: h")
			f.idle(t, 0)
			ended := make(chan error, 1)
			go func() { ended <- f.server.Shutdown(context.Background()) }()
			time.Sleep(short)
			if resp, body := c.send(".test\r\n\r\n").answer("GET"); resp.StatusCode != 200 || body != "ok" || !resp.Close {
				t.Errorf("status %d, body %q, close %t", resp.StatusCode, body, resp.Close)
			}
			c.closed()
			c.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	})
}
