package router

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// mirror answers with what it got: the body, and the request's framing in a field.
func mirror(chunked bool) func(c *upstreamConn) {
	return func(c *upstreamConn) {
		for {
			r, body, ok := c.request()
			if !ok {
				return
			}
			framing := fmt.Sprint(r.ContentLength, r.TransferEncoding, r.Trailer)
			if chunked {
				c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Framing: %s\r\n\r\n", framing))
				for len(body) > 0 {
					n := min(len(body), 1000)
					c.send(fmt.Sprintf("%x\r\n%s\r\n", n, body[:n]))
					body = body[n:]
				}
				c.send("0\r\nX-Check: yes\r\nContent-Length: 3\r\n\r\n")
				continue
			}
			c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Framing: %s\r\n\r\n%s", len(body), framing, body))
		}
	}
}

func chunks(body string, size int) string {
	var b strings.Builder
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x;ext=1\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String()
}

func TestBodiesGoThroughUnchanged(t *testing.T) {
	for _, answersChunked := range []bool{false, true} {
		b := startBackend(t, mirror(answersChunked))
		f := startFront(t, b.addr)
		for _, size := range []int{0, 1, 100, 8000, 8192, 9000, 65536, 70000, 300000, 1000003} {
			for _, sendChunked := range []bool{false, true} {
				name := fmt.Sprintf("%d bytes, chunked %t, answered chunked %t", size, sendChunked, answersChunked)
				t.Run(name, func(t *testing.T) {
					body := strings.Repeat("0123456789abcdef-", size/17+1)[:size]
					raw, framing := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body), fmt.Sprint(size, "[] map[]")
					if sendChunked {
						raw = "Transfer-Encoding: chunked\r\n\r\n" + chunks(body, 777) + "0\r\nX-T: 1\r\nTransfer-Encoding: x\r\n\r\n"
						framing = "-1[chunked] map[X-T:[1]]"
					}
					c := f.dial(t)
					for range 2 { // and the connection can be used again
						go io.WriteString(c.Conn, "POST / HTTP/1.1\r\nHost: h.test\r\n"+raw)
						resp, got := c.answer("POST")
						if got != body {
							t.Errorf("%d bytes came back, want %d", len(got), len(body))
						}
						if g := strings.ReplaceAll(resp.Header.Get("X-Framing"), " [", "["); g != strings.ReplaceAll(framing, " [", "[") {
							t.Errorf("the backend saw framing %q, want %q", g, framing)
						}
						if answersChunked && (resp.Trailer.Get("X-Check") != "yes" || len(resp.Trailer) != 1) {
							t.Errorf("trailer %v", resp.Trailer)
						}
					}
				})
			}
		}
	}
}

func TestAnswersWithoutABody(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		for {
			r, _, ok := c.request()
			if !ok {
				return
			}
			switch r.URL.Path {
			case "/204":
				c.send("HTTP/1.1 204 No Content\r\n\r\n")
			case "/304":
				c.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: \"x\"\r\n\r\n")
			case "/0":
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			default:
				c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			}
		}
	})
	f := startFront(t, b.addr)
	c := f.dial(t)
	for _, path := range []string{"/204", "/304", "/0"} {
		resp, body := c.send("GET " + path + " HTTP/1.1\r\nHost: h.test\r\n\r\n").answer("GET")
		if body != "" || len(resp.TransferEncoding) > 0 {
			t.Errorf("%s: body %q, coding %v", path, body, resp.TransferEncoding)
		}
		if got := resp.Header.Get("Content-Length"); (got != "") != (path != "/204") {
			t.Errorf("%s: Content-Length %q", path, got)
		}
	}
	resp, _ := c.send("HEAD /chunked HTTP/1.1\r\nHost: h.test\r\n\r\n").answer("HEAD")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Length") != "" {
		t.Errorf("HEAD: %+v", resp)
	}
	c.get("/0", 200) // nothing is left over
	if n := b.conns(); n != 1 {
		t.Errorf("%d connections to the backend, want 1", n)
	}
}

func TestWhatHasComeIsPassedOnAtOnce(t *testing.T) {
	next := make(chan string)
	b := startBackend(t, func(c *upstreamConn) {
		c.request()
		c.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for event := range next {
			c.send(fmt.Sprintf("%x\r\n%s\r\n", len(event), event))
		}
		c.send("0\r\n\r\n")
	})
	c := startFront(t, b.addr).dial(t)
	resp := c.send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").head("GET")
	buf := make([]byte, 100)
	for i := range 5 {
		event := fmt.Sprint("data: ", i, "\n\n")
		next <- event
		n, err := resp.Body.Read(buf)
		if string(buf[:n]) != event || err != nil {
			t.Fatalf("event %d: %q, %v", i, buf[:n], err)
		}
	}
	close(next)
}

// highWater samples the memory in use until stop is called, and returns the most above
// what it was.
func highWater() (stop func() uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, most := m.HeapInuse, atomic.Uint64{}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		return max(most.Load(), before) - before
	}
}

func TestLargeBodiesTakeLittleMemory(t *testing.T) {
	const size = 200 << 20
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	b := startBackend(t, func(c *upstreamConn) {
		r, err := http.ReadRequest(c.r)
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		if r.Method == "POST" {
			c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\nX-Got: %d\r\nContent-Length: 0\r\n\r\n", n))
			return
		}
		if r.URL.Path == "/chunked" {
			c.send("HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range size / len(block) {
				fmt.Fprintf(c.Conn, "%x\r\n", len(block))
				c.Write(block)
				c.send("\r\n")
			}
			c.send("0\r\n\r\n")
			return
		}
		c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", size))
		for range size / len(block) {
			c.Write(block)
		}
	})
	f := startFront(t, b.addr)
	little := uint64(8 << 20)
	if raceEnabled {
		little = 32 << 20 // pools forget on purpose then, and what they forget is garbage for a while
	}
	for _, path := range []string{"/spliced", "/chunked"} {
		c := f.dial(t)
		stop := highWater()
		resp := c.send("GET " + path + " HTTP/1.1\r\nHost: h.test\r\n\r\n").head("GET")
		n, err := io.Copy(io.Discard, resp.Body)
		if n != size || err != nil {
			t.Errorf("%s: %d bytes, %v", path, n, err)
		}
		if used := stop(); used > little {
			t.Errorf("%s: %d KB of memory", path, used>>10)
		}
	}
	c := f.dial(t)
	stop := highWater()
	c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: %d\r\n\r\n", size))
	for range size / len(block) {
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	resp, _ := c.answer("POST")
	if got := resp.Header.Get("X-Got"); got != fmt.Sprint(size) {
		t.Errorf("the backend got %s bytes", got)
	}
	if used := stop(); used > little {
		t.Errorf("upload: %d KB of memory", used>>10)
	}
}

func TestABodyIsWholeWhateverThePace(t *testing.T) {
	const size = 3 << 20
	body := strings.Repeat("0123456789abcdef", size/16)
	b := startBackend(t, func(c *upstreamConn) {
		r, _, ok := c.request()
		if !ok {
			return
		}
		c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", size))
		if r.URL.Path != "/slow-backend" {
			c.send(body)
			c.gone()
			return
		}
		for i := 0; i < size; i += size / 4 { // longer than a glance between the pieces
			c.send(body[i : i+size/4])
			time.Sleep(1100 * time.Millisecond)
		}
		c.gone()
	})
	s := setup{limits: engine.Limits{WriteTimeout: time.Second}}
	run := func(name string, test func(t testing.TB)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steadily(t, 2*short, test)
		})
	}
	run("slow backend", func(t testing.TB) {
		t.Helper()
		c := s.start(t, b.addr).dial(t)
		if _, got := c.send("GET /slow-backend HTTP/1.1\r\nHost: h.test\r\n\r\n").answer("GET"); got != body {
			t.Errorf("%d bytes", len(got))
		}
	})
	run("slow client", func(t testing.TB) {
		t.Helper()
		c := s.start(t, b.addr).dial(t)
		c.Conn.(*net.TCPConn).SetReadBuffer(16 << 10)
		resp := c.send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n").head("GET")
		var got bytes.Buffer
		buf := make([]byte, 128<<10)
		for { // longer in all than the write time-out, but something is always taken
			n, err := resp.Body.Read(buf)
			got.Write(buf[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", got.Len(), err)
			}
			if got.Len()%(256<<10) < n {
				time.Sleep(250 * time.Millisecond)
			}
		}
		if got.String() != body {
			t.Errorf("%d bytes", got.Len())
		}
	})
}

func TestAClientThatTakesNothingIsLetGo(t *testing.T) {
	for _, framing := range []string{"Content-Length: 100000000\r\n", ""} {
		t.Run(framing, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			b := startBackend(t, func(c *upstreamConn) {
				if _, _, ok := c.request(); !ok {
					return
				}
				c.send("HTTP/1.1 200 OK\r\n" + framing + "\r\n")
				block := make([]byte, 64<<10)
				for {
					if _, err := c.Write(block); err != nil {
						close(gone)
						return
					}
				}
			})
			f := setup{limits: engine.Limits{WriteTimeout: 300 * time.Millisecond}}.start(t, b.addr)
			f.dial(t).send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
			select {
			case <-gone:
			case <-time.After(patience):
				t.Error("the proxy still reads from the backend")
			}
			if e := f.log.await(t, 1)[0]; e.Note == "" {
				t.Errorf("nothing in the log: %+v", e)
			}
		})
	}
}
