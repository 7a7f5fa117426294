package router

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// outcome is what becomes of a connection on which a rule was broken.
type outcome struct {
	goAway bool   // the connection ends; else a stream does
	stream uint32 // 0: nothing happens
	code   http2.ErrCode
}

// TestH2StreamStates breaks the rules of RFC 9113 one by one. A stream's error must leave the
// connection alone, one of the connection must end it, and nothing may pass unseen.
func TestH2StreamStates(t *testing.T) {
	const (
		protocol, closed, flow = http2.ErrCodeProtocol, http2.ErrCodeStreamClosed, http2.ErrCodeFlowControl
		size, compression      = http2.ErrCodeFrameSize, http2.ErrCodeCompression
	)
	get := []string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/hold"}
	post := []string{":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/hold"}
	quick := []string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/"}
	// A request of fields that are not kept: :method GET, :scheme http, :path /, and :authority and a
	// field of 300 bytes.
	plainGet := slices.Concat([]byte{0x82, 0x86, 0x84, 0x01, 6}, []byte("h.test"), []byte{0x00, 1, 'x', 0x7f, 0xad, 0x01, 'y'}, bytes.Repeat([]byte{0x20}, 298), []byte("y"))
	// The same, where the client has emptied the table before.
	noTable := slices.Concat([]byte{0x20}, plainGet)
	// What comes before each: stream 1 waits for its answer and has a body to come, 3 waits and
	// has ended its half, 5 has been answered, and the client has reset 7.
	tests := map[string]struct {
		send func(c *rawH2)
		want outcome
	}{
		"DATA on an idle stream":             {func(c *rawH2) { c.fr.WriteData(9, false, []byte("x")) }, outcome{true, 0, protocol}},
		"DATA on one that we could open":     {func(c *rawH2) { c.fr.WriteData(10, false, []byte("x")) }, outcome{true, 0, protocol}},
		"DATA on an even stream that is low": {func(c *rawH2) { c.fr.WriteData(2, false, []byte("x")) }, outcome{true, 0, protocol}},
		"DATA on the connection":             {func(c *rawH2) { c.fr.WriteData(0, false, []byte("x")) }, outcome{true, 0, protocol}},
		"DATA after END_STREAM":              {func(c *rawH2) { c.fr.WriteData(3, false, []byte("x")) }, outcome{false, 3, closed}},
		"DATA on a closed stream":            {func(c *rawH2) { c.fr.WriteData(5, false, []byte("x")) }, outcome{false, 5, closed}},
		"DATA after our own reset":           {func(c *rawH2) { c.fr.WriteData(7, false, []byte("x")) }, outcome{false, 7, closed}},
		"DATA with more padding than frame":  {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{9, 1}) }, outcome{true, 0, protocol}},
		"HEADERS on an even stream":          {func(c *rawH2) { c.head(10, true, get...) }, outcome{true, 0, protocol}},
		"HEADERS on the connection":          {func(c *rawH2) { c.head(0, true, get...) }, outcome{true, 0, protocol}},
		"HEADERS on a lower stream":          {func(c *rawH2) { c.head(11, true, quick...); c.head(9, true, get...) }, outcome{true, 0, closed}},
		"HEADERS on a closed stream":         {func(c *rawH2) { c.head(5, true, get...) }, outcome{true, 0, closed}},
		"HEADERS after END_STREAM":           {func(c *rawH2) { c.head(3, true, "x", "y") }, outcome{false, 3, closed}},
		"trailers without END_STREAM":        {func(c *rawH2) { c.head(1, false, "x", "y") }, outcome{false, 1, protocol}},
		"trailers with a pseudo-header":      {func(c *rawH2) { c.head(1, true, ":path", "/") }, outcome{false, 1, protocol}},
		"trailers with Transfer-Encoding":    {func(c *rawH2) { c.head(1, true, "transfer-encoding", "chunked") }, outcome{false, 1, protocol}},
		"trailers with Connection":           {func(c *rawH2) { c.head(1, true, "x", "y", "connection", "x") }, outcome{false, 1, protocol}},
		"trailers with TE":                   {func(c *rawH2) { c.head(1, true, "te", "gzip") }, outcome{false, 1, protocol}},
		"trailers with Upgrade":              {func(c *rawH2) { c.head(1, true, "upgrade", "x") }, outcome{false, 1, protocol}},
		"trailers in upper case":             {func(c *rawH2) { c.head(1, true, "X", "y") }, outcome{false, 1, protocol}},
		"HEADERS that depend on themselves":  {func(c *rawH2) { c.headOn(9, 9, get...) }, outcome{false, 9, protocol}},
		"PRIORITY that depends on itself":    {func(c *rawH2) { c.fr.WritePriority(1, http2.PriorityParam{StreamDep: 1}) }, outcome{false, 1, protocol}},
		"the same on an idle stream":         {func(c *rawH2) { c.fr.WritePriority(99, http2.PriorityParam{StreamDep: 99}) }, outcome{true, 0, protocol}},
		"PRIORITY on the connection":         {func(c *rawH2) { c.fr.WritePriority(0, http2.PriorityParam{StreamDep: 1}) }, outcome{true, 0, protocol}},
		"PRIORITY too short":                 {func(c *rawH2) { c.fr.WriteRawFrame(http2.FramePriority, 0, 1, make([]byte, 4)) }, outcome{true, 0, size}}, // the framer is stricter
		"PRIORITY on an idle stream":         {func(c *rawH2) { c.fr.WritePriority(99, http2.PriorityParam{StreamDep: 1}) }, outcome{}},
		"WINDOW_UPDATE by nothing":           {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)) }, outcome{false, 1, protocol}},
		"WINDOW_UPDATE by nothing, idle":     {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 9, make([]byte, 4)) }, outcome{true, 0, protocol}},
		"WINDOW_UPDATE by nothing, even":     {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 2, make([]byte, 4)) }, outcome{true, 0, protocol}},
		"WINDOW_UPDATE on an even stream":    {func(c *rawH2) { c.fr.WriteWindowUpdate(2, 1000) }, outcome{true, 0, protocol}},
		"WINDOW_UPDATE by nothing, of all":   {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4)) }, outcome{true, 0, protocol}},
		"WINDOW_UPDATE on an idle stream":    {func(c *rawH2) { c.fr.WriteWindowUpdate(9, 1) }, outcome{true, 0, protocol}},
		"WINDOW_UPDATE on a closed stream":   {func(c *rawH2) { c.fr.WriteWindowUpdate(5, 1000) }, outcome{}},
		"WINDOW_UPDATE above the most":       {func(c *rawH2) { c.fr.WriteWindowUpdate(1, 1<<31-1) }, outcome{false, 1, flow}},
		"WINDOW_UPDATE above, of all":        {func(c *rawH2) { c.fr.WriteWindowUpdate(0, 1<<31-1) }, outcome{true, 0, flow}},
		"WINDOW_UPDATE too long":             {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 5)) }, outcome{true, 0, size}},
		"SETTINGS that overflow a window": {func(c *rawH2) {
			c.fr.WriteWindowUpdate(1, 1<<31-1-65535)
			c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65536})
		}, outcome{true, 0, flow}},
		"SETTINGS with a window too large":  {func(c *rawH2) { c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) }, outcome{true, 0, flow}},
		"SETTINGS with a frame too small":   {func(c *rawH2) { c.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 100}) }, outcome{true, 0, protocol}},
		"SETTINGS with a push that is 2":    {func(c *rawH2) { c.fr.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 2}) }, outcome{true, 0, protocol}},
		"SETTINGS with priorities of 2":     {func(c *rawH2) { c.fr.WriteSettings(http2.Setting{ID: 9, Val: 2}) }, outcome{true, 0, protocol}},
		"SETTINGS with priorities of 1":     {func(c *rawH2) { c.fr.WriteSettings(http2.Setting{ID: 9, Val: 1}) }, outcome{}},
		"SETTINGS on a stream":              {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameSettings, 0, 1, nil) }, outcome{true, 0, protocol}},
		"SETTINGS of five bytes":            {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }, outcome{true, 0, size}},
		"SETTINGS that acknowledge and say": {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameSettings, http2.FlagSettingsAck, 0, make([]byte, 6)) }, outcome{true, 0, size}},
		"RST_STREAM on an idle stream":      {func(c *rawH2) { c.fr.WriteRSTStream(9, http2.ErrCodeCancel) }, outcome{true, 0, protocol}},
		"RST_STREAM on an even stream":      {func(c *rawH2) { c.fr.WriteRSTStream(2, http2.ErrCodeCancel) }, outcome{true, 0, protocol}},
		"RST_STREAM on the connection":      {func(c *rawH2) { c.fr.WriteRSTStream(0, http2.ErrCodeCancel) }, outcome{true, 0, protocol}},
		"RST_STREAM too short":              {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameRSTStream, 0, 1, make([]byte, 3)) }, outcome{true, 0, size}},
		"RST_STREAM on a closed stream":     {func(c *rawH2) { c.fr.WriteRSTStream(5, http2.ErrCodeCancel) }, outcome{}},
		"PING on a stream":                  {func(c *rawH2) { c.fr.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) }, outcome{true, 0, protocol}},
		"PING of seven bytes":               {func(c *rawH2) { c.fr.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }, outcome{true, 0, size}},
		"GOAWAY on a stream":                {func(c *rawH2) { c.fr.WriteRawFrame(http2.FrameGoAway, 0, 1, make([]byte, 8)) }, outcome{true, 0, protocol}},
		"PUSH_PROMISE": {func(c *rawH2) {
			c.fr.WriteRawFrame(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, []byte{0, 0, 0, 2})
		}, outcome{true, 0, protocol}},
		"CONTINUATION of nothing":           {func(c *rawH2) { c.fr.WriteContinuation(1, true, nil) }, outcome{true, 0, protocol}},
		"CONTINUATION of another stream":    {func(c *rawH2) { c.openHead(9, get...); c.fr.WriteContinuation(11, true, nil) }, outcome{true, 0, protocol}},
		"another frame in a head":           {func(c *rawH2) { c.openHead(9, get...); c.fr.WritePing(false, [8]byte{}) }, outcome{true, 0, protocol}},
		"an unknown frame in a head":        {func(c *rawH2) { c.openHead(9, get...); c.fr.WriteRawFrame(0xbb, 0, 9, nil) }, outcome{true, 0, protocol}},
		"a frame larger than agreed":        {func(c *rawH2) { c.fr.WriteRawFrame(0xbb, 0, 0, make([]byte, 16<<10+1)) }, outcome{true, 0, size}},
		"an unknown frame":                  {func(c *rawH2) { c.fr.WriteRawFrame(0xbb, 0xff, 9, []byte("x")) }, outcome{}},
		"PRIORITY_UPDATE":                   {func(c *rawH2) { c.fr.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1")) }, outcome{}},
		"HPACK: an index of nothing":        {func(c *rawH2) { c.rawHead(9, 0xff, 0xff, 0x01) }, outcome{true, 0, compression}},
		"HPACK: a string cut short":         {func(c *rawH2) { c.rawHead(9, 0x40, 0x7f) }, outcome{true, 0, compression}},
		"HPACK: a table larger than agreed": {func(c *rawH2) { c.rawHead(9, 0x3f, 0xe2, 0x1f, 0x82) }, outcome{true, 0, compression}},
		"HPACK: an integer that never ends": {func(c *rawH2) { c.rawHead(9, []byte("\xff"+strings.Repeat("\xff", 20)+"\x01")...) }, outcome{true, 0, compression}},
		"HPACK: Huffman with wrong padding": {func(c *rawH2) { c.rawHead(9, 0x40, 0x81, 0x00, 0x01, 'x') }, outcome{true, 0, compression}},
		"HPACK: a table size after a field": {func(c *rawH2) { c.rawHead(9, noTable...); c.rawHead(11, slices.Concat(plainGet, []byte{0x20})...) }, outcome{true, 0, compression}},
		"HPACK: one of it in the middle": {func(c *rawH2) {
			c.rawHead(9, noTable...)
			c.rawHead(11, slices.Concat(plainGet[:1], []byte{0x3f, 0xe1, 0x1f}, plainGet[1:])...)
		}, outcome{true, 0, compression}},
		"HPACK: one of it in CONTINUATION": {func(c *rawH2) {
			c.rawHead(9, noTable...)
			c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 11, BlockFragment: plainGet[:len(plainGet)-3]})
			c.fr.WriteContinuation(11, false, plainGet[len(plainGet)-3:])
			c.fr.WriteContinuation(11, true, []byte{0x20})
		}, outcome{true, 0, compression}},
		"HPACK: table sizes before fields": {func(c *rawH2) { c.rawHead(9, slices.Concat([]byte{0x20, 0x3f, 0xe1, 0x1f}, plainGet)...) }, outcome{}},
		"more than its length": {func(c *rawH2) {
			c.head(9, false, append(post, "content-length", "1")...)
			c.fr.WriteData(9, false, []byte("xx"))
		}, outcome{false, 9, protocol}},
		"less than its length": {func(c *rawH2) {
			c.head(9, false, append(post, "content-length", "3")...)
			c.fr.WriteData(9, true, []byte("xx"))
		}, outcome{false, 9, protocol}},
		"less than its length, and trailers": {func(c *rawH2) { c.head(9, false, append(post, "content-length", "3")...); c.head(9, true, "x", "y") }, outcome{false, 9, protocol}},
	}
	hold := make(chan struct{})
	up := startBackend(t, func(c *upstreamConn) {
		for { // what comes next on a connection may be from another case
			if r, _ := c.r.Peek(6); string(r) != "GET / " {
				<-hold
				return
			}
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	f := startH2(t, setup{mute: true}, false, up.addr)
	defer close(hold)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := f.rawH2(t)
			c.head(1, false, post...)
			c.head(3, true, get...)
			c.head(5, true, quick...)
			c.until(func(f http2.Frame) bool {
				d, ok := f.(*http2.DataFrame)
				return ok && d.StreamID == 5 && d.StreamEnded()
			})
			c.head(7, true, get...)
			c.fr.WriteRSTStream(7, http2.ErrCodeCancel)
			c.ping()
			tt.send(c)
			switch {
			case tt.want.goAway:
				c.goAway(tt.want.code)
			case tt.want.stream != 0:
				c.reset(tt.want.stream, tt.want.code)
				c.ping()
			default:
				c.ping()
			}
		})
	}
}

// A preface is followed by SETTINGS of the client's own (RFC 9113 section 3.4).
func TestH2PrefaceWithoutSettings(t *testing.T) {
	f := startH2(t, setup{mute: true}, false, startBackend(t, answerAll).addr)
	for name, first := range map[string]func(c *rawH2){
		"an acknowledgement": func(c *rawH2) { c.fr.WriteSettingsAck() },
		"a PING":             func(c *rawH2) { c.fr.WritePing(false, [8]byte{}) },
		"a request":          func(c *rawH2) { c.request(1, "/") },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			c := newRawH2(t, conn)
			io.WriteString(conn, http2.ClientPreface)
			first(c)
			c.goAway(http2.ErrCodeProtocol)
		})
	}
}

// Where both protocols are spoken, a version of HTTP that is malformed has its 400 (RFC 9112 section
// 3). What names none may be a broken preface: its client sees the end of the connection, and no
// bytes that are no frames.
func TestH2FirstLineOfNeitherProtocol(t *testing.T) {
	f := startH2(t, setup{mute: true}, false, startBackend(t, answerAll).addr)
	for line, told := range map[string]bool{
		"GET / HTTP/1.1.1": true, "GET / HTTP/1.1x": true, "PRI * HTTP/2.0x": true,
		"INVALID CONNECTION PREFACE": false, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2": false,
	} {
		c := f.dial(t).send(line + "\r\nHost: h.test\r\n\r\n")
		if told {
			if resp, _ := c.answer("GET"); resp.StatusCode != 400 {
				t.Errorf("%s: status %d", line, resp.StatusCode)
			}
		}
		c.closed()
	}
}

// More of a body than the stream's window has room for. Its request waits for a connection to the
// backend, so that nobody reads any of it.
func TestH2DataAboveTheWindow(t *testing.T) {
	hold := make(chan struct{})
	b := startBackend(t, func(*upstreamConn) { <-hold })
	policy := &Policy{Limits: Limits{Connections: 1, Pending: 5, PendingTimeout: patience}}
	f := startH2(t, setup{mute: true, route: withPolicy(policy)}, false, b.addr)
	defer close(hold)
	c := f.rawH2(t)
	c.request(1, "/")
	eventually(t, "the backend is asked", func() bool { return b.conns() == 1 })
	c.head(3, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
	for range 20 {
		c.fr.WriteData(3, false, make([]byte, 16<<10))
	}
	c.reset(3, http2.ErrCodeFlowControl)
	c.ping()
}

// headOn opens a stream that depends on another one.
func (c *rawH2) headOn(id, on uint32, fields ...string) {
	c.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: c.encode(fields...), Priority: http2.PriorityParam{StreamDep: on, Weight: 1},
	})
}

// openHead begins a head that does not end.
func (c *rawH2) openHead(id uint32, fields ...string) {
	c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(fields...)})
}

func (c *rawH2) rawHead(id uint32, block ...byte) {
	c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: block})
}

// What a client makes the proxy reset goes on costing the backend for a moment, so that it
// must not be able to have more streams that way (CVE-2025-8671, "MadeYouReset").
func TestH2StreamsThatTheClientMakesUsReset(t *testing.T) {
	post := []string{":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/"}
	ways := map[string]func(c *rawH2, id uint32) error{
		"WINDOW_UPDATE by nothing": func(c *rawH2, id uint32) error {
			return c.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		},
		"WINDOW_UPDATE above the most": func(c *rawH2, id uint32) error { return c.fr.WriteWindowUpdate(id, 1<<31-1) },
		"PRIORITY that depends on itself": func(c *rawH2, id uint32) error {
			return c.fr.WritePriority(id, http2.PriorityParam{StreamDep: id})
		},
		"trailers without END_STREAM": func(c *rawH2, id uint32) error { c.head(id, false, "x", "y"); return nil },
		"trailers that are malformed": func(c *rawH2, id uint32) error { c.head(id, true, ":x", "y"); return nil },
		"DATA after END_STREAM": func(c *rawH2, id uint32) error {
			c.fr.WriteData(id, true, nil)
			return c.fr.WriteData(id, true, []byte("x"))
		},
		"HEADERS after END_STREAM": func(c *rawH2, id uint32) error {
			c.fr.WriteData(id, true, nil)
			c.head(id, true, "x", "y")
			return nil
		},
	}
	for name, provoke := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hold := make(chan struct{})
			up := startBackend(t, func(*upstreamConn) { <-hold })
			f := startH2(t, setup{mute: true}, false, up.addr)
			t.Cleanup(func() { close(hold) })
			c := f.rawH2(t)
			go func() {
				for i := range uint32(20_000) {
					c.head(2*i+1, false, post...)
					if provoke(c, 2*i+1) != nil {
						return
					}
				}
			}()
			c.goAway(http2.ErrCodeEnhanceYourCalm)
			if n := up.conns(); n > 512 {
				t.Errorf("the backend was asked %d times", n)
			}
		})
	}
}

// A client that lets nothing come, on as many streams as it may have: what it costs is
// bounded, and others are served.
func TestH2StreamsThatStall(t *testing.T) {
	big := make([]byte, 1<<20)
	up := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
		for range 100 {
			if _, err := c.Write(big); err != nil {
				return
			}
		}
	})
	f := startH2(t, setup{mute: true}, false, up.addr)
	before := heapInUse()
	const clients, streams = 4, 128
	var all []*rawH2
	for range clients {
		c := f.rawH2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		for i := range uint32(streams) {
			c.request(2*i+1, "/")
		}
		heads, data := 0, 0
		c.until(func(f http2.Frame) bool {
			switch f.(type) {
			case *http2.HeadersFrame:
				heads++
			case *http2.DataFrame:
				data++
			}
			return heads == streams && data == streams // a byte each, and no more
		})
		all = append(all, c)
	}
	// What may be held for a stream is an exchange, a head and a body's buffer of each side.
	grew := heapInUse() - before
	t.Logf("%d KiB for each stream", grew/clients/streams>>10)
	if grew > clients*streams*128<<10 {
		t.Errorf("%d streams that stall hold %d bytes", clients*streams, grew)
	}
	for _, c := range all {
		c.ping()
	}
	c := f.rawH2(t)
	c.request(1, "/")
	c.answerHead(1)
	for _, c := range append(all, c) {
		c.Close()
	}
}

// A client that lets everything come and reads nothing: its frames must not pile up.
func TestH2ClientThatReadsNothing(t *testing.T) {
	big := make([]byte, 1<<20)
	up := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
		for range 100 {
			if _, err := c.Write(big); err != nil {
				return
			}
		}
	})
	f := startH2(t, setup{mute: true}, false, up.addr)
	before := heapInUse()
	c := f.rawH2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	c.fr.WriteWindowUpdate(0, 1<<30)
	const streams = 32
	for i := range uint32(streams) {
		c.request(2*i+1, "/")
	}
	eventually(t, "all have been asked for", func() bool { return up.conns() == streams })
	for until := time.Now().Add(time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if grew := heapInUse() - before; grew > streams*128<<10+4<<20 {
			t.Fatalf("%d bytes are held", grew)
		}
	}
	c.Close()
}

// Bodies that no upstream takes are bounded for the connection too, not for each stream alone.
func TestH2UploadsOnManyStreamsAreHeldBack(t *testing.T) {
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	f := startH2(t, setup{mute: true, pool: engine.PoolConfig{DialContext: func(context.Context, string, string) (net.Conn, error) {
		<-hold
		return nil, errors.New("never")
	}}}, false, "192.0.2.1:80")
	c := f.rawH2(t)
	for i := range uint32(64) {
		c.head(2*i+1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
		for range 7 { // within the window of each
			c.fr.WriteData(2*i+1, false, make([]byte, 16<<10))
		}
	}
	c.goAway(http2.ErrCodeFlowControl)
	c.Close()
	release()
}

// A client that asks for answers to control frames and reads none of them.
func TestH2AnswersThatNobodyReads(t *testing.T) {
	f := startH2(t, setup{mute: true}, false, startBackend(t, answerAll).addr)
	c := f.rawH2(t)
	c.Conn.(*net.TCPConn).SetReadBuffer(4096)
	before := heapInUse()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for c.fr.WritePing(false, [8]byte{}) == nil {
		}
	}()
	eventually(t, "the proxy has had enough", func() bool { return f.server.Stats().Accepted == 1 && f.server.Stats().Open == 0 })
	if grew := heapInUse() - before; grew > 16<<20 {
		t.Errorf("%d bytes are held", grew)
	}
	c.Close()
	<-written
}
