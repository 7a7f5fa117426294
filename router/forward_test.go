package router

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// askFields sends one GET with these field lines and returns what the backend saw.
func askFields(t *testing.T, fields string) http.Header {
	t.Helper()
	saw := make(chan http.Header, 1)
	b := startBackend(t, func(c *upstreamConn) {
		if r, _, ok := c.request(); ok {
			r.Header.Set("Host", r.Host)
			saw <- r.Header
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	startFront(t, b.addr).talk(t, "GET / HTTP/1.1\r\n"+fields+"\r\n")
	return <-saw
}

func TestWhatTheProxySaysOfTheClientReplacesWhatTheClientSays(t *testing.T) {
	lies := "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n" +
		"X-Forwarded-Port: 666\r\nX-Forwarded-Scheme: https\r\nX-Forwarded-Server: evil\r\nX-Forwarded-Ssl: on\r\n" +
		"X-Forwarded-Prefix: /evil\r\nX-Real-Ip: 6.6.6.6\r\nX-Request-Id: evil\r\nX-Scheme: https\r\nForwarded: for=6.6.6.6\r\n" +
		"X-Original-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nProxy: evil\r\n" +
		"X-Forwarded-Client-Cert: evil\r\nssl-client-cert: evil\r\nSSL-Client-Verify: evil\r\nssl-client-subject-dn: evil\r\n" +
		"ssl-client-issuer-dn: evil\r\nX-Original-URL: /evil\r\nX-Rewrite-Url: /evil\r\n"
	h := askFields(t, "Host: H.test:8081\r\n"+lies)
	want := map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "H.test:8081", "X-Forwarded-Proto": "http",
		"X-Forwarded-Port": "80", "X-Real-Ip": "127.0.0.1", "Host": "H.test:8081",
	}
	for name, value := range want {
		if got := h[name]; len(got) != 1 || got[0] != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	for name, values := range h {
		if all := strings.Join(values, " "); strings.Contains(all, "6.6.6") || strings.Contains(all, "evil") || all == "on" {
			t.Errorf("%s: %q came through", name, values)
		}
	}
	if id := h.Get("X-Request-Id"); len(id) != 32 {
		t.Errorf("X-Request-ID: %q", id)
	}
}

// What the backend sees is the name that was matched.
func TestAHostInUTF8GoesOnInPunycode(t *testing.T) {
	h := askFields(t, "Host: B\u00fccher.test:8081\r\n")
	for _, name := range []string{"Host", "X-Forwarded-Host"} {
		if got := h[name]; len(got) != 1 || got[0] != "xn--bcher-kva.test:8081" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestARequestWithoutHostGetsTheAddressOfTheBackend(t *testing.T) {
	var host atomic.Value
	b := startBackend(t, func(c *upstreamConn) {
		if r, _, ok := c.request(); ok {
			host.Store(r.Host + r.Header.Get("X-Forwarded-Host"))
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	startFront(t, b.addr).talk(t, "GET / HTTP/1.0\r\n\r\n")
	if got := host.Load(); got != b.addr {
		t.Errorf("Host: %q, want %q", got, b.addr)
	}
}

func TestFieldsOfAnswers(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		for {
			r, _, ok := c.request()
			if !ok {
				return
			}
			extra := ""
			if r.URL.Path == "/own" {
				extra = "Server: mine\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\n"
			}
			c.send("HTTP/1.1 200 Fine\r\n" + extra + "Connection: x-foo\r\nX-Foo: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nx-bAr:  2 \r\nContent-Length: 0\r\n\r\n")
		}
	})
	f := startFront(t, b.addr)
	resp, _ := f.talk(t, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
	if got := resp.Header.Get("Server"); got != "portico" {
		t.Errorf("Server: %q", got)
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(at) > time.Minute {
		t.Errorf("Date: %v, %v", at, err)
	}
	if resp.Status != "200 Fine" || resp.Header.Get("X-Bar") != "2" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	for _, name := range []string{"X-Foo", "Keep-Alive", "Proxy-Connection", "Connection"} {
		if got := resp.Header.Get(name); got != "" {
			t.Errorf("%s: %q came through", name, got)
		}
	}
	resp, _ = f.talk(t, "GET /own HTTP/1.1\r\nHost: h.test\r\n\r\n")
	if resp.Header.Get("Server") != "mine" || resp.Header.Get("Date") != "Mon, 02 Jan 2006 15:04:05 GMT" {
		t.Errorf("the backend's own: %v", resp.Header)
	}
	hidden := setup{proxy: ProxyConfig{HideServer: true}}.start(t, b.addr)
	if resp, _ := hidden.talk(t, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"); resp.Header.Get("Server") != "" {
		t.Errorf("Server: %q, though it is hidden", resp.Header.Get("Server"))
	}
}

// refusing is an address that nothing listens on, and that nobody else is given meanwhile.
func refusing(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", addr.(*syscall.SockaddrInet4).Port)
}

const (
	getIt  = "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"
	putIt  = "PUT / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello"
	postIt = "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello"
	sendIt = "POST / HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)

// faulty is a backend that does something else than answer its first requests.
func faulty(t testing.TB, fault func(c *upstreamConn), times int32) (*rawBackend, *atomic.Int32) {
	t.Helper()
	var seen atomic.Int32
	b := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			if seen.Add(1) <= times {
				fault(c)
				return
			}
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	return b, &seen
}

func TestRetries(t *testing.T) {
	closes := func(*upstreamConn) {}
	resets := func(c *upstreamConn) { c.reset() }
	garbles := func(c *upstreamConn) { c.send("NONSENSE\r\n\r\n") }
	halves := func(c *upstreamConn) { c.send("HTTP/1.1 200 OK\r\nX-A") }
	hangs := func(c *upstreamConn) { c.gone() }
	tests := []struct {
		name     string
		fault    func(c *upstreamConn)
		requests []string
		status   int // 200: it was retried
	}{
		{"closed before an answer, idempotent", closes, []string{getIt, putIt}, 200},
		{"torn down before an answer, idempotent", resets, []string{getIt, putIt}, 200},
		{"closed before an answer, not idempotent", closes, []string{postIt, sendIt, upgrading}, 502},
		{"torn down before an answer, not idempotent", resets, []string{postIt, sendIt}, 502},
		{"not HTTP", garbles, []string{getIt, putIt, postIt}, 502},
		{"half a head", halves, []string{getIt, postIt}, 502},
		{"no answer in time, idempotent", hangs, []string{getIt, putIt}, 200},
		{"no answer in time, not idempotent", hangs, []string{postIt}, 504},
	}
	for _, tt := range tests {
		for _, raw := range tt.requests {
			method, _, _ := strings.Cut(raw, " ")
			t.Run(tt.name+", "+method, func(t *testing.T) {
				t.Parallel()
				steadily(t, short/4, func(t testing.TB) {
					t.Helper()
					// Two that share one mind: whichever is asked first fails.
					b, seen := faulty(t, tt.fault, 1)
					other := startBackend(t, func(c *upstreamConn) {
						r, _, ok := c.request()
						if !ok {
							return
						}
						if seen.Add(1) <= 1 {
							tt.fault(c)
							return
						}
						if r.Header.Get("Upgrade") != "" {
							c.gone()
						}
						c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					})
					f := setup{pool: engine.PoolConfig{ReadTimeout: short}}.start(t, b.addr, other.addr)
					resp, _ := f.talk(t, raw)
					if resp.StatusCode != tt.status {
						t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
					}
					tries := 1
					if tt.status == 200 {
						tries = 2
					}
					if e := f.log.await(t, 1)[0]; e.Tries != tries {
						t.Errorf("%d tries, want %d: %+v", e.Tries, tries, e)
					}
					if n := seen.Load(); int(n) != tries {
						t.Errorf("backends saw it %d times, want %d", n, tries)
					}
				})
			})
		}
	}
}

func TestARefusedConnectionIsTriedElsewhere(t *testing.T) {
	for _, raw := range []string{getIt, postIt, sendIt} {
		b := startBackend(t, answerAll)
		dead := refusing(t)
		f := startFront(t, dead, b.addr)
		for range 20 {
			if resp, _ := f.talk(t, raw); resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
		}
		tries := 0
		for _, e := range f.log.await(t, 20) {
			tries += e.Tries
		}
		if tries == 20 || tries > 23 {
			t.Errorf("%d tries for 20 requests: the dead endpoint was not taken out", tries)
		}
	}
}

func TestAPostWhoseBodyIsToComeIsTriedElsewhereIfNothingWasSent(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startFront(t, refusing(t), b.addr)
	for range 4 {
		c := f.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\n")
		time.Sleep(20 * time.Millisecond)
		if resp, _ := c.send("hello").answer("POST"); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
}

// A kept connection may be closed by the backend in the very moment it is used again.
func TestAStaleConnection(t *testing.T) {
	for raw, want := range map[string]int{getIt: 200, putIt: 200, postIt: 502} {
		method, _, _ := strings.Cut(raw, " ")
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			b := startBackend(t, func(c *upstreamConn) {
				for n := 0; ; n++ {
					if _, _, ok := c.request(); !ok || c.index == 0 && n == 1 {
						return
					}
					c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			f := startFront(t, b.addr) // no other endpoint: the same one is good enough
			c := f.dial(t)
			c.get("/", 200)
			if resp, _ := c.send(raw).answer(method); resp.StatusCode != want {
				t.Errorf("status %d, want %d", resp.StatusCode, want)
			}
		})
	}
	t.Run("that has been closed for a while is not used", func(t *testing.T) {
		t.Parallel()
		closed := make(chan struct{}, 5)
		b := startBackend(t, func(c *upstreamConn) {
			c.request()
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			c.Close()
			closed <- struct{}{}
		})
		f := startFront(t, b.addr)
		c := f.dial(t)
		for range 5 {
			if resp, _ := c.send(postIt).answer("POST"); resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			<-closed
		}
	})
	t.Run("on which something has come is not used", func(t *testing.T) {
		t.Parallel()
		kept, sent := make(chan struct{}), make(chan struct{})
		b := startBackend(t, func(c *upstreamConn) {
			c.request()
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
			<-kept
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
			sent <- struct{}{}
			c.gone()
		})
		f := startFront(t, b.addr)
		c := f.dial(t)
		for range 3 {
			if got := c.get("/", 200); got != "good" {
				t.Errorf("got %q", got)
			}
			f.idle(t, 1) // both connections wait for the next request
			kept <- struct{}{}
			<-sent
		}
	})
}

func TestThereIsAnEndToTrying(t *testing.T) {
	var addrs []string
	var seen atomic.Int32
	for range 6 {
		b := startBackend(t, func(c *upstreamConn) {
			if _, _, ok := c.request(); ok {
				seen.Add(1)
			}
		})
		addrs = append(addrs, b.addr)
	}
	f := startFront(t, addrs...)
	if resp, _ := f.talk(t, getIt); resp.StatusCode != 502 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if n := seen.Load(); n != 3 {
		t.Errorf("%d tries", n)
	}
}

func TestNobodyToAsk(t *testing.T) {
	tests := []struct {
		name   string
		front  func(testing.TB) *front
		status int
	}{
		{"no endpoint", func(t testing.TB) *front { t.Helper(); return startFront(t) }, 503},
		{"all refuse", func(t testing.TB) *front { t.Helper(); return startFront(t, refusing(t), refusing(t)) }, 502},
		{"no host", func(t testing.TB) *front {
			t.Helper()
			return setup{route: func(r *Route) { r.Host = "other.test" }}.start(t)
		}, 404},
		{"no path", func(t testing.TB) *front {
			t.Helper()
			return setup{route: func(r *Route) { r.Path = "/other" }}.start(t)
		}, 404},
		{"no backend", func(t testing.TB) *front {
			t.Helper()
			return setup{route: func(r *Route) { r.Backend, r.Status, r.Reason = nil, 503, "broken" }}.start(t)
		}, 503},
		{"connecting takes too long", func(t testing.TB) *front {
			t.Helper()
			return setup{pool: engine.PoolConfig{ConnectTimeout: 50 * time.Millisecond, DialContext: hang}}.start(t, "192.0.2.1:80")
		}, 504},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := tt.front(t)
			c := f.dial(t)
			for range 2 { // the client's connection is none the worse for it
				if resp, _ := c.send(postIt).answer("POST"); resp.StatusCode != tt.status {
					t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
				}
			}
			f.log.await(t, 2)
		})
	}
}

// hang is a net.Dialer before a network that swallows all.
func hang(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
}

func TestEndpointsCountWhatIsInFlight(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startFront(t, b.addr, refusing(t))
	c := f.dial(t)
	for i := range 10 {
		c.get(fmt.Sprint("/", i), 200)
	}
	f.log.await(t, 10)
	for _, e := range f.backend.Endpoints() {
		if n := e.InFlight(); n != 0 {
			t.Errorf("%s: %d in flight", e.Address(), n)
		}
	}
}

// stillborn is a connection that is there and takes nothing.
type stillborn struct{ net.Conn }

func (stillborn) Write([]byte) (int, error) { return 0, syscall.EPIPE }
func (stillborn) Read([]byte) (int, error)  { return 0, syscall.ECONNRESET }

func TestAPostOfWhichNothingWasSentIsTriedElsewhere(t *testing.T) {
	for _, body := range []string{"hello", ""} { // here, and to come
		b := startBackend(t, answerAll)
		var dials atomic.Int32
		f := setup{pool: engine.PoolConfig{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err == nil && dials.Add(1) == 1 {
				return stillborn{conn}, nil
			}
			return conn, err
		}}}.start(t, b.addr, startBackend(t, answerAll).addr)
		c := f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\n" + body)
		if body == "" {
			time.Sleep(20 * time.Millisecond)
			c.send("hello")
		}
		if resp, _ := c.answer("POST"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
		if e := f.log.await(t, 1)[0]; e.Tries != 2 {
			t.Errorf("%d tries", e.Tries)
		}
	}
}
