package router

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawH2 is a client that sends what it likes.
type rawH2 struct {
	net.Conn
	fr     *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	dec    *hpack.Decoder
	fields map[string]string // of the head that came last
	err    error             // of the head that was sent last
	t      testing.TB
}

// rawH2 makes a connection without TLS, and sends preface and SETTINGS.
func (f *front) rawH2(t testing.TB, settings ...http2.Setting) *rawH2 {
	t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := newRawH2(t, conn)
	io.WriteString(conn, http2.ClientPreface)
	c.fr.WriteSettings(settings...)
	return c
}

func newRawH2(t testing.TB, conn net.Conn) *rawH2 {
	t.Helper()
	c := &rawH2{Conn: conn, fr: http2.NewFramer(conn, conn), t: t}
	c.enc, c.dec = hpack.NewEncoder(&c.block), hpack.NewDecoder(4096, nil)
	c.fr.AllowIllegalWrites = true
	return c
}

// encode makes a header block of name, value, name, value.
func (c *rawH2) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.block.Bytes()
}

func (c *rawH2) head(id uint32, end bool, fields ...string) {
	c.err = c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: c.encode(fields...)})
}

func (c *rawH2) request(id uint32, path string, more ...string) {
	c.head(id, true, append([]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", path}, more...)...)
}

// until reads frames until one fits.
func (c *rawH2) until(fits func(http2.Frame) bool) http2.Frame {
	c.t.Helper()
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			c.t.Fatalf("the frame did not come: %v", err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			c.fr.WriteSettingsAck()
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			c.t.Logf("GOAWAY: %v %q", g.ErrCode, g.DebugData())
		}
		if h, ok := f.(*http2.HeadersFrame); ok {
			c.decode(h)
		}
		if fits(f) {
			return f
		}
	}
}

func (c *rawH2) decode(h *http2.HeadersFrame) {
	c.t.Helper()
	fields, err := c.dec.DecodeFull(h.HeaderBlockFragment())
	if err != nil {
		c.t.Fatal(err)
	}
	c.fields = map[string]string{}
	for _, f := range fields {
		c.fields[f.Name] = f.Value
	}
}

// answerHead reads the next head on a stream.
func (c *rawH2) answerHead(id uint32) map[string]string {
	c.t.Helper()
	c.until(func(f http2.Frame) bool { h, ok := f.(*http2.HeadersFrame); return ok && h.StreamID == id })
	return c.fields
}

// ping checks that the connection is alive.
func (c *rawH2) ping() {
	c.t.Helper()
	c.fr.WritePing(false, [8]byte{1})
	c.until(func(f http2.Frame) bool { p, ok := f.(*http2.PingFrame); return ok && p.IsAck() })
}

// reset reads until a stream is reset, and checks the code.
func (c *rawH2) reset(id uint32, code http2.ErrCode) {
	c.t.Helper()
	f := c.until(func(f http2.Frame) bool { r, ok := f.(*http2.RSTStreamFrame); return ok && r.StreamID == id })
	if got := f.(*http2.RSTStreamFrame).ErrCode; got != code {
		c.t.Errorf("reset with %v, want %v", got, code)
	}
}

// goAway checks that the connection ends with this code.
func (c *rawH2) goAway(code http2.ErrCode) {
	c.t.Helper()
	for {
		f, err := c.fr.ReadFrame()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			c.t.Fatal("the connection stays open")
		case err != nil:
			c.t.Fatalf("no GOAWAY: %v", err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			if g.ErrCode != code {
				c.t.Errorf("GOAWAY with %v, want %v", g.ErrCode, code)
			}
			return
		}
	}
}
