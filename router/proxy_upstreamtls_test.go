package router

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/portico-ingress/portico/router/engine"
)

// httpsUpstream speaks HTTP/1.1 over TLS.
func httpsUpstream(t testing.TB) string {
	t.Helper()
	return startTLSBackend(t, func(c *upstreamConn) { answerAll(c) })
}

func startTLSBackend(t testing.TB, serve func(c *upstreamConn)) string {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
	return startBackend(t, func(c *upstreamConn) {
		secure := tls.Server(c.Conn, config)
		inner := &upstreamConn{Conn: secure}
		inner.r = bufio.NewReader(inner)
		serve(inner)
	}).addr
}

func TestUpstreamTLS(t *testing.T) {
	trusted := x509.NewCertPool()
	trusted.AddCert(testCertificate().Leaf)
	for _, c := range []struct {
		name   string
		config *tls.Config
		status int
		note   string
	}{
		{name: "trusted", config: &tls.Config{RootCAs: trusted, ServerName: "h.test"}, status: 200},
		{name: "other name", config: &tls.Config{RootCAs: trusted, ServerName: "other.test"}, status: 502, note: "tls: tls: failed to verify certificate"},
		{name: "other CA", config: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "h.test"}, status: 502, note: "tls: tls: failed to verify certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := setup{pool: engine.PoolConfig{TLS: c.config}}.start(t, httpsUpstream(t))
			client := f.dial(t)
			for range 3 {
				client.get("/", c.status)
			}
			e := f.log.await(t, 3)[0]
			if !strings.HasPrefix(e.Note, c.note) || c.note == "" && e.Note != "" {
				t.Errorf("note %q", e.Note)
			}
			if n := f.backend.Endpoints()[0].Pool().Open(); c.status == 200 && n != 1 {
				t.Errorf("%d connections for 3 requests", n)
			}
		})
	}
}

// hostile is an upstream of HTTP/2 that answers each request with what a test likes.
func hostile(t testing.TB, answer func(fr *http2.Framer, id uint32, encode func(...string) []byte)) string {
	t.Helper()
	return startBackend(t, func(c *upstreamConn) {
		if _, err := io.ReadFull(c.r, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(c, c.r)
		fr.AllowIllegalWrites = true
		fr.WriteSettings()
		var block strings.Builder
		enc := hpack.NewEncoder(&block)
		encode := func(fields ...string) []byte {
			block.Reset()
			for i := 0; i < len(fields); i += 2 {
				enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			return []byte(block.String())
		}
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := f.(*http2.HeadersFrame); ok {
				answer(fr, h.StreamID, encode)
			}
		}
	}).addr
}

func TestH2UpstreamHostile(t *testing.T) {
	head := func(end bool, fields ...string) func(*http2.Framer, uint32, func(...string) []byte) {
		return func(fr *http2.Framer, id uint32, encode func(...string) []byte) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: encode(fields...)})
		}
	}
	many := func(write func(*http2.Framer, uint32) error) func(*http2.Framer, uint32, func(...string) []byte) {
		return func(fr *http2.Framer, id uint32, _ func(...string) []byte) {
			for range 20_000 {
				if write(fr, id) != nil {
					return
				}
			}
		}
	}
	for name, answer := range map[string]func(*http2.Framer, uint32, func(...string) []byte){
		"no status":           head(true, "x", "y"),
		"two statuses":        head(true, ":status", "200", ":status", "200"),
		"status after field":  head(true, "x", "y", ":status", "200"),
		"status 101":          head(true, ":status", "101"),
		"request pseudo":      head(true, ":status", "200", ":path", "/"),
		"upper case":          head(true, ":status", "200", "X-A", "b"),
		"line feed":           head(true, ":status", "200", "x", "a\r\nb: c"),
		"connection":          head(true, ":status", "200", "connection", "close"),
		"transfer-encoding":   head(true, ":status", "200", "transfer-encoding", "chunked"),
		"two lengths":         head(true, ":status", "200", "content-length", "0", "content-length", "0"),
		"length without body": head(true, ":status", "200", "content-length", "5"),
		"interim that ends":   head(true, ":status", "103"),
		"huge head":           head(true, ":status", "200", "x", strings.Repeat("y", 70<<10)),
		"data before head":    func(fr *http2.Framer, id uint32, _ func(...string) []byte) { fr.WriteData(id, true, []byte("x")) },
		"push": func(fr *http2.Framer, id uint32, encode func(...string) []byte) {
			fr.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true, BlockFragment: encode(":method", "GET")})
		},
		"idle stream": func(fr *http2.Framer, id uint32, _ func(...string) []byte) { fr.WriteRSTStream(id+100, 0) },
		"bad hpack": func(fr *http2.Framer, id uint32, _ func(...string) []byte) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}})
		},
		"window overflow": func(fr *http2.Framer, _ uint32, _ func(...string) []byte) {
			fr.WriteWindowUpdate(0, 1<<31-1)
			fr.WriteWindowUpdate(0, 1<<31-1)
		},
		"PING flood":          many(func(fr *http2.Framer, _ uint32) error { return fr.WritePing(false, [8]byte{}) }),
		"SETTINGS flood":      many(func(fr *http2.Framer, _ uint32) error { return fr.WriteSettings() }),
		"WINDOW_UPDATE flood": many(func(fr *http2.Framer, id uint32) error { return fr.WriteWindowUpdate(id, 1) }),
		"WINDOW_UPDATE flood on a stream that is over": func(fr *http2.Framer, id uint32, _ func(...string) []byte) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: []byte{0x88, 0x88}}) // two statuses: we reset it
			for range 20_000 {
				if fr.WriteWindowUpdate(id, 1<<12) != nil {
					return
				}
			}
		},
		"CONTINUATION flood": func(fr *http2.Framer, id uint32, encode func(...string) []byte) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: encode(":status", "200")})
			for range 20_000 {
				if fr.WriteContinuation(id, false, encode("x", strings.Repeat("y", 100))) != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup{proxy: ProxyConfig{MaxTries: 1}}.toH2(false).start(t, hostile(t, answer))
			f.dial(t).get("/", 502)
			if strings.Contains(name, "flood") {
				eventually(t, "the connection ends", func() bool { return f.backend.Endpoints()[0].Pool().Open() == 0 })
			}
		})
	}
	t.Run("body longer than its length", func(t *testing.T) {
		f := setup{}.toH2(false).start(t, hostile(t, func(fr *http2.Framer, id uint32, encode func(...string) []byte) {
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: encode(":status", "200", "content-length", "3")})
			fr.WriteData(id, true, []byte("12345"))
		}))
		c := f.dial(t).send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
		if resp, err := http.ReadResponse(c.r, nil); err == nil {
			if body, err := io.ReadAll(resp.Body); resp.StatusCode != 502 && err == nil {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		n := 0
		f := setup{}.toH2(false).start(t, hostile(t, func(fr *http2.Framer, id uint32, encode func(...string) []byte) {
			if n++; n == 1 {
				fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				return
			}
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: encode(":status", "204")})
		}))
		resp, _ := f.talk(t, "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 2\r\n\r\nok")
		if resp.StatusCode != 204 {
			t.Error(resp.StatusCode)
		}
	})
}
