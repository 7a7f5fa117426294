package router

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// testCertificate is for h.test, signed by itself.
var testCertificate = sync.OnceValue(func() tls.Certificate { return certificateFor("h.test") })

func certificateFor(names ...string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (s setup) withTLS(on bool) setup {
	if on {
		s.tls = &tls.Config{Certificates: []tls.Certificate{testCertificate()}, NextProtos: []string{"h2", "http/1.1"}}
	}
	return s
}

func (f *front) trusting(on bool) *front {
	if on {
		pool := x509.NewCertPool()
		pool.AddCert(testCertificate().Leaf)
		f.tls = &tls.Config{RootCAs: pool, ServerName: "h.test", ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	}
	return f
}

func TestTLS(t *testing.T) {
	b := startBackend(t, answerAll)
	f := setup{}.withTLS(true).start(t, b.addr).trusting(true)
	t.Run("the connection is kept", func(t *testing.T) {
		c := f.dial(t)
		for range 20 {
			c.get("/", 200)
		}
		if raw := strings.Join(b.saw(), ""); !strings.Contains(raw, "X-Forwarded-Proto: https\r\n") || !strings.Contains(raw, "X-Forwarded-Port: 443\r\n") {
			t.Errorf("the backend saw %.300q", raw)
		}
	})
	t.Run("sessions are resumed", func(t *testing.T) {
		c := f.dial(t)
		c.get("/", 200)
		if !c.Conn.(*tls.Conn).ConnectionState().DidResume {
			t.Error("the second connection did not resume")
		}
	})
	t.Run("pipelined in one record", func(t *testing.T) {
		c := f.dial(t)
		c.send(strings.Repeat("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n", 10))
		for range 10 {
			c.answer("GET")
		}
	})
	t.Run("a body in many records", func(t *testing.T) {
		c := f.dial(t)
		c.send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 300\r\n\r\n")
		for range 300 {
			c.send("x")
		}
		c.answer("POST")
		c.get("/", 200)
	})
	t.Run("plain HTTP is told so", func(t *testing.T) {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
		conn.SetDeadline(time.Now().Add(patience))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 400 || !strings.Contains(string(body), "https://") || err != nil {
			t.Errorf("%d %q %v", resp.StatusCode, body, err)
		}
	})
	t.Run("a client that leaves is seen", func(t *testing.T) {
		gone := make(chan struct{})
		b := startBackend(t, func(c *upstreamConn) { c.gone(); close(gone) })
		f := setup{}.withTLS(true).start(t, b.addr).trusting(true)
		c := f.dial(t).send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
		eventually(t, "the request is at the backend", func() bool { return b.conns() == 1 })
		c.Close()
		<-gone
	})
}

// An answer that ends by closing must not end well, over TLS: without the closing alert the
// client knows that it was cut.
func TestACutAnswerOverTLSHasNoClosingAlert(t *testing.T) {
	begun := make(chan struct{})
	b := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		<-begun
	})
	f := setup{}.withTLS(true).start(t, b.addr).trusting(true)
	c := f.dial(t).send("GET / HTTP/1.0\r\nHost: h.test\r\n\r\n")
	resp := c.head("GET")
	close(begun)
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%q looks whole", body)
	}
}

func TestAHandshakeThatDoesNotComeEnds(t *testing.T) {
	f := setup{limits: engine.Limits{HandshakeTimeout: 100 * time.Millisecond}}.withTLS(true).start(t)
	c := f.dial(t) // f.tls is nil: it says nothing
	c.closed()
	eventually(t, "the error is counted", func() bool { return f.server.Stats().HandshakeErrors == 1 })
}

func TestDrainOverTLS(t *testing.T) {
	b := startBackend(t, answerAll)
	f := setup{}.withTLS(true).start(t, b.addr).trusting(true)
	idle := f.dial(t)
	idle.get("/", 200)
	f.idle(t, 1)
	f.server.Drain()
	resp, _ := idle.send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").answer("GET")
	if !resp.Close {
		t.Error("the answer does not say that the connection closes")
	}
	if _, err := bufio.NewReader(idle.Conn).ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v, want a clean one", err)
	}
}
