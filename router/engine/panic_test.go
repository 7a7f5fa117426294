package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// fragile answers, unless it is asked to panic.
type fragile struct{}

func (fragile) Serve(x *Exchange) {
	if string(x.Request.Path) == "/panic" {
		panic("asked to")
	}
	x.Reply(200, "text/plain", []byte("fine"))
	_ = x.Send()
}

func (fragile) Refuse(x *Exchange, why *Refusal) { x.Reply(why.Status, "", nil); _ = x.Send() }
func (fragile) Done(*Exchange)                   {}

func TestPanicEndsOneConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(chan any, 1)
	s := &Server{Handler: fragile{}, OnPanic: func(reason any, stack []byte) {
		reasons <- fmt.Sprint(reason, " ", len(stack) > 0)
	}}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	get := func(path string) (int, error) {
		resp, err := client.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	if _, err := get("/panic"); err == nil {
		t.Error("a panic was answered")
	}
	if got := <-reasons; got != "asked to true" {
		t.Errorf("told of %v", got)
	}
	if status, err := get("/"); status != 200 || err != nil {
		t.Errorf("the next connection: %d, %v", status, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
}

// brittle is a connection that gives what it has, and then panics.
type brittle struct {
	net.Conn
	has  []byte
	goes bool          // on reading, instead
	mute bool          // it panics when it is written to
	gone chan struct{} // is closed before; nil: nobody waits for it
}

func (b *brittle) Read(p []byte) (int, error) {
	if len(b.has) == 0 && b.goes {
		return b.Conn.Read(p)
	}
	if len(b.has) == 0 {
		if b.gone != nil {
			close(b.gone)
		}
		panic("nothing left")
	}
	n := copy(p, b.has)
	b.has = b.has[n:]
	return n, nil
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.mute {
		panic("nothing left")
	}
	return b.Conn.Write(p)
}

// Wherever it is that something panics, one connection ends and no more.
func TestPanicsOutsideOfTheHandler(t *testing.T) {
	h2 := newScript()
	_ = h2.WriteSettings()
	h2.ask(1, "POST", "/up", false)
	for name, has := range map[string]string{
		"while a body is sent": "POST /up HTTP/1.1\r\nHost: h.test\r\nContent-Length: 10\r\n\r\n01234",
		"in a tunnel":          "GET /up HTTP/1.1\r\nHost: h.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
		"while frames come":    http2.ClientPreface + h2.out.String(),
	} {
		t.Run(name, func(t *testing.T) {
			s, clients := startRelayed(t)
			reasons := make(chan any, 2)
			s.OnPanic = func(reason any, _ []byte) { reasons <- reason }
			here, there := net.Pipe()
			go io.Copy(io.Discard, here)
			defer here.Close()
			clients.conns <- &brittle{Conn: there, has: []byte(has)}
			if got := <-reasons; got != "nothing left" {
				t.Errorf("told of %v", got)
			}
			checkAlive(t, clients)
			for deadline := time.Now().Add(10 * time.Second); s.Stats().Open > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%+v", s.Stats())
				}
			}
		})
	}
}

// ahead takes bodies first and reads answers ahead.
type ahead struct{ pool *Pool }

func (h ahead) Serve(x *Exchange) {
	x.BufferBody, x.BufferAnswer = 1<<20, 1<<20
	switch string(x.Request.Path) {
	case "/panic":
		_ = x.TakeBody()
		panic("nothing left")
	case "/up":
		_ = x.Forward(h.pool)
	default:
		x.Reply(200, "text/plain", []byte("fine"))
	}
	_ = x.Send()
}

func (ahead) Refuse(x *Exchange, why *Refusal) { x.Reply(why.Status, "", nil); _ = x.Send() }
func (ahead) Done(*Exchange)                   {}

// Where an answer is read ahead, or written behind, or a body is held, a panic ends one connection,
// and what was borrowed of a budget is for others.
func TestPanicsWithABudget(t *testing.T) {
	const (
		get    = "GET /up HTTP/1.1\r\nHost: h.test\r\n\r\n"
		answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"
		post   = "POST /up HTTP/1.1\r\nHost: h.test\r\nContent-Length: 10\r\n\r\n01234"
	)
	much := "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("0", 200_000)
	h2, end := newScript(), newScript()
	_ = h2.WriteSettings()
	h2.ask(1, "POST", "/panic", false)
	_ = h2.WriteData(1, false, []byte("01234"))
	_ = end.WriteData(1, true, nil)
	for name, tt := range map[string]struct {
		client, upstream brittle
		then             string // comes from the client once something is borrowed
		where            string
	}{
		"while an answer is read":      {brittle{has: []byte(get), goes: true}, brittle{has: []byte(much), gone: make(chan struct{})}, "", ").readAhead("},
		"while an answer is written":   {brittle{has: []byte(get), goes: true, mute: true}, brittle{has: []byte(answer), goes: true}, "", ").writeBehind("},
		"while a body is held":         {brittle{has: []byte(post)}, brittle{}, "", ").gather("},
		"while a body is held, HTTP/2": {brittle{has: []byte(http2.ClientPreface + h2.out.String()), goes: true}, brittle{}, end.out.String(), ".ahead.Serve("},
	} {
		t.Run(name, func(t *testing.T) { panicsOnce(t, &tt.client, &tt.upstream, tt.then, tt.where) })
	}
}

func panicsOnce(t *testing.T, client, upstream *brittle, then, where string) {
	t.Helper()
	pipe := func(b *brittle, taken bool) (here net.Conn) {
		here, b.Conn = net.Pipe()
		if taken {
			go io.Copy(io.Discard, here)
		}
		t.Cleanup(func() { here.Close() })
		return here
	}
	pipe(upstream, true)
	pool := NewPool("192.0.2.1:80", PoolConfig{DialContext: func(context.Context, string, string) (net.Conn, error) { return upstream, nil }})
	defer pool.Close()
	said := make(chan string, 2)
	s := &Server{Handler: ahead{pool}, H2C: true, OnPanic: func(reason any, stack []byte) { said <- fmt.Sprintf("%v %s", reason, stack) }}
	clients, served := newPipes(), make(chan error, 1)
	go func() { served <- s.Serve(clients) }()
	until := func(what string, is func(ServerStats) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !is(s.Stats()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never %s: %+v", what, s.Stats())
			}
		}
	}
	here := pipe(client, upstream.gone == nil)
	clients.conns <- client
	switch {
	case upstream.gone != nil: // the client has taken nothing yet
		<-upstream.gone
		here.Close()
	case then != "":
		until("borrowed", func(st ServerStats) bool { return st.BufferedBodies > 0 })
		go io.WriteString(here, then)
	}
	if got := <-said; !strings.HasPrefix(got, "nothing left ") || !strings.Contains(got, where) {
		t.Errorf("told of %s", got)
	}
	here.Close()
	until("over", func(st ServerStats) bool { return st.Open == 0 && st.BufferedBodies == 0 && st.BufferedAnswers == 0 })
	conn, err := clients.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the next connection: %+v, %v", resp, err)
	}
	conn.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
}

// Over HTTP/2 it ends one stream: the others on the connection go on.
func TestPanicEndsOneStream(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(chan any, 1)
	s := &Server{Handler: fragile{}, H2C: true, OnPanic: func(reason any, _ []byte) { reasons <- reason }}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Timeout: 5 * time.Second, Transport: tr}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/", "/panic", "/"} {
		resp, err := client.Get("http://" + ln.Addr().String() + path)
		if (err != nil) != (path == "/panic") {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
	if got := <-reasons; got != "asked to" {
		t.Errorf("told of %v", got)
	}
	if n := s.Stats().Accepted; n != 1 {
		t.Errorf("%d connections", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	<-served
}
