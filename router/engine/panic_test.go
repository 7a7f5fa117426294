package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	has []byte
}

func (b *brittle) Read(p []byte) (int, error) {
	if len(b.has) == 0 {
		panic("nothing left")
	}
	n := copy(p, b.has)
	b.has = b.has[n:]
	return n, nil
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
			clients.conns <- &brittle{there, []byte(has)}
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
