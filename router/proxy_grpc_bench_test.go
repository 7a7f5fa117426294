package router

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// bareGRPC is an upstream that answers every call with the same three frames and allocates
// nothing.
func bareGRPC(t testing.TB) string {
	t.Helper()
	return startBackend(t, func(c *upstreamConn) {
		conn := c.Conn
		var out, block bytes.Buffer
		fr := http2.NewFramer(&out, nil)
		enc := hpack.NewEncoder(&block)
		fields := func(pairs ...string) []byte {
			block.Reset()
			for i := 0; i < len(pairs); i += 2 {
				enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
			}
			return block.Bytes()
		}
		answer := func() []byte {
			out.Reset()
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: fields(":status", "200", "content-type", "application/grpc")})
			fr.WriteData(1, false, []byte("\x00\x00\x00\x00\x05hello"))
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: fields("grpc-status", "0")})
			return bytes.Clone(out.Bytes())
		}
		first := answer() // fills HPACK's table
		answers := [][]byte{first, answer()}
		out.Reset()
		fr.WriteSettings()
		conn.Write(out.Bytes())
		buf := make([]byte, 64<<10)
		if _, err := io.ReadFull(conn, buf[:len(http2.ClientPreface)]); err != nil {
			return
		}
		next := 0
		for {
			if _, err := io.ReadFull(conn, buf[:9]); err != nil {
				return
			}
			kind, flags, id := http2.FrameType(buf[3]), http2.Flags(buf[4]), binary.BigEndian.Uint32(buf[5:])
			if _, err := io.ReadFull(conn, buf[:binary.BigEndian.Uint32(buf)>>8]); err != nil {
				return
			}
			if kind != http2.FrameData || !flags.Has(http2.FlagDataEndStream) {
				continue
			}
			a := answers[next]
			next = 1
			for at := 0; at < len(a); {
				binary.BigEndian.PutUint32(a[at+5:], id)
				at += 9 + int(binary.BigEndian.Uint32(a[at:])>>8)
			}
			conn.Write(a)
		}
	}).addr
}

// newCaller is an h2Asker that makes calls of gRPC.
func newCaller(t testing.TB, f *front) *h2Asker {
	t.Helper()
	c := f.rawH2(t)
	c.fr.WriteWindowUpdate(0, 1<<31-1-65535)
	c.SetDeadline(noDeadline)
	a := &h2Asker{rawH2: c, buf: make([]byte, 32<<10), ends: http2.FrameHeaders}
	fields := []string{
		":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/helloworld.Greeter/SayHello",
		"content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "te", "trailers",
	}
	message := []byte("\x00\x00\x00\x00\x05world")
	c.head(1, false, fields...)
	c.fr.WriteData(1, true, message)
	a.answer(t)
	var frames bytes.Buffer
	fr := http2.NewFramer(&frames, nil)
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: c.encode(fields...)})
	a.second = frames.Len()
	fr.WriteData(1, true, message)
	a.frame = frames.Bytes()
	return a
}

func grpcBenchSetup() setup {
	s := benchSetup
	s.h2c = true
	return s.toH2(false)
}

func BenchmarkProxyGRPC(b *testing.B) { benchGRPC(b, 1) }

// BenchmarkProxyGRPC16 is one connection with 16 calls at a time; an operation is one call.
func BenchmarkProxyGRPC16(b *testing.B) { benchGRPC(b, 16) }

func benchGRPC(b *testing.B, streams int) {
	b.Helper()
	a := newCaller(b, grpcBenchSetup().start(b, bareGRPC(b)))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += streams {
		a.ask(b, streams)
	}
}

// maxGRPCAllocs is what one unary call may allocate: the framers make one for each of its three
// HEADERS, and a busy connection has a goroutine made now and then that writes for others.
const maxGRPCAllocs = 4

func TestACallAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector makes pools forget at random: nothing to measure")
		return
	}
	a := newCaller(t, grpcBenchSetup().start(t, bareGRPC(t)))
	n := testing.AllocsPerRun(2000, func() { a.ask(t, 1) })
	t.Logf("%v allocations a call", n)
	if n > maxGRPCAllocs {
		t.Errorf("%v allocations a call, want at most %d", n, maxGRPCAllocs)
	}
}
