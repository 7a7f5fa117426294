package router

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// passedCertificate is what backends show whose TLS is passed through.
var passedCertificate = sync.OnceValue(func() tls.Certificate {
	return certificateFor("passed.test", "*.passed.test", "h.test")
})

// passing makes h.test answer for itself, and passes these hosts through.
func (s setup) passing(hosts ...string) setup {
	s = s.withTLS(true)
	s.hosts = func(edit *Edit, route *Route) {
		for _, host := range hosts {
			r := *route
			r.Host = host
			edit.Put(NewHost(host, []*Route{&r}, nil).WithStream(&r))
		}
	}
	s.route = func(r *Route) { r.Host = "h.test" }
	return s
}

// echoTLS ends TLS, and says the same thing back until the client has ended its half.
func echoTLS(c *upstreamConn) {
	t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{passedCertificate()}, NextProtos: []string{"h2", "echo"}})
	io.Copy(t, t)
	t.CloseWrite()
}

// dialPassed asks for a name, and trusts the backend alone.
func (f *front) dialPassed(t testing.TB, name string, change func(*tls.Config)) (*tls.Conn, error) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(passedCertificate().Leaf)
	config := &tls.Config{RootCAs: pool, ServerName: name}
	if change != nil {
		change(config)
	}
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := tls.Client(conn, config)
	return c, c.Handshake()
}

func TestPassthrough(t *testing.T) {
	b := startBackend(t, echoTLS)
	f := setup{}.passing("passed.test", "*.passed.test").start(t, b.addr)
	for _, name := range []string{"passed.test", "PASSED.test", "x.passed.test"} {
		t.Run(name, func(t *testing.T) {
			logged := len(f.log.await(t, 0))
			c, err := f.dialPassed(t, name, func(c *tls.Config) { c.NextProtos = []string{"echo"} })
			if err != nil {
				t.Fatal(err)
			}
			if got := c.ConnectionState().NegotiatedProtocol; got != "echo" {
				t.Errorf("ALPN %q", got)
			}
			big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB: the kernel moves most of it
			go func() {
				c.Write(big)
				c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); !bytes.Equal(got, big) || err != nil {
				t.Fatalf("%d bytes came back of %d, %v", len(got), len(big), err)
			}
			c.Close()
			e := f.log.await(t, logged+1)[logged]
			if e.Status != 200 || e.Host != strings.ToLower(name) || e.Proto != "TLS" || e.Upstream != b.addr || e.Tries != 1 ||
				e.Received < int64(len(big)) || e.Sent < int64(len(big)) || e.Note != "" || e.Route == nil || e.Path != "" {
				t.Errorf("in the log: %+v", e)
			}
		})
	}
	t.Run("other names are ended here", func(t *testing.T) {
		if c, err := f.dialPassed(t, "x.y.passed.test", nil); err == nil {
			t.Errorf("it was shown %v", c.ConnectionState().PeerCertificates[0].Subject)
		}
		g := (&front{Proxy: f.Proxy, addr: f.addr}).trusting(true)
		c := g.dial(t)
		c.send("GET /nowhere HTTP/1.1\r\nHost: other.test\r\n\r\n")
		if resp, _ := c.answer("GET"); resp.StatusCode != 404 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
	if n := f.server.Stats().Streams; n != 3 {
		t.Errorf("%d were passed through", n)
	}
	if s := f.stats.Snapshot(); s.Requests[MethodOther][2] != 3 || s.Tries != 3 {
		t.Errorf("counted: %+v", s)
	}
}

// helloFor is a ClientHello, in one record.
func helloFor(t *testing.T, name string) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	defer ours.Close()
	go tls.Client(ours, &tls.Config{ServerName: name}).Handshake()
	buf := make([]byte, 4096)
	n, err := theirs.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// A ClientHello in many records and many packets gets there as it came.
func TestPassthroughOfAHelloInPieces(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) { c.gone() })
	f := setup{}.passing("passed.test").start(t, b.addr)
	var pieces []byte
	for rest := helloFor(t, "passed.test")[5:]; len(rest) > 0; {
		n := min(100, len(rest))
		pieces = append(append(pieces, 0x16, 3, 1, 0, byte(n)), rest[:n]...)
		rest = rest[n:]
	}
	c := f.dial(t)
	c.Conn.(*net.TCPConn).SetNoDelay(true)
	for _, b := range pieces {
		c.send(string([]byte{b}))
	}
	eventually(t, "all of it is there", func() bool {
		saw := b.saw()
		return len(saw) == 1 && saw[0] == string(pieces)
	})
	c.Close()
}

func TestPassthroughTriesAnotherEndpoint(t *testing.T) {
	b := startBackend(t, echoTLS)
	f := setup{}.passing("passed.test").start(t, b.addr, refusing(t))
	for range 4 {
		c, err := f.dialPassed(t, "passed.test", nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	retried := false
	for _, e := range f.log.await(t, 4) {
		retried = retried || e.Tries == 2
		if e.Status != 200 || e.Upstream != b.addr {
			t.Errorf("in the log: %+v", e)
		}
	}
	if !retried {
		t.Error("nobody met the closed endpoint")
	}
}

func TestPassthroughWithoutEndpoints(t *testing.T) {
	f := setup{}.passing("passed.test").start(t)
	if _, err := f.dialPassed(t, "passed.test", nil); err == nil {
		t.Error("the handshake succeeded")
	}
	if e := f.log.await(t, 1)[0]; e.Status != 503 || e.Note != "no endpoint" {
		t.Errorf("in the log: %+v", e)
	}
}

func TestPassthroughThatIsIdleEnds(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) { c.gone() })
	f := setup{limits: engine.Limits{TunnelTimeout: short}}.passing("passed.test").start(t, b.addr)
	f.dial(t).send(string(helloFor(t, "passed.test"))).closed()
	if e := f.log.await(t, 1)[0]; e.Status != 200 || !strings.Contains(e.Note, "timeout") {
		t.Errorf("in the log: %+v", e)
	}
}

// A ClientHello that stops half way, or never comes, ends with the time for handshakes.
func TestPassthroughOfNothingEnds(t *testing.T) {
	f := setup{limits: engine.Limits{HandshakeTimeout: 100 * time.Millisecond}}.passing("passed.test").start(t)
	f.dial(t).closed()
	f.dial(t).send("\x16\x03\x01\x02\x00\x01\x00\x01").closed()
	eventually(t, "both are counted", func() bool { return f.server.Stats().HandshakeErrors == 2 })
}

// While some host is passed through, others are as they were.
func TestTLSBesidePassthrough(t *testing.T) {
	b := startBackend(t, answerAll)
	f := setup{}.passing("passed.test").start(t, b.addr).trusting(true)
	c := f.dial(t)
	c.get("/", 200)
	c.get("/", 200)
	if f.dial(t).get("/", 200); f.server.Stats().HandshakeErrors != 0 {
		t.Error("a handshake failed")
	}
	plain := &front{addr: f.addr}
	if resp, body := plain.talk(t, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"); resp.StatusCode != 400 || !strings.Contains(body, "https://") {
		t.Errorf("plain HTTP: %d %q", resp.StatusCode, body)
	}
}

// The PROXY header goes before the ClientHello.
func TestPassthroughBehindALoadBalancer(t *testing.T) {
	b := startBackend(t, echoTLS)
	f := setup{proxyFrom: fromLoopback}.passing("passed.test").start(t, b.addr)
	pool := x509.NewCertPool()
	pool.AddCert(passedCertificate().Leaf)
	f.tls = &tls.Config{RootCAs: pool, ServerName: "passed.test"}
	c := f.dialProxied(t, proxyV2)
	if err := c.Conn.(*tls.Conn).Handshake(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if e := f.log.await(t, 1)[0]; e.Client.Addr().String() != theSource {
		t.Errorf("in the log: %+v", e)
	}
	if saw := strings.Join(b.saw(), ""); strings.Contains(saw, "QUIT") {
		t.Errorf("the backend saw the header")
	}
}

func TestEditCountsStreams(t *testing.T) {
	r := &Route{Host: "a.example", Path: "/"}
	plain := NewHost("a.example", []*Route{r}, nil)
	through := plain.WithStream(r)
	edit := NewTable().Edit()
	for i, step := range []struct {
		do   func()
		want bool
	}{
		{func() { edit.Put(plain) }, false},
		{func() { edit.Put(through) }, true},
		{func() { edit.Put(through) }, true},
		{func() { edit.Put(plain) }, false},
		{func() { edit.Put(through) }, true},
		{func() { edit.Remove("b.example") }, true},
		{func() { edit.Remove("a.example") }, false},
		{func() { edit.Remove("a.example") }, false},
	} {
		if step.do(); edit.Table().HasStreams() != step.want {
			t.Errorf("step %d: HasStreams is %v", i, !step.want)
		}
	}
	edit.Put(through)
	table := edit.Table()
	if table.MatchStream([]byte("a.example")) != r || table.MatchStream([]byte("b.example")) != nil || table.Match([]byte("a.example"), []byte("/")) != r {
		t.Error("the wrong route was found")
	}
}

// BenchmarkHandshake is a full handshake, with and without a look at its ClientHello.
func BenchmarkHandshake(b *testing.B) {
	for name, hosts := range map[string][]string{"no passthrough": nil, "beside passthrough": {"passed.test"}} {
		b.Run(name, func(b *testing.B) {
			f := setup{mute: true}.passing(hosts...).start(b).trusting(true)
			f.tls.ClientSessionCache = nil
			for b.Loop() {
				conn, err := tls.Dial("tcp", f.addr, f.tls)
				if err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}
