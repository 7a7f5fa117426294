package router

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// acceptOf is what RFC 6455 section 4.2.2 makes of a key.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// switchProtocols reads a request for a WebSocket and takes it.
func switchProtocols(c *upstreamConn) *http.Request {
	r, err := http.ReadRequest(c.r)
	if err != nil {
		return nil
	}
	c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
		acceptOf(r.Header.Get("Sec-WebSocket-Key")) + "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
	return r
}

// bootstrap is an extended CONNECT for a WebSocket; pairs replace or add fields.
func bootstrap(pairs ...string) []string {
	fields := []string{
		":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "h.test", ":path", "/chat?room=1",
		"sec-websocket-version", "13", "sec-websocket-protocol", "chat",
	}
	for i := 0; i < len(pairs); i += 2 {
		found := false
		for j := 0; j < len(fields); j += 2 {
			if fields[j] == pairs[i] {
				fields[j+1], found = pairs[i+1], true
			}
		}
		if !found {
			fields = append(fields, pairs[i], pairs[i+1])
		}
	}
	return fields
}

func without(fields []string, name string) []string {
	var kept []string
	for i := 0; i < len(fields); i += 2 {
		if fields[i] != name {
			kept = append(kept, fields[i], fields[i+1])
		}
	}
	return kept
}

// dataOf reads the content of a stream until it is this long, or has ended.
func (c *rawH2) dataOf(id uint32, length int) (got string, ended bool) {
	c.t.Helper()
	for len(got) < length && !ended {
		f := c.until(func(f http2.Frame) bool { d, ok := f.(*http2.DataFrame); return ok && d.StreamID == id }).(*http2.DataFrame)
		got += string(f.Data())
		ended = f.StreamEnded()
		if n := len(f.Data()); n > 0 {
			c.fr.WriteWindowUpdate(0, uint32(n))
			if !ended {
				c.fr.WriteWindowUpdate(id, uint32(n))
			}
		}
	}
	return got, ended
}

func TestExtendedConnectIsOffered(t *testing.T) {
	c := startH2(t, setup{}, false, startBackend(t, answerAll).addr).rawH2(t)
	f := c.until(func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && !s.IsAck() })
	if v, ok := f.(*http2.SettingsFrame).Value(http2.SettingEnableConnectProtocol); !ok || v != 1 {
		t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d, %t", v, ok)
	}
}

func TestExtendedConnectBecomesAnUpgrade(t *testing.T) {
	seen := make(chan *http.Request, 1)
	b := startBackend(t, func(c *upstreamConn) {
		seen <- switchProtocols(c)
		c.send("hello ")
		io.Copy(c.Conn, c.r)
		c.send("bye")
		c.Conn.(*net.TCPConn).CloseWrite()
	})
	f := startH2(t, setup{}, false, b.addr)
	c := f.rawH2(t)
	c.head(1, false, bootstrap("sec-websocket-key", "mine", "origin", "http://h.test")...)
	c.fr.WriteData(1, false, []byte("early ")) // the answer has not come yet
	head := c.answerHead(1)
	if head[":status"] != "200" || head["sec-websocket-protocol"] != "chat" {
		t.Fatalf("%v", head)
	}
	for _, name := range []string{"upgrade", "connection", "sec-websocket-accept", "content-length", "transfer-encoding"} {
		if v, ok := head[name]; ok {
			t.Errorf("the answer has %s: %s", name, v)
		}
	}
	r := <-seen
	if r.Method != "GET" || r.RequestURI != "/chat?room=1" || r.Host != "h.test" || r.Header.Get("Upgrade") != "websocket" ||
		!strings.EqualFold(r.Header.Get("Connection"), "upgrade") || r.Header.Get("Sec-WebSocket-Version") != "13" ||
		r.Header.Get("Origin") != "http://h.test" || r.ContentLength != 0 {
		t.Errorf("the backend saw %s %s %v", r.Method, r.RequestURI, r.Header)
	}
	if keys := r.Header.Values("Sec-WebSocket-Key"); len(keys) != 1 || keys[0] == "mine" {
		t.Errorf("the backend saw the keys %q", keys)
	} else if nonce, err := base64.StdEncoding.DecodeString(keys[0]); err != nil || len(nonce) != 16 {
		t.Errorf("the key is %q: %d bytes, %v", keys[0], len(nonce), err)
	}
	if got, _ := c.dataOf(1, len("hello early ")); got != "hello early " {
		t.Errorf("%q", got)
	}
	if n := f.server.Stats().Tunnels; n != 1 {
		t.Errorf("%d tunnels", n)
	}
	c.ping() // the connection is not the tunnel's alone
	c.fr.WriteData(1, true, []byte("last "))
	if got, ended := c.dataOf(1, 1<<20); got != "last bye" || !ended {
		t.Errorf("%q, ended %t", got, ended)
	}
	e := f.log.await(t, 1)[0]
	if e.Method != "GET" || e.Status != 101 || e.Note != "" || e.Received != int64(len("early last ")) || e.Sent != int64(len("hello early last bye")) {
		t.Errorf("in the log: %+v", e)
	}
}

func TestExtendedConnectThatIsNotTaken(t *testing.T) {
	tests := map[string]struct{ answer, status string }{
		"declined":             {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "403"},
		"the version is wrong": {"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno", "426"},
		// A 2xx would tell the client that its tunnel is there.
		"answered like a page":          {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", "502"},
		"the proof is missing":          {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "502"},
		"the proof is of another key":   {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + acceptOf("x") + "\r\n\r\n", "502"},
		"switched to something else":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "502"},
		"switched, but nobody knows to": {"HTTP/1.1 101 Switching Protocols\r\n\r\n", "502"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := startBackend(t, func(c *upstreamConn) {
				http.ReadRequest(c.r)
				c.send(tt.answer)
				c.gone()
			})
			c := startH2(t, setup{}, false, b.addr).rawH2(t)
			c.head(1, false, bootstrap()...)
			if got := c.answerHead(1); got[":status"] != tt.status {
				t.Errorf("%v", got)
			}
			c.ping()
		})
	}
}

func TestExtendedConnectThatIsWrong(t *testing.T) {
	b := startBackend(t, answerAll)
	f := startH2(t, setup{}, false, b.addr)
	refused := map[string]struct {
		fields []string
		end    bool
		status string
	}{
		"another protocol":    {bootstrap(":protocol", "connect-udp"), false, "501"},
		"h2c":                 {bootstrap(":protocol", "h2c"), false, "501"},
		"two protocols":       {bootstrap(":protocol", "websocket, h2c"), false, "501"},
		"empty protocol":      {bootstrap(":protocol", ""), false, "501"},
		"ended by its head":   {bootstrap(), true, "400"},
		"with a length":       {bootstrap("content-length", "5"), false, "400"},
		"with no length":      {bootstrap("content-length", "0"), false, "400"},
		"scheme of WebSocket": {bootstrap(":scheme", "ws"), false, "400"},
		"no authority":        {without(bootstrap(), ":authority"), false, "400"},
		"asterisk":            {bootstrap(":path", "*"), false, "400"},
		"climbing path":       {bootstrap(":path", "/../x"), false, "400"},
		"an expectation":      {bootstrap("expect", "magic"), false, "417"},
	}
	for name, tt := range refused {
		t.Run(name, func(t *testing.T) {
			c := f.rawH2(t)
			c.head(1, tt.end, tt.fields...)
			if got := c.answerHead(1); got[":status"] != tt.status {
				t.Errorf("%v, want %s", got, tt.status)
			}
			c.request(3, "/alive")
			c.answerHead(3)
		})
	}
	for name, fields := range map[string][]string{
		"no scheme":                   without(bootstrap(), ":scheme"),
		"no path":                     without(bootstrap(), ":path"),
		"protocol of a GET":           bootstrap(":method", "GET"),
		"protocol twice":              append([]string{":protocol", "websocket"}, bootstrap()...),
		"plain CONNECT with a scheme": {":method", "CONNECT", ":scheme", "http", ":authority", "h.test"},
		"plain CONNECT with a path":   {":method", "CONNECT", ":authority", "h.test", ":path", "/"},
		"plain CONNECT to nowhere":    {":method", "CONNECT"},
		"upgrade":                     bootstrap("upgrade", "websocket"),
		"connection":                  bootstrap("connection", "upgrade"),
	} {
		t.Run(name, func(t *testing.T) {
			c := f.rawH2(t)
			c.head(1, false, fields...)
			c.reset(1, http2.ErrCodeProtocol)
			c.request(3, "/alive")
			c.answerHead(3)
		})
	}
	for _, raw := range b.saw() {
		if strings.Contains(raw, "/chat") {
			t.Errorf("the backend saw %q", raw)
		}
	}
}

// startTunnel begins a WebSocket on stream 1 with a backend that does as it is told.
func startTunnel(t testing.TB, s setup, serve func(c *upstreamConn)) *rawH2 {
	t.Helper()
	b := startBackend(t, func(c *upstreamConn) {
		if switchProtocols(c) != nil {
			serve(c)
		}
	})
	c := startH2(t, s, false, b.addr).rawH2(t)
	c.head(1, false, bootstrap()...)
	if got := c.answerHead(1); got[":status"] != "200" {
		t.Fatalf("%v", got)
	}
	return c
}

func TestAWebSocketOverH2EndsOnBothSides(t *testing.T) {
	t.Run("the client resets", func(t *testing.T) {
		t.Parallel()
		gone := make(chan struct{})
		c := startTunnel(t, setup{}, func(c *upstreamConn) { c.gone(); close(gone) })
		c.fr.WriteRSTStream(1, http2.ErrCodeCancel)
		<-gone
		c.ping()
	})
	t.Run("the client resets after its half has ended, and the backend says nothing", func(t *testing.T) {
		t.Parallel()
		ended, hold := make(chan struct{}), make(chan struct{})
		b := startBackend(t, func(c *upstreamConn) {
			switchProtocols(c)
			io.Copy(io.Discard, c.r)
			close(ended)
			<-hold
		})
		f := startH2(t, setup{}, false, b.addr)
		defer close(hold)
		c := f.rawH2(t)
		c.head(1, false, bootstrap()...)
		c.answerHead(1)
		c.fr.WriteData(1, true, nil)
		<-ended
		if n := f.server.Stats().Tunnels; n != 1 {
			t.Errorf("%d tunnels", n)
		}
		c.fr.WriteRSTStream(1, http2.ErrCodeCancel)
		eventually(t, "the tunnel has ended", func() bool { return f.server.Stats().Tunnels == 0 })
		c.ping()
	})
	t.Run("the client's connection is lost", func(t *testing.T) {
		t.Parallel()
		gone := make(chan struct{})
		c := startTunnel(t, setup{}, func(c *upstreamConn) { c.gone(); close(gone) })
		c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
		<-gone
	})
	t.Run("the backend resets", func(t *testing.T) {
		t.Parallel()
		c := startTunnel(t, setup{}, func(c *upstreamConn) { c.reset() })
		c.reset(1, http2.ErrCodeCancel)
		c.ping()
	})
	t.Run("the backend ends first", func(t *testing.T) {
		t.Parallel()
		got := make(chan string, 1)
		c := startTunnel(t, setup{}, func(c *upstreamConn) {
			c.send("done")
			c.Conn.(*net.TCPConn).CloseWrite()
			all, _ := io.ReadAll(c.r)
			got <- string(all)
		})
		if data, ended := c.dataOf(1, 1<<20); data != "done" || !ended {
			t.Errorf("%q, ended %t", data, ended)
		}
		c.fr.WriteData(1, false, []byte("still "))
		c.fr.WriteData(1, true, []byte("here"))
		if data := <-got; data != "still here" {
			t.Errorf("the backend got %q", data)
		}
		c.ping()
	})
	t.Run("a trailer section", func(t *testing.T) {
		t.Parallel()
		c := startTunnel(t, setup{}, func(c *upstreamConn) { c.gone() })
		c.head(1, true, "x", "y")
		c.reset(1, http2.ErrCodeProtocol)
		c.ping()
	})
	t.Run("nothing moves for long", func(t *testing.T) {
		t.Parallel()
		steadily(t, short/2, func(t testing.TB) {
			t.Helper()
			c := startTunnel(t, setup{limits: engine.Limits{TunnelTimeout: 2 * short}}, func(c *upstreamConn) {
				for range 4 { // one direction is enough to keep it
					time.Sleep(short)
					c.send("x")
				}
				c.gone()
			})
			if got, _ := c.dataOf(1, 4); got != "xxxx" {
				t.Errorf("%q", got)
			}
			c.reset(1, http2.ErrCodeCancel)
			c.ping()
		})
	})
}

// What a backend sends waits for the client's window, and what a client sends for the backend.
func TestAWebSocketOverH2IsHeldBack(t *testing.T) {
	t.Run("by the client", func(t *testing.T) {
		t.Parallel()
		taken := make(chan int, 1)
		c := startTunnel(t, setup{}, func(c *upstreamConn) {
			c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			n, _ := c.Write(make([]byte, 64<<20))
			taken <- n
		})
		if n := <-taken; n > 16<<20 {
			t.Errorf("%d bytes were taken of a backend whose client takes none", n)
		}
		c.ping()
	})
	t.Run("by the backend", func(t *testing.T) {
		t.Parallel()
		hold := make(chan struct{})
		defer close(hold)
		c := startTunnel(t, setup{}, func(*upstreamConn) { <-hold })
		for range 16 << 20 / (16 << 10) {
			c.fr.WriteData(1, false, make([]byte, 16<<10))
		}
		c.reset(1, http2.ErrCodeFlowControl)
	})
}

// Messages of a byte or two are what chats and games are made of; they are no flood.
func TestAWebSocketOverH2MayWhisper(t *testing.T) {
	const messages = 5000
	c := startTunnel(t, setup{}, func(c *upstreamConn) {
		n, _ := io.CopyN(io.Discard, c.r, messages)
		if n == messages {
			c.send("all")
		}
		c.gone()
	})
	w := bufio.NewWriter(c.Conn)
	c.fr = http2.NewFramer(w, c.Conn)
	for range messages {
		c.fr.WriteData(1, false, []byte("x"))
	}
	w.Flush()
	if got, _ := c.dataOf(1, 3); got != "all" {
		t.Errorf("%q", got)
	}
}
