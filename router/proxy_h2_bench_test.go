package router

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

// h2Asker is a client of HTTP/2 that does not allocate.
type h2Asker struct {
	*rawH2
	frame  []byte // HEADERS of one request, and perhaps DATA from second on
	second int
	ends   http2.FrameType // that ends an answer
	buf    []byte
}

func newH2Asker(t testing.TB, f *front) *h2Asker {
	t.Helper()
	c := f.rawH2(t)
	c.fr.WriteWindowUpdate(0, 1<<31-1-65535)
	c.SetDeadline(noDeadline)
	a := &h2Asker{rawH2: c, buf: make([]byte, 32<<10), ends: http2.FrameData}
	fields := []string{
		":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/api/v1/items?page=2",
		"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
		"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "accept-language", "en-US,en;q=0.5",
		"accept-encoding", "gzip, deflate, br", "cookie", "session=0123456789abcdef0123456789abcdef",
	}
	c.head(1, true, fields...) // fills the table of HPACK
	a.answer(t)
	var frame bytes.Buffer
	http2.NewFramer(&frame, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: c.encode(fields...)})
	a.frame = frame.Bytes()
	return a
}

// answer reads frames until a stream ends.
func (a *h2Asker) answer(t testing.TB) {
	t.Helper()
	for {
		if _, err := io.ReadFull(a.Conn, a.buf[:9]); err != nil {
			t.Fatal(err)
		}
		kind, flags := http2.FrameType(a.buf[3]), http2.Flags(a.buf[4])
		n := int(binary.BigEndian.Uint32(a.buf) >> 8)
		if _, err := io.ReadFull(a.Conn, a.buf[:n]); err != nil {
			t.Fatal(err)
		}
		if kind == http2.FrameRSTStream || kind == http2.FrameGoAway {
			t.Fatalf("%v", kind)
		}
		if kind == a.ends && flags.Has(http2.FlagDataEndStream) {
			return
		}
	}
}

// ask sends n requests at once, and reads their answers.
func (a *h2Asker) ask(t testing.TB, n int) {
	t.Helper()
	a.send(t, n)
	for range n {
		a.answer(t)
	}
}

// send sends n requests at once.
func (a *h2Asker) send(t testing.TB, n int) {
	t.Helper()
	batch := a.buf[:0]
	for range n {
		id := binary.BigEndian.Uint32(a.frame[5:]) + 2
		binary.BigEndian.PutUint32(a.frame[5:], id)
		if a.second > 0 {
			binary.BigEndian.PutUint32(a.frame[a.second+5:], id)
		}
		batch = append(batch, a.frame...)
	}
	if _, err := a.Write(batch); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkProxyH2GET(b *testing.B) { benchH2(b, 1) }

// BenchmarkProxyH2GET16 is one connection with 16 streams at a time; an operation is one
// request.
func BenchmarkProxyH2GET16(b *testing.B) { benchH2(b, 16) }

func benchH2(b *testing.B, streams int) {
	b.Helper()
	s := benchSetup
	s.h2c = true
	a := newH2Asker(b, s.start(b, bareBackend(b, headEnd)))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += streams {
		a.ask(b, streams)
	}
}

// BenchmarkProxyH2GET16x16 is 16 connections with 16 streams each, all of them at a time: more
// than the caches of a processor hold.
func BenchmarkProxyH2GET16x16(b *testing.B) {
	const conns, streams = 16, 16
	s := benchSetup
	s.h2c = true
	f := s.start(b, bareBackend(b, headEnd))
	var askers [conns]*h2Asker
	for i := range askers {
		askers[i] = newH2Asker(b, f)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += conns * streams {
		for _, a := range askers {
			a.send(b, streams)
		}
		for _, a := range askers {
			for range streams {
				a.answer(b)
			}
		}
	}
}

func TestAnH2RequestAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector makes pools forget at random: nothing to measure")
		return
	}
	s := benchSetup
	s.h2c = true
	a := newH2Asker(t, s.start(t, bareBackend(t, headEnd)))
	n := testing.AllocsPerRun(2000, func() { a.ask(t, 1) })
	t.Logf("%v allocations a request", n)
	if n > 2 {
		t.Errorf("%v allocations a request, want at most 2", n)
	}
}
