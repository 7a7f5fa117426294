package engine

import (
	"io"
	"net"
	"testing"
	"time"
)

// An answer that comes though the request could not leave is one, and its connection is not for
// another request: what of this one was sent, or not, nobody knows.
func TestAnAnswerToARequestThatDidNotLeave(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := NewPool(ln.Addr().String(), PoolConfig{})
	defer p.Close()
	u := mustDial(t, p)
	upstream, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	const answer = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(upstream, answer); err != nil {
		t.Fatal(err)
	}
	if err := u.tcp.CloseWrite(); err != nil { // so that writing fails, and reading does not
		t.Fatal(err)
	}
	u.out.start(&u.wire, time.Minute)
	u.out.buf = append(u.out.borrow(), "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"...)
	u.asks = true
	if err := u.ask(headBufferSize); err != nil {
		t.Fatal(err)
	}
	got := string(u.in.unread())
	if u.in.take(len(got)); got != answer {
		t.Errorf("%q", got)
	}
	if u.rest(time.Now()); p.Open() != 0 || p.get() != nil {
		t.Error("the connection is kept")
	}
}
