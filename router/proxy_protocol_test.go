package router

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

const (
	proxyV1   = "PROXY TCP4 192.0.2.1 198.51.100.2 55555 443\r\n"
	proxy1234 = "PROXY TCP4 192.0.2.1 198.51.100.2 55555 1234\r\n"
	proxyV2   = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xd9\x03\x01\xbb"
	localV2   = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	aRequest  = "GET / HTTP/1.1\r\nHost: h.test\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
	aRefusal  = "PROXY TCP4 192.0.2.1 198.51.100.2 55555 443 \r\n"
	theSource = "192.0.2.1"
)

var fromLoopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// behind are the two listeners: what comes after the header is plain, or TLS.
var behind = map[string]bool{"plain": false, "TLS": true}

// dialProxied sends a header, and then begins TLS if the front does.
func (f *front) dialProxied(t testing.TB, header string) *client {
	t.Helper()
	plain := &front{addr: f.addr}
	c := plain.dial(t).send(header)
	if f.tls != nil {
		c.Conn = tls.Client(c.Conn, f.tls)
		c.r.Reset(c.Conn)
	}
	return c
}

func TestProxyProtocol(t *testing.T) {
	for kind, encrypted := range behind {
		t.Run(kind, func(t *testing.T) {
			own := "80" // the port that the listener stands for
			if encrypted {
				own = "443"
			}
			for _, tt := range []struct{ name, header, client, port string }{
				{"version 1", proxyV1, theSource, "443"},
				{"version 1, another port", proxy1234, theSource, "1234"},
				{"version 2", proxyV2, theSource, "443"},
				{"version 1, unknown", "PROXY UNKNOWN\r\n", "127.0.0.1", own},
				{"version 2, local", localV2, "127.0.0.1", own},
			} {
				t.Run(tt.name, func(t *testing.T) {
					b := startBackend(t, answerAll)
					f := setup{proxyFrom: fromLoopback}.withTLS(encrypted).start(t, b.addr).trusting(encrypted)
					c := f.dialProxied(t, tt.header)
					for range 2 { // the second time the header is long gone
						c.send(aRequest)
						if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
							t.Fatalf("status %d", resp.StatusCode)
						}
					}
					for _, e := range f.log.await(t, 2) {
						if e.Client.Addr().String() != tt.client {
							t.Errorf("in the log: %s, want %s", e.Client, tt.client)
						}
					}
					saw := strings.Join(b.saw(), "")
					if n := strings.Count(saw, "X-Forwarded-For: "+tt.client+"\r\n"); n != 2 || strings.Contains(saw, "203.0.113.9") || strings.Contains(saw, "PROXY") {
						t.Errorf("the backend saw %q", saw)
					}
					if strings.Count(saw, "X-Forwarded-Port: "+tt.port+"\r\n") != 2 {
						t.Errorf("the port is not %s: %q", tt.port, saw)
					}
					proto := "http"
					if encrypted || tt.port == "443" { // a load balancer may have ended TLS
						proto = "https"
					}
					if strings.Count(saw, "X-Forwarded-Proto: "+proto+"\r\n") != 2 {
						t.Errorf("it was not %s: %q", proto, saw)
					}
					if n := f.server.Stats().ProxyErrors; n != 0 {
						t.Errorf("%d errors", n)
					}
				})
			}
		})
	}
}

// The header and what follows it come as TCP likes.
func TestProxyProtocolInPieces(t *testing.T) {
	b := startBackend(t, answerAll)
	f := setup{proxyFrom: fromLoopback}.start(t, b.addr)
	t.Run("with the request, and the next one", func(t *testing.T) {
		c := f.dial(t).send(proxyV2 + aRequest + aRequest)
		c.answer("GET")
		c.answer("GET")
	})
	t.Run("byte by byte", func(t *testing.T) {
		c := f.dial(t)
		c.Conn.(*net.TCPConn).SetNoDelay(true)
		for _, b := range proxyV1 + aRequest {
			c.send(string(b))
		}
		c.answer("GET")
	})
}

func TestProxyProtocolMalformed(t *testing.T) {
	for kind, encrypted := range behind {
		b := startBackend(t, answerAll)
		f := setup{proxyFrom: fromLoopback}.withTLS(encrypted).start(t, b.addr)
		for name, header := range map[string]string{
			"none":                 aRequest,
			"a space too many":     aRefusal,
			"bare LF":              strings.ReplaceAll(proxyV1, "\r\n", "\n"),
			"endless line":         "PROXY TCP4 " + strings.Repeat("1", 300),
			"UDP":                  strings.Replace(proxyV2, "\x21\x11", "\x21\x12", 1),
			"unknown command":      strings.Replace(proxyV2, "\x21\x11", "\x22\x11", 1),
			"unknown version":      strings.Replace(proxyV2, "\x21\x11", "\x11\x11", 1),
			"too short":            strings.Replace(proxyV2, "\x00\x0c", "\x00\x0b", 1),
			"too long":             strings.Replace(proxyV2, "\x00\x0c", "\xff\xff", 1),
			"torn TLV":             strings.Replace(proxyV2, "\x00\x0c", "\x00\x0e", 1) + "\x04\x00",
			"wrong checksum":       strings.Replace(proxyV2, "\x00\x0c", "\x00\x13", 1) + "\x03\x00\x04\x00\x00\x00\x00",
			"signature, and other": "\r\n\r\n\x00\r\nQUIX\n" + aRequest,
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				errors := f.server.Stats().ProxyErrors
				c := f.dial(t) // no TLS: it does not come to that
				c.send(header + aRequest)
				c.closed()
				eventually(t, "it is counted", func() bool { return f.server.Stats().ProxyErrors == errors+1 })
			})
		}
		if n := b.conns(); n != 0 {
			t.Errorf("%s: the backend saw %q", kind, b.saw())
		}
		if n := len(f.log.await(t, 0)); n != 0 {
			t.Errorf("%s: %d requests in the log", kind, n)
		}
	}
}

// From elsewhere a header is no request, and it is believed by nobody.
func TestProxyProtocolFromElsewhere(t *testing.T) {
	b := startBackend(t, answerAll)
	for _, tt := range []struct{ name, header string }{{"version 1", proxyV1}, {"version 2", proxyV2}} {
		t.Run(tt.name, func(t *testing.T) {
			f := setup{proxyFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}.start(t, b.addr)
			if resp, _ := f.dial(t).send(tt.header + aRequest).answer("GET"); resp.StatusCode != 400 || !resp.Close {
				t.Errorf("status %d", resp.StatusCode)
			}
			if e := f.log.await(t, 1)[0]; e.Client.Addr().String() != "127.0.0.1" {
				t.Errorf("in the log: %s", e.Client)
			}
			f.dial(t).get("/", 200)
		})
		t.Run(tt.name+" over TLS", func(t *testing.T) {
			f := setup{proxyFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}.withTLS(true).start(t, b.addr).trusting(true)
			c := f.dialProxied(t, tt.header)
			if err := c.Conn.(*tls.Conn).Handshake(); err == nil {
				t.Error("the handshake succeeded")
			}
			f.dial(t).get("/", 200)
		})
	}
}

func TestProxyProtocolThatDoesNotComeEnds(t *testing.T) {
	for kind, encrypted := range behind {
		t.Run(kind, func(t *testing.T) {
			f := setup{proxyFrom: fromLoopback, limits: engine.Limits{HeadTimeout: 100 * time.Millisecond}}.withTLS(encrypted).start(t)
			for _, half := range []string{"", proxyV1[:20], proxyV2[:14]} {
				steadily(t, short/8, func(t testing.TB) {
					t.Helper()
					before, want := f.server.Stats().ProxyErrors, min(len(half), 1) // silence is no error
					f.dial(t).send(half).closed()
					eventually(t, "it has gone", func() bool { return f.server.Stats().Open == 0 })
					if n := f.server.Stats().ProxyErrors - before; int(n) != want {
						t.Errorf("%d errors after %q, want %d", n, half, want)
					}
				})
			}
		})
	}
}

// A connection that has said nothing is no reason to wait with the end.
func TestProxyProtocolAtTheEnd(t *testing.T) {
	f := setup{proxyFrom: fromLoopback}.start(t)
	c := f.dial(t)
	eventually(t, "it is there", func() bool { return f.server.Stats().Idle == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	c.closed()
}

// h2c after a header.
func TestProxyProtocolHTTP2(t *testing.T) {
	b := startBackend(t, answerAll)
	f := setup{proxyFrom: fromLoopback, h2c: true}.start(t, b.addr)
	c := f.dial(t).send(proxyV2 + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	var head [9]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil || head[3] != 4 || binary.BigEndian.Uint32(head[5:]) != 0 {
		t.Errorf("the answer begins with %x, %v, want SETTINGS", head, err)
	}
}

// Each request has a connection of its own, which says who its client is and nothing twice.
func TestProxyProtocolToBackends(t *testing.T) {
	for version, want := range map[engine.ProxyVersion]string{
		engine.ProxyV1: proxyV1,
		engine.ProxyV2: proxyV2,
	} {
		b := startBackend(t, func(c *upstreamConn) {
			header := make([]byte, len(want))
			if _, err := io.ReadFull(c.r, header); err != nil {
				return
			}
			answerAll(c)
		})
		f := setup{proxyFrom: fromLoopback, route: func(r *Route) { r.ProxyProtocol = version }}.start(t, b.addr)
		c := f.dialProxied(t, proxyV1)
		c.get("/", 200)
		c.get("/", 200)
		saw := b.saw()
		if len(saw) != 2 {
			t.Fatalf("version %d: %d connections", version, len(saw))
		}
		for _, raw := range saw {
			if !strings.HasPrefix(raw, want+"GET / HTTP/1.1\r\n") || strings.Count(raw, "GET ") != 1 {
				t.Errorf("version %d: the backend saw %q", version, raw)
			}
		}
	}
}

// Of one's own clients, with the addresses of the connection.
func TestProxyProtocolToBackendsOfOwnClients(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		if line, err := c.r.ReadString('\n'); err == nil && strings.HasPrefix(line, "PROXY TCP4 127.0.0.1 127.0.0.1 ") {
			answerAll(c)
		}
	})
	f := setup{route: func(r *Route) { r.ProxyProtocol = engine.ProxyV1 }}.start(t, b.addr)
	f.dial(t).get("/", 200)
}

// Behind a load balancer, passed through, and told to the backend: in all versions.
func TestPassthroughTellsTheClient(t *testing.T) {
	texts := map[engine.ProxyVersion]string{engine.ProxyV1: proxyV1, engine.ProxyV2: proxyV2}
	for out, want := range texts {
		for in, header := range texts {
			t.Run(fmt.Sprintf("version %d to %d", in, out), func(t *testing.T) {
				b := startBackend(t, func(c *upstreamConn) {
					got := make([]byte, len(want))
					if _, err := io.ReadFull(c.r, got); err == nil && string(got) == want {
						echoTLS(&upstreamConn{Conn: struct{ net.Conn }{bufferedConn{c}}})
					}
				})
				s := setup{proxyFrom: fromLoopback}.passing("passed.test")
				hosts := s.hosts
				s.hosts = func(edit *Edit, r *Route) {
					next := *r
					next.ProxyProtocol = out
					hosts(edit, &next)
				}
				f := s.start(t, b.addr)
				f.tls = &tls.Config{InsecureSkipVerify: true, ServerName: "passed.test"}
				c := f.dialProxied(t, header)
				echoed := make([]byte, 5)
				if _, err := io.ReadFull(c.send("hello").r, echoed); string(echoed) != "hello" || err != nil {
					t.Errorf("%q, %v", echoed, err)
				}
				c.Close()
				if e := f.log.await(t, 1)[0]; e.Client.Addr().String() != theSource || e.Upstream != b.addr || e.Status != 200 {
					t.Errorf("in the log: %+v", e)
				}
			})
		}
	}
}

// bufferedConn reads what has been read ahead first.
type bufferedConn struct{ *upstreamConn }

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
