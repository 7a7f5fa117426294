package router

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/portico-ingress/portico/router/engine"
)

// A request as a browser sends it, and an answer of 200 bytes, as in the project's figures.
var (
	benchRequest = []byte("GET /api/v1/items?page=2 HTTP/1.1\r\nHost: h.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n")
	benchAnswer = append([]byte("HTTP/1.1 200 OK\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n"), bytes.Repeat([]byte("x"), 200)...)
	benchUpload = []byte("POST /api/v1/items HTTP/1.1\r\nHost: H.test\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n")
	headEnd     = []byte("\r\n\r\n")
	uploadEnd   = []byte("\r\n0\r\n\r\n")
)

// bareBackend answers without allocating: a request ends where its bytes say.
func bareBackend(t testing.TB, end []byte) string {
	t.Helper()
	return startBackend(t, func(c *upstreamConn) {
		buf := make([]byte, 16<<10)
		n := 0
		for {
			k, err := c.Conn.Read(buf[n:])
			if err != nil {
				return
			}
			if n += k; bytes.HasSuffix(buf[:n], end) {
				n = 0
				if _, err := c.Conn.Write(benchAnswer); err != nil {
					return
				}
			}
		}
	}).addr
}

// asker is a client that does not allocate.
type asker struct {
	conn net.Conn
	buf  []byte
	size int // of an answer
}

func newAsker(t testing.TB, f *front, request []byte) *asker {
	t.Helper()
	a := &asker{conn: f.dial(t).Conn, buf: make([]byte, 16<<10)}
	a.conn.Write(request)
	for a.size = 0; !bytes.HasSuffix(a.buf[:a.size], benchAnswer[len(benchAnswer)-200:]); {
		n, err := a.conn.Read(a.buf[a.size:])
		if err != nil {
			t.Fatal(err)
		}
		a.size += n
	}
	return a
}

func (a *asker) ask(t testing.TB, request []byte) {
	t.Helper()
	if _, err := a.conn.Write(request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a.conn, a.buf[:a.size]); err != nil {
		t.Fatal(err)
	}
}

// discard is an access log that costs nothing but the making of its records.
type discard struct{}

func (discard) Log(*Record) {}

var benchSetup = setup{mute: true, proxy: ProxyConfig{AccessLog: discard{}}, limits: engine.Limits{MaxRequests: 1 << 30}}

func BenchmarkProxyGET(b *testing.B)         { benchProxy(b, benchRequest, headEnd) }
func BenchmarkProxyPOSTChunked(b *testing.B) { benchProxy(b, benchUpload, uploadEnd) }

func benchProxy(b *testing.B, request, end []byte) {
	b.Helper()
	f := benchSetup.start(b, bareBackend(b, end))
	a := newAsker(b, f, request)
	a.conn.SetDeadline(noDeadline)
	b.ReportAllocs()
	for b.Loop() {
		a.ask(b, request)
	}
}

func BenchmarkProxyGETParallel(b *testing.B) {
	f := benchSetup.start(b, bareBackend(b, headEnd))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		a := newAsker(b, f, benchRequest)
		a.conn.SetDeadline(noDeadline)
		for pb.Next() {
			a.ask(b, benchRequest)
		}
	})
}

func TestARequestAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector makes pools forget at random: nothing to measure")
		return
	}
	tests := []struct {
		name         string
		request, end []byte
		tls          bool
		most         float64
	}{
		{"GET", benchRequest, headEnd, false, 0},
		{"chunked POST", benchUpload, uploadEnd, false, 0},
		{"host and path to be normalised", []byte("GET /a/../.b%7e/%c3%a9 HTTP/1.1\r\nHost: H.Test.:80\r\n\r\n"), headEnd, false, 0},
		{"GET over TLS", benchRequest, headEnd, true, 2}, // one in crypto/tls for each record read: ours and the client's
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := benchSetup.withTLS(tt.tls).start(t, bareBackend(t, tt.end)).trusting(tt.tls)
			a := newAsker(t, f, tt.request)
			a.conn.SetDeadline(noDeadline)
			if n := testing.AllocsPerRun(2000, func() { a.ask(t, tt.request) }); n > tt.most {
				t.Errorf("%v allocations a request, want at most %v", n, tt.most)
			}
		})
	}
}
