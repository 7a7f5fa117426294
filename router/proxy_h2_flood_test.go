package router

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// Each of these would go on for ever without a guard.
func TestH2FloodsEndTheConnection(t *testing.T) {
	get := []string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/"}
	post := []string{":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/"}
	tests := []struct {
		name  string
		begin func(c *rawH2)
		send  func(c *rawH2, i uint32) error
	}{
		{name: "rapid reset", send: func(c *rawH2, i uint32) error {
			c.head(2*i+1, true, get...)
			return c.fr.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}},
		{name: "resets that the proxy makes", send: func(c *rawH2, i uint32) error {
			c.head(2*i+1, false, get...)
			return c.fr.WriteWindowUpdate(2*i+1, 0)
		}},
		{name: "SETTINGS", send: func(c *rawH2, _ uint32) error {
			return c.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535})
		}},
		{name: "PING", send: func(c *rawH2, _ uint32) error { return c.fr.WritePing(false, [8]byte{}) }},
		{name: "PRIORITY", send: func(c *rawH2, _ uint32) error {
			return c.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		}},
		{name: "PRIORITY_UPDATE", send: func(c *rawH2, _ uint32) error {
			return c.fr.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1"))
		}},
		{name: "answers to PING", send: func(c *rawH2, _ uint32) error { return c.fr.WritePing(true, [8]byte{}) }},
		{name: "answers to SETTINGS", send: func(c *rawH2, _ uint32) error { return c.fr.WriteSettingsAck() }},
		{name: "GOAWAY", send: func(c *rawH2, _ uint32) error { return c.fr.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{name: "SETTINGS of hundreds", send: func(c *rawH2, _ uint32) error {
			return c.fr.WriteRawFrame(http2.FrameSettings, 0, 0, bytes.Repeat([]byte{0, 4, 0, 0, 255, 255}, 2000))
		}},
		{
			name:  "RST_STREAM on a closed stream",
			begin: func(c *rawH2) { c.head(1, true, get...); c.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
			send:  func(c *rawH2, _ uint32) error { return c.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
		},
		{
			name:  "DATA on a closed stream",
			begin: func(c *rawH2) { c.head(1, true, get...); c.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
			send:  func(c *rawH2, _ uint32) error { return c.fr.WriteData(1, false, []byte("a few bytes, and a few more")) },
		},
		{
			name:  "WINDOW_UPDATE on a closed stream",
			begin: func(c *rawH2) { c.head(1, true, get...); c.fr.WriteRSTStream(1, http2.ErrCodeCancel) },
			send:  func(c *rawH2, _ uint32) error { return c.fr.WriteWindowUpdate(1, 1000) },
		},
		{name: "streams above the limit", send: func(c *rawH2, i uint32) error { c.head(2*i+1, true, get...); return c.err }},
		{
			name:  "empty DATA in a WebSocket",
			begin: func(c *rawH2) { c.head(1, false, bootstrap()...) },
			send:  func(c *rawH2, _ uint32) error { return c.fr.WriteData(1, false, nil) },
		},
		{name: "unknown frames", send: func(c *rawH2, _ uint32) error { return c.fr.WriteRawFrame(0xfa, 0, 1, nil) }},
		{
			name:  "empty DATA",
			begin: func(c *rawH2) { c.head(1, false, post...) },
			send:  func(c *rawH2, _ uint32) error { return c.fr.WriteData(1, false, nil) },
		},
		{name: "tiny WINDOW_UPDATE", send: func(c *rawH2, _ uint32) error { return c.fr.WriteWindowUpdate(0, 1) }},
		{
			name: "empty CONTINUATION",
			begin: func(c *rawH2) {
				c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(get...)})
			},
			send: func(c *rawH2, _ uint32) error { return c.fr.WriteContinuation(1, false, nil) },
		},
		{
			name: "CONTINUATION",
			begin: func(c *rawH2) {
				c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(get...)})
			},
			send: func(c *rawH2, _ uint32) error {
				// Without a place in HPACK's table: a name of one byte, a value of 100.
				return c.fr.WriteContinuation(1, false, []byte("\x10\x01x\x64"+strings.Repeat("y", 100)))
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hold := make(chan struct{})
			up := startBackend(t, func(c *upstreamConn) { c.request(); <-hold })
			f := startH2(t, setup{mute: true}, false, up.addr)
			t.Cleanup(func() { close(hold) })
			c := f.rawH2(t)
			if tt.begin != nil {
				tt.begin(c)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for i := range uint32(200_000) {
					if tt.send(c, i) != nil {
						return
					}
				}
				t.Error("nobody has stopped it")
			}()
			c.goAway(http2.ErrCodeEnhanceYourCalm)
			io.Copy(io.Discard, c.Conn)
			c.Close()
			<-ended
		})
	}
}

// A head of a few bytes on the wire can be huge in memory: what a client says once, HPACK
// repeats for a byte.
func TestH2HeaderBomb(t *testing.T) {
	f := startH2(t, setup{limits: engine.Limits{MaxHead: 16 << 10}}, false, startBackend(t, answerAll).addr)
	c := f.rawH2(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for id := uint32(1); id < 20; id += 2 {
		block := append([]byte(nil), c.encode(":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/", "x", strings.Repeat("y", 3000))...)
		block = append(block, strings.Repeat("\xbe", 12000)...) // the newest entry of the table, again and again
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: block})
		if got := c.answerHead(id); got[":status"] != "431" {
			t.Fatalf("%v", got)
		}
	}
	runtime.ReadMemStats(&after)
	if grew := after.TotalAlloc - before.TotalAlloc; grew > 16<<20 {
		t.Errorf("%d bytes were allocated", grew)
	}
}

func TestH2MoreStreamsThanAgreedAreRefused(t *testing.T) {
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	up := startBackend(t, func(c *upstreamConn) {
		c.request()
		<-hold
		c.send("HTTP/1.1 204 No Content\r\n\r\n")
		answerAll(c)
	})
	f := startH2(t, setup{}, false, up.addr)
	c := f.rawH2(t)
	for i := range uint32(129) {
		c.request(2*i+1, "/")
	}
	c.reset(257, http2.ErrCodeRefusedStream)
	release()
	for range 128 {
		c.until(func(f http2.Frame) bool { _, ok := f.(*http2.HeadersFrame); return ok })
	}
	c.request(259, "/")
	c.answerHead(259)
}

// fullLog takes no entry until it is let go.
type fullLog chan struct{}

func (l fullLog) Log(*Record) { <-l }

// Streams whose answer has ended are not open any more, but as long as somebody has a word to
// say about them they cost something, and so they are bounded too.
func TestH2StreamsThatLingerAreBounded(t *testing.T) {
	const most = 4 * 128
	hold := make(fullLog)
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	f := startH2(t, setup{mute: true, proxy: ProxyConfig{AccessLog: hold}}, false, startBackend(t, answerAll).addr)
	c := f.rawH2(t)
	id := uint32(1)
	for range most {
		c.request(id, "/")
		c.until(func(f http2.Frame) bool {
			d, ok := f.(*http2.DataFrame)
			return ok && d.StreamID == id && d.StreamEnded()
		})
		id += 2
	}
	c.request(id, "/")
	c.reset(id, http2.ErrCodeRefusedStream)
	release()
	eventually(t, "there is room again", func() bool {
		id += 2
		c.request(id, "/")
		f := c.until(func(f http2.Frame) bool {
			h := f.Header()
			return h.StreamID == id && (h.Type == http2.FrameRSTStream || h.Type == http2.FrameData)
		})
		return f.Header().Type == http2.FrameData
	})
}

// What a client sends of bodies that nobody takes is bounded by the windows.
func TestH2UploadsAreHeldBack(t *testing.T) {
	hold := make(chan struct{})
	up := startBackend(t, func(*upstreamConn) { <-hold })
	f := startH2(t, setup{mute: true}, false, up.addr)
	defer close(hold)
	c := f.rawH2(t)
	c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
	piece := make([]byte, 16<<10)
	for range 8 << 20 / len(piece) { // more than the stream's window and the sockets between take
		c.fr.WriteData(1, false, piece)
	}
	c.reset(1, http2.ErrCodeFlowControl)
}

func TestH2MalformedRequests(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startH2(t, setup{}, false, b.addr)
	base := func(more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/"}, more...)
	}
	reset := map[string][]string{
		"upper case":                base("X-Up", "1"),
		"connection":                base("connection", "close"),
		"keep-alive":                base("keep-alive", "1"),
		"proxy-connection":          base("proxy-connection", "1"),
		"transfer-encoding":         base("transfer-encoding", "chunked"),
		"upgrade":                   base("upgrade", "h2c"),
		"te":                        base("te", "gzip"),
		"space in a name":           base("a b", "1"),
		"colon in a name":           base("a:b", "1"),
		"empty name":                base("", "1"),
		"line feed in a value":      base("a", "1\nb: 2"),
		"NUL in a value":            base("a", "1\x00"),
		"white space at the end":    base("a", "1 "),
		"white space at the start":  base("a", " 1"),
		"unknown pseudo-header":     base(":nope", "1"),
		"pseudo-header of answers":  base(":status", "200"),
		"pseudo-header after field": {":method", "GET", ":scheme", "http", "a", "b", ":path", "/"},
		"pseudo-header twice":       base(":path", "/x"),
		"no method":                 {":scheme", "http", ":authority", "h.test", ":path", "/"},
		"no scheme":                 {":method", "GET", ":authority", "h.test", ":path", "/"},
		"no path":                   {":method", "GET", ":scheme", "http", ":authority", "h.test"},
		"empty path":                {":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", ""},
		"method is no token":        {":method", "GET /x", ":scheme", "http", ":authority", "h.test", ":path", "/"},
		"length without a body":     base("content-length", "1"),
	}
	for name, fields := range reset {
		t.Run(name, func(t *testing.T) {
			c := f.rawH2(t)
			c.head(1, true, fields...)
			c.reset(1, http2.ErrCodeProtocol)
			c.request(3, "/alive")
			c.answerHead(3)
		})
	}
	refused := map[string]struct {
		fields []string
		status string
	}{
		"host differs":         {base("host", "other.test"), "400"},
		"host twice":           {base("host", "h.test", "host", "h.test"), "400"},
		"no host":              {[]string{":method", "GET", ":scheme", "http", ":path", "/"}, "400"},
		"user in authority":    {[]string{":method", "GET", ":scheme", "http", ":authority", "u@h.test", ":path", "/"}, "400"},
		"space in the path":    {[]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/a b"}, "400"},
		"line end in the path": {[]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/ HTTP/1.1\r\nX: y"}, "400"},
		"climbing path":        {[]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/../x"}, "400"},
		"absolute path":        {[]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "http://h.test/"}, "400"},
		"asterisk":             {[]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "*"}, "400"},
		"scheme":               {[]string{":method", "GET", ":scheme", "ftp", ":authority", "h.test", ":path", "/"}, "400"},
		"CONNECT":              {[]string{":method", "CONNECT", ":authority", "h.test"}, "405"},
		"TRACE":                {[]string{":method", "TRACE", ":scheme", "http", ":authority", "h.test", ":path", "/"}, "405"},
		"long path":            {[]string{":method", "GET", ":scheme", "http", ":authority", "h.test", ":path", "/" + strings.Repeat("x", 17000)}, "414"},
		"two lengths":          {base("content-length", "0", "content-length", "0"), "400"},
		"expectation":          {base("expect", "the best"), "417"},
	}
	for name, tt := range refused {
		t.Run(name, func(t *testing.T) {
			c := f.rawH2(t)
			c.fr.WriteSettings()
			block := c.encode(tt.fields...)
			first := block[:min(len(block), 16<<10)]
			c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: len(first) == len(block), BlockFragment: first})
			if len(first) < len(block) {
				c.fr.WriteContinuation(1, true, block[len(first):])
			}
			if got := c.answerHead(1); got[":status"] != tt.status {
				t.Errorf("status %s, want %s", got[":status"], tt.status)
			}
			c.request(3, "/alive")
			c.answerHead(3)
		})
	}
	for _, raw := range b.saw() {
		for line := range strings.SplitSeq(raw, "\r\n") {
			if strings.HasPrefix(line, "GET ") && line != "GET /alive HTTP/1.1" {
				t.Errorf("the backend saw %q", line)
			}
		}
	}
}

func TestH2BodyThatDiffersFromItsLength(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startH2(t, setup{}, false, b.addr)
	for name, body := range map[string]string{"short": "1234", "long": "123456"} {
		t.Run(name, func(t *testing.T) {
			c := f.rawH2(t)
			c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/", "content-length", "5")
			c.fr.WriteData(1, true, []byte(body))
			c.reset(1, http2.ErrCodeProtocol)
		})
	}
}

func TestH2SlowReaderIsEnded(t *testing.T) {
	up := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000000))
	})
	f := startH2(t, setup{limits: engine.Limits{WriteTimeout: 100 * time.Millisecond}}, false, up.addr)
	c := f.rawH2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	c.request(1, "/")
	c.reset(1, http2.ErrCodeInternal)
}

func TestH2HeadThatDoesNotEnd(t *testing.T) {
	b := startBackend(t, answerAll)
	steadily(t, short/8, func(t testing.TB) {
		t.Helper()
		c := startH2(t, setup{limits: engine.Limits{HeadTimeout: short}}, false, b.addr).rawH2(t)
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(":method", "GET")})
		c.goAway(http2.ErrCodeEnhanceYourCalm)
	})
}

func TestH2CookieCrumbsBecomeOneField(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startH2(t, setup{}, false, b.addr)
	c := f.rawH2(t)
	c.request(1, "/", "cookie", "a=1", "x", "y", "cookie", "b=2")
	c.answerHead(1)
	if raw := b.saw()[0]; !strings.Contains(raw, "cookie: a=1; b=2\r\n") || !strings.HasPrefix(raw, "GET / HTTP/1.1\r\nHost: h.test\r\n") {
		t.Errorf("%q", raw)
	}
}
