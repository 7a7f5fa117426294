package router

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// wsWays are the ways in which a client can ask for a WebSocket.
var wsWays = map[string]struct{ h2, secure bool }{
	"HTTP/1.1": {}, "HTTP/1.1 over TLS": {secure: true}, "h2c": {h2: true}, "HTTP/2 over TLS": {h2: true, secure: true},
}

func overAllWays(t *testing.T, run func(t *testing.T, h2, secure bool)) {
	t.Helper()
	for name, way := range wsWays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, way.h2, way.secure)
		})
	}
}

// startWS is a server of WebSockets, and a proxy before it.
func startWS(t *testing.T, s setup, h2, secure bool, serve func(ctx context.Context, c *websocket.Conn)) *front {
	t.Helper()
	up := startHTTP(t, wsHandler(serve))
	s.h2c = h2 && !secure
	return s.withTLS(secure).start(t, up).trusting(secure)
}

func wsHandler(serve func(ctx context.Context, c *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			InsecureSkipVerify: true, Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover,
		})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(64 << 20)
		serve(r.Context(), c)
	}
}

// echoMessages sends each message back.
func echoMessages(ctx context.Context, c *websocket.Conn) {
	for {
		kind, p, err := c.Read(ctx)
		if err != nil || c.Write(ctx, kind, p) != nil {
			return
		}
	}
}

// dialWS asks for a WebSocket: by Upgrade, or by extended CONNECT.
func (f *front) dialWS(t *testing.T, h2 bool) *websocket.Conn {
	t.Helper()
	c := f.h2Client(t)
	c.Timeout = 0 // it would end the stream
	if h2 {
		c.Transport = f.extendedConnect(t)
	} else {
		c.Transport.(*http.Transport).Protocols.SetHTTP1(true)
		c.Transport.(*http.Transport).Protocols.SetHTTP2(false)
		c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(false)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, f.url("/chat"), &websocket.DialOptions{
		HTTPClient: c, Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		t.Fatalf("%v %+v", err, resp)
	}
	t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(64 << 20)
	if ws.Subprotocol() != "echo" || !strings.HasPrefix(resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate") {
		t.Errorf("agreed on the protocol %q and on %v", ws.Subprotocol(), resp.Header)
	}
	return ws
}

// extendedConnect makes of an Upgrade what RFC 8441 has for it, on the client's side.
type extendedConnect struct{ *http2.Transport }

//nolint:staticcheck // net/http has no way to say :protocol
func (f *front) extendedConnect(t *testing.T) extendedConnect {
	t.Helper()
	tr := &http2.Transport{AllowHTTP: true, DisableCompression: true}
	tr.DialTLSContext = func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, f.addr)
		if err != nil || f.tls == nil {
			return conn, err
		}
		config := f.tls.Clone()
		config.NextProtos = []string{"h2"}
		return tls.Client(conn, config), nil
	}
	t.Cleanup(tr.CloseIdleConnections)
	return extendedConnect{tr}
}

//nolint:staticcheck // as above
func (e extendedConnect) RoundTrip(r *http.Request) (*http.Response, error) {
	content, send := io.Pipe()
	connect := r.Clone(context.WithoutCancel(r.Context())) // of which only the handshake takes part
	connect.Method, connect.Body, connect.ContentLength = "CONNECT", content, -1
	key := connect.Header.Get("Sec-WebSocket-Key")
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} {
		connect.Header.Del(name)
	}
	connect.Header[":protocol"] = []string{"websocket"}
	resp, err := e.Transport.RoundTrip(connect)
	if err != nil || resp.StatusCode != 200 {
		return resp, err
	}
	resp.StatusCode = 101
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", acceptOf(key))
	resp.Body = struct {
		io.Reader
		io.WriteCloser
	}{resp.Body, bodyPair{send, resp.Body}}
	return resp, nil
}

// bodyPair closes both ways.
type bodyPair struct {
	*io.PipeWriter
	answer io.Closer
}

func (b bodyPair) Close() error { return errors.Join(b.PipeWriter.Close(), b.answer.Close()) }

func randomBytes(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

func TestWebSocketMessages(t *testing.T) {
	overAllWays(t, func(t *testing.T, h2, secure bool) {
		t.Helper()
		f := startWS(t, setup{}, h2, secure, echoMessages)
		c := f.dialWS(t, h2)
		for _, n := range []int{0, 1, 125, 126, 65535, 65536, 3 << 20} {
			for kind, p := range map[websocket.MessageType][]byte{
				websocket.MessageBinary: randomBytes(n), websocket.MessageText: bytes.Repeat([]byte("a"), n),
			} {
				sent := make(chan error, 1)
				go func() { sent <- c.Write(t.Context(), kind, p) }()
				got, back, err := c.Read(t.Context())
				if err != nil || got != kind || !bytes.Equal(back, p) {
					t.Fatalf("%v of %d bytes came back as %v of %d: %v", kind, n, got, len(back), err)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := f.server.Stats().Tunnels; n != 1 {
			t.Errorf("%d tunnels", n)
		}
	})
}

// A message in fragments, of which nobody makes one, and with a ping between them.
func TestWebSocketFragmentsAndPings(t *testing.T) {
	overAllWays(t, func(t *testing.T, h2, secure bool) {
		t.Helper()
		f := startWS(t, setup{}, h2, secure, func(ctx context.Context, c *websocket.Conn) {
			_, r, err := c.Reader(ctx)
			if err != nil {
				return
			}
			go func() { _ = c.Ping(ctx) }()
			w, err := c.Writer(ctx, websocket.MessageBinary)
			if err != nil {
				return
			}
			if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1000)); err != nil {
				return
			}
			w.Close()
			echoMessages(ctx, c)
		})
		c := f.dialWS(t, h2)
		p := randomBytes(200_000)
		go func() {
			w, err := c.Writer(t.Context(), websocket.MessageBinary)
			if err != nil {
				t.Error(err)
				return
			}
			for piece := range bytesIn(p, 7001) {
				if _, err := w.Write(piece); err != nil {
					t.Error(err)
				}
			}
			w.Close()
		}()
		if _, got, err := c.Read(t.Context()); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("%d bytes of %d: %v", len(got), len(p), err)
		}
		pinged := make(chan error, 1)
		go func() { pinged <- c.Ping(t.Context()) }()
		read := c.CloseRead(t.Context()) // it takes the pong
		if err := <-pinged; err != nil {
			t.Errorf("ping: %v, %v", err, read.Err())
		}
	})
}

func bytesIn(p []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			k := min(n, len(p))
			if !yield(p[:k]) {
				return
			}
			p = p[k:]
		}
	}
}

func TestWebSocketCloseCodes(t *testing.T) {
	overAllWays(t, func(t *testing.T, h2, secure bool) {
		t.Helper()
		heard := make(chan error, 1)
		f := startWS(t, setup{}, h2, secure, func(ctx context.Context, c *websocket.Conn) {
			_, p, err := c.Read(ctx)
			if err == nil && string(p) == "leave" {
				c.Close(websocket.StatusCode(4321), "you said so")
				return
			}
			heard <- err
		})
		c := f.dialWS(t, h2)
		if err := c.Close(websocket.StatusCode(4001), "enough"); err != nil {
			t.Errorf("close: %v", err)
		}
		var closing websocket.CloseError
		if err := <-heard; !errors.As(err, &closing) || closing.Code != 4001 || closing.Reason != "enough" {
			t.Errorf("the server heard %v", err)
		}
		c = f.dialWS(t, h2)
		if err := c.Write(t.Context(), websocket.MessageText, []byte("leave")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Read(t.Context()); !errors.As(err, &closing) || closing.Code != 4321 || closing.Reason != "you said so" {
			t.Errorf("the client heard %v", err)
		}
		c.CloseNow()
		eventually(t, "no tunnel is left", func() bool { return f.server.Stats().Tunnels == 0 })
		for _, e := range f.log.await(t, 2) {
			if e.Note != "" && (!h2 || e.Note != "client closed the connection") { // this client resets streams
				t.Errorf("in the log: %+v", e)
			}
		}
	})
}

// says checks that a WebSocket is alive.
func says(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if _, p, err := c.Read(ctx); err != nil || string(p) != text {
		t.Fatalf("%s: %q, %v", text, p, err)
	}
}

// Nothing that changes in the configuration ends a WebSocket.
func TestWebSocketsSurviveChanges(t *testing.T) {
	overAllWays(t, func(t *testing.T, h2, secure bool) {
		t.Helper()
		up, other := startHTTP(t, wsHandler(echoMessages)), startHTTP(t, wsHandler(echoMessages))
		var mu sync.Mutex
		certificate := testCertificate()
		s := setup{h2c: h2 && !secure}.withTLS(secure)
		if secure {
			s.tls.Certificates = nil
			s.tls.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				mu.Lock()
				defer mu.Unlock()
				return &certificate, nil
			}
		}
		backends := NewBackends(BackendsConfig{NewPool: func(a netip.AddrPort, _ Transport) *engine.Pool {
			return engine.NewPool(a.String(), engine.PoolConfig{})
		}})
		backend := backends.Get("test/ws:80")
		target := func(addr string) Target { return Target{Address: netip.MustParseAddrPort(addr), Name: addr} }
		backends.SetTargets("test/ws:80", []Target{target(up)})
		table := func(status int) *Table {
			route := &Route{Path: "/", Origin: "test/ws", Service: "test/ws:80", Backend: backend, Stats: new(Stats)}
			if status != 0 {
				route = &Route{Path: "/", Origin: "test/none", Status: status, Stats: new(Stats)}
			}
			edit := NewTable().Edit()
			edit.Put(NewHost("", []*Route{route}, nil))
			return edit.Table()
		}
		s.proxy = ProxyConfig{}
		f := s.start(t).trusting(secure)
		t.Cleanup(func() { backends.Keep(nil) })
		f.Swap(table(0))
		c := f.dialWS(t, h2)
		says(t, c, "at first")

		backends.SetTargets("test/ws:80", []Target{target(up), target(other)})
		says(t, c, "an endpoint has come")
		backends.SetTargets("test/ws:80", []Target{target(up)})
		says(t, c, "another one has gone")
		mu.Lock()
		certificate.Certificate = append(certificate.Certificate[:1:1], certificate.Certificate[0])
		mu.Unlock()
		says(t, c, "the certificate is another one")
		for range 10 {
			f.Swap(table(0))
		}
		says(t, c, "the table is another one")
		f.Swap(table(404))
		says(t, c, "its route has gone")
		f.Swap(NewTable())
		says(t, c, "all routes have gone")
		backends.SetTargets("test/ws:80", nil)
		says(t, c, "its endpoint has gone")
	})
}

// A drain leaves WebSockets the whole grace period, in which they go on as if nothing had
// happened, and then cuts them.
func TestWebSocketsAtTheEnd(t *testing.T) {
	overAllWays(t, func(t *testing.T, h2, secure bool) {
		t.Helper()
		left := make(chan struct{})
		f := startWS(t, setup{}, h2, secure, func(ctx context.Context, c *websocket.Conn) {
			echoMessages(ctx, c)
			left <- struct{}{}
		})
		stays, goes := f.dialWS(t, h2), f.dialWS(t, h2)
		says(t, stays, "at first")
		says(t, goes, "at first")
		f.server.Drain()
		says(t, stays, "draining")
		ctx, cut := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.server.Shutdown(ctx) }()
		eventually(t, "it listens no more", func() bool {
			conn, err := net.Dial("tcp", f.addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		says(t, stays, "closing")
		goes.Close(websocket.StatusNormalClosure, "")
		<-left
		says(t, stays, "alone")
		select {
		case err := <-ended:
			t.Fatalf("Shutdown has ended: %v", err)
		default:
		}
		cut()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, _, err := stays.Read(t.Context()); err == nil {
			t.Error("it was not cut")
		}
		select {
		case <-left:
		case <-time.After(patience):
			t.Error("the backend's end is still open")
		}
	})
}
