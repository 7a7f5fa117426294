package router

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// front is a proxy that listens, with one route for every host.
type front struct {
	*Proxy
	server  *engine.Server
	addr    string
	log     *logbook
	backend *Backend
	targets func(upstreams ...string) // replaces the endpoints
	stats   *Stats
	tls     *tls.Config // of its clients; nil: plain
}

// setup is what a test may want to be different. The zero value is a proxy as it comes.
type setup struct {
	proxy  ProxyConfig
	pool   engine.PoolConfig
	limits engine.Limits
	tls    *tls.Config
	route  func(*Route)
	mute   bool // no access log
	h2c    bool
	hosts  func(edit *Edit, route *Route) // more of them
	// proxyFrom are the networks of clients that begin with a PROXY header.
	proxyFrom []netip.Prefix
	listen    func(net.Listener) net.Listener // wraps the listener; nil: not
}

func startFront(t testing.TB, upstreams ...string) *front {
	t.Helper()
	return setup{}.start(t, upstreams...)
}

// start makes the proxy and ends it with the test. The end is checked: everything closes
// within the grace period.
func (s setup) start(t testing.TB, upstreams ...string) *front {
	t.Helper()
	f := &front{stats: new(Stats)}
	if !s.mute {
		f.log = &logbook{}
		s.proxy.AccessLog = f.log
	}
	f.Proxy = NewProxy(s.proxy)
	f.Swap(s.table(t, f, upstreams))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	if s.listen != nil {
		ln = s.listen(ln)
	}
	f.server = &engine.Server{Handler: f.Proxy, Limits: s.limits, H2C: s.h2c, ProxyFrom: s.proxyFrom}
	served := make(chan error, 1)
	go func() {
		if s.tls != nil {
			served <- f.server.ServeTLS(ln, s.tls)
			return
		}
		served <- f.server.Serve(ln)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := f.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, engine.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
		if n := f.InFlight(); n != 0 {
			t.Errorf("%d requests are in flight after the shutdown", n)
		}
	})
	return f
}

func (s setup) table(t testing.TB, f *front, upstreams []string) *Table {
	t.Helper()
	if s.pool.ConnectTimeout == 0 {
		s.pool.ConnectTimeout = patience // a thousand at once on a busy machine take more than the default
	}
	backends := NewBackends(BackendsConfig{NewPool: func(a netip.AddrPort, _ Transport) *engine.Pool {
		return engine.NewPool(a.String(), s.pool)
	}})
	f.backend = backends.Get("test/echo:80")
	t.Cleanup(func() {
		endpoints := f.backend.Endpoints()
		backends.Keep(nil)
		for _, e := range endpoints {
			eventually(t, "all connections to backends are closed", func() bool { return e.Pool().Open() == 0 })
		}
	})
	f.targets = func(upstreams ...string) {
		targets := make([]Target, 0, len(upstreams))
		for _, u := range upstreams {
			targets = append(targets, Target{Address: netip.MustParseAddrPort(u), Name: u})
		}
		backends.SetTargets("test/echo:80", targets)
	}
	f.targets(upstreams...)
	route := &Route{Path: "/", Origin: "test/ingress", Service: "test/echo:80", Backend: f.backend, Stats: f.stats}
	if s.route != nil {
		s.route(route)
	}
	edit := NewTable().Edit()
	edit.Put(NewHost(route.Host, []*Route{route}, nil))
	if s.hosts != nil {
		s.hosts(edit, route)
	}
	return edit.Table()
}

// entry is a Record that may be kept.
type entry struct {
	ID, Method, Path, Upstream, Note string
	Status, Tries                    int
	Sent, Received                   int64
	Route                            *Route
	Client                           netip.AddrPort
	Host, Proto                      string
}

// logbook keeps what is logged.
type logbook struct {
	mu      sync.Mutex
	entries []entry
}

func (l *logbook) Log(r *Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry{
		ID: string(r.ID), Method: string(r.Method), Path: string(r.Path), Upstream: r.Upstream, Note: r.Note,
		Status: r.Status, Tries: r.Tries, Sent: r.BytesSent, Received: r.BytesReceived, Route: r.Route,
		Client: r.Client, Host: string(r.Host), Proto: r.Proto,
	})
}

// await returns the entries, once there are n.
func (l *logbook) await(t testing.TB, n int) []entry {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		have := l.entries
		l.mu.Unlock()
		if len(have) >= n {
			return have
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d entries in the log, want %d: %+v", len(have), n, have)
		}
	}
}

// has reports whether there are n entries.
func (l *logbook) has(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries) >= n
}

// client is a raw connection to the proxy.
type client struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

// patience bounds every wait in the tests for something that has to come.
const patience = 15 * time.Second

func (f *front) dial(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	if f.tls != nil {
		conn = tls.Client(conn, f.tls)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{Conn: conn, r: bufio.NewReader(conn), t: t}
}

// newReader reads what has been recorded.
func newReader(raw string) *bufio.Reader { return bufio.NewReader(strings.NewReader(raw)) }

func (c *client) send(raw string) *client {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, raw); err != nil {
		c.t.Fatalf("send: %v", err)
	}
	return c
}

// head reads the head of an answer to a request with this method; its Body is the rest.
func (c *client) head(method string) *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("answer: %v", err)
	}
	return resp
}

// answer reads one whole answer.
func (c *client) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp := c.head(method)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("body of the answer: %v, after %q", err, body)
	}
	return resp, string(body)
}

// get asks on a connection that is kept, and checks the status.
func (c *client) get(path string, status int) string {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: h.test\r\n\r\n")
	resp, body := c.answer("GET")
	if resp.StatusCode != status {
		c.t.Fatalf("GET %s: status %d, want %d: %s", path, resp.StatusCode, status, body)
	}
	return body
}

// closed checks that the proxy closes the connection, and sends nothing before.
func (c *client) closed() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 {
		c.t.Errorf("unexpected before the end: %q", rest)
	}
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		c.t.Error("the connection stays open")
	}
}

// talk sends raw bytes on a new connection and returns the first answer.
func (f *front) talk(t testing.TB, raw string) (*http.Response, string) {
	t.Helper()
	method, _, _ := strings.Cut(raw, " ")
	return f.dial(t).send(raw).answer(method)
}

// rawBackend is an upstream that records every byte, and whose connections a test drives.
type rawBackend struct {
	addr string
	ln   net.Listener
	mu   sync.Mutex
	all  []*upstreamConn
	wg   sync.WaitGroup
}

// upstreamConn is one connection that the proxy has made.
type upstreamConn struct {
	net.Conn
	r     *bufio.Reader
	index int // counted from 0
	mu    sync.Mutex
	got   bytes.Buffer
}

// recorded is how much of each connection is kept.
const recorded = 1 << 20

// Read records.
func (c *upstreamConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.got.Write(p[:min(n, recorded-c.got.Len())])
	c.mu.Unlock()
	return n, err
}

// request reads one request, whole; ok is false when none comes any more.
func (c *upstreamConn) request() (r *http.Request, body string, ok bool) {
	r, err := http.ReadRequest(c.r)
	if err != nil {
		return nil, "", false
	}
	all, err := io.ReadAll(r.Body)
	return r, string(all), err == nil
}

func (c *upstreamConn) send(raw string) { io.WriteString(c.Conn, raw) }

// reset tears the connection down.
func (c *upstreamConn) reset() {
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// untilTaken waits until the proxy has read all that was sent, which is lost to it if the
// connection is torn down before.
func (c *upstreamConn) untilTaken() {
	inKernel := func(addr net.Addr) string {
		a := addr.(*net.TCPAddr)
		return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a.IP.To4()), a.Port)
	}
	theirs := " " + inKernel(c.RemoteAddr()) + " " + inKernel(c.LocalAddr()) + " "
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		sockets, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			panic(err)
		}
		_, row, _ := strings.Cut(string(sockets), theirs)
		if fields := strings.Fields(row); len(fields) < 2 || strings.HasSuffix(fields[1], ":00000000") {
			return
		}
	}
}

// gone waits until the proxy has closed its end.
func (c *upstreamConn) gone() { io.Copy(io.Discard, c.r) }

// startBackend listens, and gives each connection to serve.
func startBackend(t testing.TB, serve func(c *upstreamConn)) *rawBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &rawBackend{ln: ln, addr: ln.Addr().String()}
	b.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c := &upstreamConn{Conn: conn}
			c.r = bufio.NewReader(c)
			b.mu.Lock()
			c.index = len(b.all)
			b.all = append(b.all, c)
			b.mu.Unlock()
			b.wg.Go(func() {
				defer conn.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		b.mu.Lock()
		for _, c := range b.all {
			c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

// startDeaf is a backend that takes connections, and reads nothing from them until the test ends.
func startDeaf(t testing.TB) *rawBackend {
	t.Helper()
	over := make(chan struct{})
	b := startBackend(t, func(*upstreamConn) { <-over })
	t.Cleanup(func() { close(over) })
	return b
}

// conns counts the connections there have been.
func (b *rawBackend) conns() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}

// saw returns all that has come, connection by connection.
func (b *rawBackend) saw() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, c := range b.all {
		c.mu.Lock()
		all = append(all, c.got.String())
		c.mu.Unlock()
	}
	return all
}

// answerAll serves 200 to every request on a connection.
func answerAll(c *upstreamConn) {
	for {
		r, _, ok := c.request()
		if !ok {
			return
		}
		if r.Method == "HEAD" {
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
			continue
		}
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// noDeadline takes a deadline away: a client without one sets no timer.
var noDeadline time.Time
