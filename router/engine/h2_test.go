package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pipes is a listener of connections in memory: thousands a second leave no ports behind.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// relayed forwards what is asked below /up, and answers the rest by itself.
type relayed struct{ pool *Pool }

func (h relayed) Serve(x *Exchange) {
	if !bytes.HasPrefix(x.Request.Path, []byte("/up")) {
		x.Reply(200, "text/plain", []byte("fine"))
	} else if err := x.Forward(h.pool); err != nil {
		x.Reply(502, "text/plain", nil)
	}
	_ = x.Send()
}

func (relayed) Refuse(x *Exchange, why *Refusal) { x.Reply(why.Status, "", nil); _ = x.Send() }
func (relayed) Done(*Exchange)                   {}

// enough is what each step has that nobody should have to wait for: half of what a test has.
const enough = 5 * time.Second

// startRelayed is a server of HTTP/2 and of 1.1, with an upstream that echoes.
func startRelayed(t testing.TB) (*Server, *pipes) {
	t.Helper()
	clients, upstreams := newPipes(), newPipes()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := upstreams.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { echoRequests(c) })
		}
	})
	pool := NewPool("192.0.2.1:80", PoolConfig{DialContext: upstreams.dial, ReadTimeout: enough, WriteTimeout: enough})
	s := &Server{Handler: relayed{pool}, H2C: true, Limits: Limits{
		HeadTimeout: enough, BodyTimeout: enough, WriteTimeout: enough, TunnelTimeout: enough,
	}}
	wg.Go(func() { _ = s.Serve(clients) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		pool.Close()
		upstreams.Close()
		wg.Wait()
	})
	return s, clients
}

// echoRequests sends bodies and tunnels back.
func echoRequests(c net.Conn) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if key := r.Header.Get("Sec-WebSocket-Key"); key != "" {
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
				base64.StdEncoding.EncodeToString(sum[:]))
			io.Copy(c, in)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n")
		if len(body) > 0 && r.Method != "HEAD" {
			fmt.Fprintf(c, "%x\r\n%s\r\n", len(body), body)
		}
		if r.Method != "HEAD" {
			fmt.Fprintf(c, "0\r\nX-T: 1\r\n\r\n")
		}
	}
}

// script writes frames for seeds.
type script struct {
	*http2.Framer
	out   bytes.Buffer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newScript() *script {
	s := &script{}
	s.Framer = http2.NewFramer(&s.out, nil)
	s.AllowIllegalWrites = true
	s.enc = hpack.NewEncoder(&s.block)
	return s
}

func (s *script) head(id uint32, end bool, fields ...string) {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = s.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: s.block.Bytes()})
}

func (s *script) ask(id uint32, method, path string, end bool, more ...string) {
	s.head(id, end, append([]string{":method", method, ":scheme", "http", ":authority", "h.test", ":path", path}, more...)...)
}

// h2Scripts are what a client may send after the preface and its SETTINGS, well-behaved and not.
var h2Scripts = map[string]func(s *script){
	"requests": func(s *script) {
		s.ask(1, "GET", "/", true)
		s.ask(3, "HEAD", "/up", true)
		s.ask(5, "GET", "/up/x?y", true)
	},
	"an upload": func(s *script) {
		s.ask(1, "POST", "/up", false, "content-length", "10")
		_ = s.WriteData(1, false, []byte("01234"))
		_ = s.WriteDataPadded(1, true, []byte("56789"), make([]byte, 9))
	},
	"trailers": func(s *script) {
		s.ask(1, "POST", "/up", false, "te", "trailers")
		_ = s.WriteData(1, false, []byte("x"))
		s.head(1, true, "x-sum", "1")
	},
	"a WebSocket": func(s *script) {
		s.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "h.test", ":path", "/up")
		_ = s.WriteData(1, false, []byte("hello"))
		_ = s.WriteData(1, true, []byte("bye"))
	},
	"a WebSocket that is reset": func(s *script) {
		s.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "h.test", ":path", "/up")
		_ = s.WriteData(1, false, []byte("hello"))
		_ = s.WriteRSTStream(1, http2.ErrCodeCancel)
	},
	"resets": func(s *script) {
		for id := uint32(1); id < 20; id += 2 {
			s.ask(id, "GET", "/up", true)
			_ = s.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	},
	"windows": func(s *script) {
		_ = s.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		s.ask(1, "POST", "/up", false)
		_ = s.WriteData(1, true, []byte("0123456789"))
		for range 5 {
			_ = s.WriteWindowUpdate(1, 2)
		}
		_ = s.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		_ = s.WriteWindowUpdate(0, 1<<31-1)
	},
	"a head in pieces": func(s *script) {
		s.block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h.test"}, {":path", "/"}, {"cookie", "a=b"}, {"cookie", "c=d"}} {
			_ = s.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		b := s.block.Bytes()
		_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: b[:5], PadLength: 3, Priority: http2.PriorityParam{StreamDep: 7, Weight: 3}})
		_ = s.WriteContinuation(1, false, b[5:9])
		_ = s.WriteContinuation(1, true, b[9:])
	},
	"control frames": func(s *script) {
		_ = s.WritePing(false, [8]byte{1})
		_ = s.WritePing(true, [8]byte{2})
		_ = s.WriteSettingsAck()
		_ = s.WritePriority(9, http2.PriorityParam{StreamDep: 3, Weight: 1})
		_ = s.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=0")) // PRIORITY_UPDATE
		_ = s.WriteRawFrame(0xfe, 0xff, 5, []byte("anything"))
		_ = s.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
		s.ask(1, "GET", "/", true, "priority", "u=1, i")
	},
	"closed and idle streams": func(s *script) {
		s.ask(3, "GET", "/", true)
		_ = s.WriteData(3, false, []byte("x"))
		_ = s.WriteWindowUpdate(3, 0)
		_ = s.WriteRSTStream(1, http2.ErrCodeCancel)
		s.ask(1, "GET", "/", true)
	},
	"a lie about the length": func(s *script) {
		s.ask(1, "POST", "/up", false, "content-length", "3")
		_ = s.WriteData(1, true, []byte("12345"))
	},
	"a head that is a bomb": func(s *script) {
		s.ask(1, "GET", "/", true, "x", string(bytes.Repeat([]byte("y"), 3000)))
		_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true, EndHeaders: true, BlockFragment: bytes.Repeat([]byte{0xbe}, 4000)})
	},
	"garbage": func(s *script) { s.out.WriteString("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n") },
	"half a frame": func(s *script) {
		s.ask(1, "GET", "/up", true)
		s.out.WriteString("\x00\x40\x00\x00\x00\x00\x00\x00\x01abc")
	},
}

func TestH2Scripts(t *testing.T) {
	s, clients := startRelayed(t)
	for name, write := range h2Scripts {
		t.Run(name, func(t *testing.T) {
			script := newScript()
			write(script)
			checkH2(t, s, clients, script.out.Bytes())
			checkAlive(t, clients)
		})
	}
}

// FuzzH2 sends anything after a good beginning. Whatever comes, what we send are frames that
// a client understands, the connection ends with the client, and others are served.
func FuzzH2(f *testing.F) {
	s, clients := startRelayed(f)
	for _, write := range h2Scripts {
		script := newScript()
		write(script)
		f.Add(script.out.Bytes())
	}
	runs := 0
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		checkH2(t, s, clients, data)
		if runs++; runs%16 == 0 {
			checkAlive(t, clients)
		}
	})
}

func checkH2(t *testing.T, s *Server, clients *pipes, data []byte) {
	t.Helper()
	conn, err := clients.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	read, ponged := make(chan error, 1), make(chan struct{})
	go func() { read <- readH2(conn, ponged) }()
	begin := newScript()
	_ = begin.WriteSettings()
	end := newScript()
	_ = end.WritePing(false, pingAtTheEnd)
	for _, p := range [][]byte{[]byte(http2.ClientPreface), begin.out.Bytes(), data, end.out.Bytes()} {
		if _, err := conn.Write(p); err != nil { // it has had enough
			break
		}
	}
	select {
	case <-ponged: // all of it was understood
	case err := <-read:
		read <- err
	case <-time.After(2 * time.Millisecond): // the ping is in the middle of a frame
	}
	conn.Close()
	if err := <-read; err != nil {
		t.Errorf("what we send is wrong: %v", err)
	}
	for deadline := time.Now().Add(10 * time.Second); s.Stats().Open > 0; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection does not end")
		}
	}
	if n := s.Stats().Tunnels; n != 0 {
		t.Errorf("%d tunnels are left", n)
	}
}

var pingAtTheEnd = [8]byte{'t', 'h', 'e', ' ', 'e', 'n', 'd', '!'}

// readH2 reads what a server sends, as strictly as a client may.
func readH2(conn net.Conn, ponged chan struct{}) error {
	fr := http2.NewFramer(nil, conn)
	fr.SetMaxReadFrameSize(h2MaxFrame)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	begun, ended := map[uint32]bool{}, map[uint32]bool{}
	for first := true; ; first = false {
		f, err := fr.ReadFrame()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
			return nil
		case err != nil:
			return err
		}
		id := f.Header().StreamID
		if ended[id] && f.Header().Type != http2.FrameRSTStream && f.Header().Type != http2.FrameWindowUpdate {
			return fmt.Errorf("%v after the end of its stream", f)
		}
		end := false
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if first == f.IsAck() {
				return fmt.Errorf("%v, first %t", f, first)
			}
		case *http2.PingFrame:
			if f.IsAck() && f.Data == pingAtTheEnd && ponged != nil {
				close(ponged)
				ponged = nil
			}
		case *http2.MetaHeadersFrame:
			begun[id], end = true, f.StreamEnded()
		case *http2.DataFrame:
			if !begun[id] {
				return fmt.Errorf("%v before a head", f)
			}
			end = f.StreamEnded()
		case *http2.RSTStreamFrame:
			end = true
		case *http2.PushPromiseFrame, *http2.PriorityFrame, *http2.UnknownFrame:
			return fmt.Errorf("%v from a server", f)
		}
		ended[id] = ended[id] || end && id != 0
	}
}

// checkAlive asks on a new connection.
func checkAlive(t *testing.T, clients *pipes) {
	t.Helper()
	conn, err := clients.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	go io.WriteString(conn, "POST /up HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the next client: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || string(body) != "hello" || err != nil {
		t.Fatalf("the next client: %d %q %v", resp.StatusCode, body, err)
	}
}
