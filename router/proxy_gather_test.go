package router

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

func buffered(n int64) setup {
	return setup{h2c: true, route: func(r *Route) { r.BufferBody = n }}
}

// The backend is not asked before the body is here.
func TestABufferedBodyIsTakenBeforeTheBackendIsAsked(t *testing.T) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		b := startBackend(t, answerAll)
		f := buffered(1<<20).start(t, b.addr)
		c := f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		eventually(t, "the request is there", func() bool { return f.InFlight() == 1 })
		time.Sleep(short)
		if n := b.conns(); n != 0 {
			t.Errorf("%d connections to the backend before the body was whole", n)
		}
		c.send(chunks(strings.Repeat("x", 100<<10), 5000) + "0\r\n\r\n")
		if resp, _ := c.answer("POST"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
		if saw := b.saw()[0]; !strings.Contains(saw, "Content-Length: 102405\r\n") || !strings.HasSuffix(saw, "\r\n\r\nhello"+strings.Repeat("x", 100<<10)) {
			t.Errorf("the backend saw %.300q", saw)
		}
		c.get("/", 200) // the connection goes on
	})
	t.Run("HTTP/2", func(t *testing.T) {
		b := startBackend(t, answerAll)
		f := buffered(1<<20).start(t, b.addr)
		c := f.rawH2(t)
		c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
		c.fr.WriteData(1, false, []byte("hello"))
		eventually(t, "the request is there", func() bool { return f.InFlight() == 1 })
		time.Sleep(short)
		if n := b.conns(); n != 0 {
			t.Errorf("%d connections to the backend before the body was whole", n)
		}
		c.fr.WriteData(1, true, []byte(" again"))
		if status := c.answerHead(1)[":status"]; status != "200" {
			t.Errorf("status %s", status)
		}
		if saw := b.saw()[0]; !strings.HasSuffix(saw, "Content-Length: 11\r\n\r\nhello again") {
			t.Errorf("the backend saw %q", saw)
		}
	})
}

func TestWhatDoesNotFitInTheBufferIsStreamed(t *testing.T) {
	body := bodyOf("a body", 300<<10)
	for _, framing := range []string{"Content-Length: 307200\r\n\r\n" + body, "Transfer-Encoding: chunked\r\n\r\n" + chunks(body, 7000) + "0\r\n\r\n"} {
		got := make(chan string, 1)
		b := startBackend(t, func(c *upstreamConn) {
			_, body, _ := c.request()
			got <- body
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			c.gone()
		})
		c := buffered(100<<10).start(t, b.addr).dial(t)
		go io.WriteString(c.Conn, "POST / HTTP/1.1\r\nHost: h.test\r\n"+framing)
		if resp, _ := c.answer("POST"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
		if got := <-got; got != body {
			t.Errorf("%d bytes of %d", len(got), len(body))
		}
	}
}

// A request whose body has been kept can be sent to another endpoint.
func TestABufferedRequestIsTriedAgain(t *testing.T) {
	breaks := startBackend(t, func(c *upstreamConn) {
		http.ReadRequest(c.r)
		io.CopyN(io.Discard, c.r, 1000)
		c.reset()
	})
	works := startBackend(t, answerAll)
	for _, kept := range []bool{true, false} {
		s := buffered(map[bool]int64{true: 1 << 20}[kept])
		f := s.start(t, breaks.addr, works.addr)
		body := bodyOf("a body", 50<<10)
		for range 4 { // so that some of them begin with the one that breaks
			c := f.dial(t).send("PUT / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 51200\r\n\r\n" + body[:100])
			time.Sleep(short / 20)
			go io.WriteString(c.Conn, body[100:])
			resp, _ := c.answer("PUT")
			if kept && resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		retried := 0
		for _, e := range f.log.await(t, 4) {
			if e.Tries > 1 {
				retried++
			}
		}
		if (retried > 0) != kept {
			t.Errorf("kept %t: %d were sent again", kept, retried)
		}
	}
	for _, saw := range works.saw() {
		if strings.Count(saw, "<a body>") > 0 && !strings.Contains(saw, bodyOf("a body", 50<<10)) {
			t.Error("a body came in part")
		}
	}
}

// Whoever keeps its body until it is asked for it has to be asked.
func TestABufferedBodyIsAskedFor(t *testing.T) {
	b := startBackend(t, answerAll)
	c := buffered(1<<20).start(t, b.addr).dial(t)
	c.send("POST / HTTP/1.1\r\nHost: h.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if resp := c.head("POST"); resp.StatusCode != 100 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if resp, _ := c.send("hello").answer("POST"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if saw := b.saw()[0]; strings.Contains(saw, "Expect") {
		t.Errorf("the backend saw %q", saw)
	}
}

func TestABodyTooLargeIsRefused(t *testing.T) {
	b := startBackend(t, answerAll)
	long := strings.Repeat("x", 1001)
	tests := []struct {
		name, raw string
		status    int
	}{
		{"just as much", "Content-Length: 1000\r\n\r\n" + long[:1000], 200},
		{"chunked, just as much", "Transfer-Encoding: chunked\r\n\r\n" + chunks(long[:1000], 300) + "0\r\n\r\n", 200},
		{"by length, none of it here", "Content-Length: 1001\r\n\r\n", 413},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n" + chunks(long, 300) + "0\r\n\r\n", 413},
		{"chunked, without an end", "Transfer-Encoding: chunked\r\n\r\n" + chunks(long, 300), 413},
	}
	for _, buffer := range []int64{0, 1 << 20} {
		s := setup{h2c: true, route: func(r *Route) { r.MaxBody, r.BufferBody = 1000, buffer }}
		f := s.start(t, b.addr)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if resp, _ := f.talk(t, "POST / HTTP/1.1\r\nHost: h.test\r\n"+tt.raw); resp.StatusCode != tt.status {
					t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
				}
			})
		}
		c := f.rawH2(t)
		c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
		c.fr.WriteData(1, false, []byte(long))
		if status := c.answerHead(1)[":status"]; status != "413" {
			t.Errorf("HTTP/2: status %s", status)
		}
	}
}

// A client that sends its body slowly does not wait for ever, nor unseen.
func TestABufferedBodyThatDoesNotCome(t *testing.T) {
	b := startBackend(t, answerAll)
	s := buffered(1 << 20)
	s.limits = engine.Limits{BodyTimeout: short}
	f := s.start(t, b.addr)
	if resp, _ := f.talk(t, "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 50\r\n\r\nhello"); resp.StatusCode != 408 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if n := b.conns(); n != 0 {
		t.Errorf("%d connections to the backend", n)
	}
}

// All bodies together have a budget. What is above it is streamed, and what has ended gives its
// part back.
func TestBuffersOfRequestsHaveABudget(t *testing.T) {
	half := bodyOf("half", 150<<10)
	b := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	})
	s := buffered(1 << 20)
	s.limits = engine.Limits{BufferedBodies: 192 << 10}
	f := s.start(t, b.addr)
	begin := func(body string) *client {
		return f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(body, 5000))
	}
	end := func(c *client, body string) {
		t.Helper()
		if resp, _ := c.send(chunks(body, 5000) + "0\r\n\r\n").answer("POST"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	large := begin(half)
	eventually(t, "what does not fit is streamed", func() bool { return b.conns() == 1 })
	late := begin("little") // for which there is nothing left
	eventually(t, "there is nothing left for another", func() bool { return b.conns() == 2 })
	end(large, half)
	end(late, "")
	eventually(t, "their parts are given back", func() bool { return f.server.Stats().BufferedBodies == 0 })
	n := b.conns()
	c := begin("little")
	eventually(t, "its body is held", func() bool { return f.server.Stats().BufferedBodies > 0 })
	end(c, "")
	if saw := b.saw()[n]; !strings.Contains(saw, "\r\nContent-Length: 6\r\n") {
		t.Errorf("it was not here before it was sent: %q", saw)
	}
	for i, saw := range b.saw()[:2] {
		if !strings.Contains(saw, "\r\nTransfer-Encoding: chunked\r\n") {
			t.Errorf("%d: the backend saw %.300q", i, saw)
		}
	}
}

// An upstream that answers early and takes no more of the body: its connection is in the middle of
// that body, and nobody else's request may follow there.
func TestARequestThatWasCutEndsItsConnection(t *testing.T) {
	const size = 16 << 20
	done := make(chan struct{})
	b := startBackend(t, func(c *upstreamConn) {
		if c.index > 0 {
			answerAll(c)
			return
		}
		c.r.Peek(1)
		c.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		<-done
	})
	s := setup{route: func(r *Route) { r.BufferBody, r.Timeouts = 2*size, engine.Timeouts{Send: short} }}
	f := s.start(t, b.addr)
	defer close(done)
	c := f.dial(t)
	go c.Write([]byte("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n" + strings.Repeat("x", size)))
	if resp, _ := c.answer("POST"); resp.StatusCode != 413 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	f.dial(t).get("/", 200)
	if n := b.conns(); n != 2 {
		t.Errorf("%d connections to the backend", n)
	}
}
