package router

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// overAll runs a test with clients of all kinds.
func overAll(t *testing.T, s setup, upstream string, run func(t *testing.T, c *http.Client, url string)) {
	t.Helper()
	for _, secure := range []bool{false, true} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("HTTP/2=%t,TLS=%t", h2, secure), func(t *testing.T) {
				f := startH2(t, s, secure, upstream)
				if h2 {
					run(t, f.h2Client(t), f.url("/"))
					return
				}
				tr := &http.Transport{DisableCompression: true, TLSClientConfig: f.tls.Clone(), Protocols: new(http.Protocols)}
				tr.Protocols.SetHTTP1(true)
				tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, f.addr)
				}
				t.Cleanup(tr.CloseIdleConnections)
				run(t, &http.Client{Transport: tr, Timeout: patience}, f.url("/"))
			})
		}
	}
}

// Each event has to be with the client before the next is sent.
func TestEventsArriveOneByOne(t *testing.T) {
	eventsArriveOneByOne(t, "text/event-stream", nil)
}

// And so does every other piece, even where what the client does not take may be held.
func TestWhatIsReadAheadIsNotHeldBack(t *testing.T) {
	for _, most := range []int64{1, 1 << 20} {
		eventsArriveOneByOne(t, "text/plain", func(r *Route) { r.BufferAnswer = most })
	}
}

func eventsArriveOneByOne(t *testing.T, kind string, route func(*Route)) {
	t.Helper()
	for _, framing := range []string{"Transfer-Encoding: chunked", "Content-Length: 10000000", "Connection: close"} {
		t.Run(framing, func(t *testing.T) {
			conns := make(chan chan string, 1)
			up := startBackend(t, func(c *upstreamConn) {
				c.request()
				c.send("HTTP/1.1 200 OK\r\nContent-Type: " + kind + "\r\n" + framing + "\r\n\r\n")
				next := make(chan string)
				conns <- next
				for event := range next {
					if framing == "Transfer-Encoding: chunked" {
						event = fmt.Sprintf("%x\r\n%s\r\n", len(event), event)
					}
					c.send(event)
				}
			})
			overAll(t, setup{route: route}, up.addr, func(t *testing.T, c *http.Client, url string) {
				t.Helper()
				resp, err := c.Get(url)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				next := <-conns
				defer close(next)
				for i, size := range []int{1, 100, 9000, 1, 20000, 70000, 1, 1, 50} {
					event := bodyOf(fmt.Sprint(i), size)
					next <- event
					got := make([]byte, size)
					if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != event {
						t.Fatalf("event %d: %v", i, err)
					}
				}
			})
		})
	}
}

// Each piece of an upload has to be with the backend before the next is sent.
func TestPiecesOfAnUploadArriveOneByOne(t *testing.T) {
	for _, known := range []bool{true, false} {
		uploads := make(chan chan int, 1)
		up := startHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
			got := make(chan int, 1)
			uploads <- got
			for buf := make([]byte, 1<<20); ; {
				n, err := r.Body.Read(buf)
				if n > 0 {
					got <- n
				}
				if err != nil {
					return
				}
			}
		})
		overAll(t, setup{}, up, func(t *testing.T, c *http.Client, url string) {
			t.Helper()
			sizes := []int{1, 100, 9000, 1, 20000, 70000, 1}
			body, w := io.Pipe()
			go func() {
				io.WriteString(w, "x")
				got := <-uploads
				<-got
				for i, size := range sizes {
					io.WriteString(w, bodyOf("x", size))
					if i == len(sizes)-1 {
						break // x/net's client keeps the last piece until it has seen the end
					}
					for size > 0 {
						size -= <-got
					}
				}
				w.Close()
			}()
			req, err := http.NewRequest("POST", url, body)
			if err != nil {
				t.Fatal(err)
			}
			if known {
				req.ContentLength = 1
				for _, size := range sizes {
					req.ContentLength += int64(size)
				}
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
}

// zeros is a body that costs no memory.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestLargeBodiesTakeLittleMemoryOverAll(t *testing.T) {
	const size = 64 << 20
	up := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Got", fmt.Sprint(n))
		io.CopyN(w, zeros{}, size)
	})
	overAll(t, setup{mute: true}, up, func(t *testing.T, c *http.Client, url string) {
		t.Helper()
		stop := highWater()
		resp, err := c.Post(url, "", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		if n != size || err != nil || resp.Header.Get("X-Got") != fmt.Sprint(size) {
			t.Errorf("%d bytes, %v; the backend got %s", n, err, resp.Header.Get("X-Got"))
		}
		used := stop()
		t.Logf("%d KB", used>>10)
		if used > 16<<20 { // with the windows of a client and of a server of net/http
			t.Errorf("%d KB of memory", used>>10)
		}
	})
}
