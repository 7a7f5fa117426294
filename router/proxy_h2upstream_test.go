package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// h2Upstream is a net/http server that speaks HTTP/2 alone.
func h2Upstream(t testing.TB, secure bool, h http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP2(secure)
	s.Protocols.SetUnencryptedHTTP2(!secure)
	if secure {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
	}
	done := make(chan error, 1)
	go func() {
		if secure {
			done <- s.ServeTLS(ln, "", "")
			return
		}
		done <- s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return ln.Addr().String()
}

// toH2 makes the pools of a setup speak HTTP/2.
func (s setup) toH2(secure bool) setup {
	s.pool.Protocol = engine.ProtocolHTTP2
	if secure {
		s.pool.TLS = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	}
	return s
}

// overUpstreams runs a test with every protocol of the client, and TLS to the upstream or not.
func overUpstreams(t *testing.T, run func(t *testing.T, c *http.Client, f *front), h http.HandlerFunc) {
	t.Helper()
	for _, down := range []string{"1.1", "h2c", "h2"} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s to TLS %t", down, secure), func(t *testing.T) {
				s := setup{h2c: down == "h2c"}.toH2(secure)
				up := h2Upstream(t, secure, h)
				if down != "1.1" {
					f := startH2(t, s, down == "h2", up)
					run(t, f.h2Client(t), f)
					return
				}
				f := s.start(t, up)
				tr := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, f.addr)
				}}
				t.Cleanup(tr.CloseIdleConnections)
				run(t, &http.Client{Transport: tr, Timeout: patience}, f)
			})
		}
	}
}

func TestH2UpstreamBasics(t *testing.T) {
	overUpstreams(t, func(t *testing.T, c *http.Client, f *front) {
		t.Helper()
		resp, err := c.Get(f.url("/a/b?c=d"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := "GET /a/b?c=d HTTP/2.0 host=h.test cookie=\"\" length=0"
		if got := resp.Header.Get("X-Seen"); got != want || resp.StatusCode != 200 || resp.ContentLength != 0 {
			t.Errorf("%d %q, length %d", resp.StatusCode, got, resp.ContentLength)
		}
		big := bytes.Repeat([]byte("0123456789abcdef"), 256<<10)
		for _, known := range []bool{true, false} {
			for _, size := range []int{1, 3000, 100_000, len(big)} {
				var body io.Reader = bytes.NewReader(big[:size])
				if !known {
					body = io.MultiReader(body)
				}
				resp, err := c.Post(f.url("/"), "", body)
				if err != nil {
					t.Fatal(err)
				}
				sum := sha256.New()
				n, err := io.Copy(sum, resp.Body)
				resp.Body.Close()
				if want := sha256.Sum256(big[:size]); err != nil || n != int64(size) || !bytes.Equal(sum.Sum(nil), want[:]) {
					t.Errorf("known length %t, %d bytes: %d, %v", known, size, n, err)
				}
			}
		}
		req, _ := http.NewRequest("HEAD", f.url("/"), nil)
		if resp, err := c.Do(req); err != nil || resp.StatusCode != 200 {
			t.Errorf("HEAD: %v", err)
		}
		if n := f.backend.Endpoints()[0].Pool().Open(); n != 1 {
			t.Errorf("%d connections to the upstream, want 1", n)
		}
	}, echo)
}

func TestH2UpstreamTrailersBothWays(t *testing.T) {
	overUpstreams(t, func(t *testing.T, c *http.Client, f *front) {
		t.Helper()
		req, _ := http.NewRequest("POST", f.url("/"), io.MultiReader(strings.NewReader("body")))
		req.Trailer = http.Header{"X-Check": {"ok"}}
		req.Header.Set("TE", "trailers")
		req.Header.Set("Connection", "TE")
		if f.tls != nil || f.server.H2C {
			req.Header.Del("Connection")
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); string(body) != "body trailers" || err != nil {
			t.Errorf("%q %v", body, err)
		}
		if got := resp.Trailer.Get("X-Sum"); got != "saw ok" {
			t.Errorf("trailer %q", got)
		}
	}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Write(body)
		io.WriteString(w, " "+r.Header.Get("TE"))
		w.Header().Set("X-Sum", "saw "+r.Trailer.Get("X-Check"))
	})
}

func TestH2UpstreamInterim(t *testing.T) {
	f := setup{}.toH2(false).start(t, h2Upstream(t, false, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(103)
		w.WriteHeader(204)
	}))
	c := f.dial(t).send("GET / HTTP/1.1\r\nHost: h.test\r\n\r\n")
	if resp := c.head("GET"); resp.StatusCode != 103 || resp.Header.Get("Link") != "</a>" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if resp := c.head("GET"); resp.StatusCode != 204 {
		t.Error(resp.StatusCode)
	}
	c = f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	if resp := c.head("GET"); resp.StatusCode != 103 {
		t.Error(resp.StatusCode)
	}
}

// Many at once use few connections, and no more streams on one than the upstream allows.
func TestH2UpstreamCrowd(t *testing.T) {
	var now, most atomic.Int64
	release := make(chan struct{})
	up := h2Upstream(t, false, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		<-release
		now.Add(-1)
		io.Copy(w, r.Body)
	})
	f := startH2(t, setup{mute: true}.toH2(false), false, up)
	var wg sync.WaitGroup
	for i := range 4 {
		c := f.h2Client(t)
		for j := range 100 {
			wg.Go(func() {
				want := fmt.Sprint(i, j)
				resp, err := c.Post(f.url("/"), "", strings.NewReader(want))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if got, err := io.ReadAll(resp.Body); string(got) != want || err != nil {
					t.Errorf("%q for %q: %v", got, want, err)
				}
			})
		}
	}
	eventually(t, "all 400 are there at once", func() bool { return now.Load() == 400 })
	if n := f.backend.Endpoints()[0].Pool().Open(); n < 4 || n > 8 {
		t.Errorf("%d connections for 400 streams", n)
	}
	close(release)
	wg.Wait()
}

// A client that reads nothing holds back its own stream to the upstream, and no other.
func TestH2UpstreamSlowReader(t *testing.T) {
	var wrote atomic.Int64
	up := h2Upstream(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" {
			io.WriteString(w, "ok")
			return
		}
		piece := make([]byte, 64<<10)
		for range 1024 {
			n, err := w.Write(piece)
			wrote.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	f := startH2(t, setup{}.toH2(false), false, up)
	c := f.rawH2(t) // its windows are 64 KiB
	for i := range 50 {
		c.request(uint32(2*i+1), "/big")
	}
	eventually(t, "every stream has begun", func() bool { return wrote.Load() >= 50*(64<<10) })
	last := int64(-1)
	eventually(t, "the upstream is held back", func() bool {
		before := last
		last = wrote.Load()
		time.Sleep(50 * time.Millisecond)
		return before == last
	})
	if last > 50*(512<<10) {
		t.Errorf("%d bytes were read from the upstream for clients that take nothing", last)
	}
	other := f.dial(t)
	for range 5 {
		if got := other.get("/quick", 200); got != "ok" {
			t.Error(got)
		}
	}
	if n := f.backend.Endpoints()[0].Pool().Open(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// The end of a client's stream ends the upstream's at once.
func TestH2UpstreamCancel(t *testing.T) {
	for _, when := range []string{"before the head", "in the body"} {
		t.Run(when, func(t *testing.T) {
			asked, gone := make(chan struct{}, 1), make(chan time.Time, 1)
			up := h2Upstream(t, false, func(w http.ResponseWriter, r *http.Request) {
				if when == "in the body" {
					w.Write([]byte("begin"))
					w.(http.Flusher).Flush()
				}
				asked <- struct{}{}
				<-r.Context().Done()
				gone <- time.Now()
			})
			f := startH2(t, setup{}.toH2(false), false, up)
			c := f.rawH2(t)
			took := time.Hour
			for try := range 5 { // one of them is not held up by a busy machine
				id := uint32(2*try + 1)
				c.request(id, "/")
				<-asked
				start := time.Now()
				c.fr.WriteRSTStream(id, http2.ErrCodeCancel)
				took = min(took, (<-gone).Sub(start))
			}
			if took > 500*time.Millisecond {
				t.Errorf("the upstream was told after %v", took)
			}
		})
	}
}

func TestH2UpstreamIdleConnectionsEnd(t *testing.T) {
	s := setup{pool: engine.PoolConfig{IdleTimeout: 50 * time.Millisecond}}.toH2(false)
	f := s.start(t, h2Upstream(t, false, echo))
	f.dial(t).get("/", 200)
	eventually(t, "the idle connection ends", func() bool { return f.backend.Endpoints()[0].Pool().Open() == 0 })
	f.dial(t).get("/", 200)
}

func TestH2UpstreamThatSpeaksHTTP1(t *testing.T) {
	f := setup{}.toH2(false).start(t, startBackend(t, answerAll).addr)
	f.dial(t).get("/", 502)
	if note := f.log.await(t, 1)[0].Note; !strings.Contains(note, "does not speak HTTP/2") {
		t.Errorf("note %q", note)
	}
}

// gRPC ends a request without messages by an empty DATA frame, and not with its head (gRPC over
// HTTP/2, Requests): servers may wait for it.
func TestH2UpstreamSeesTheEndOfGRPCInData(t *testing.T) {
	lengths := make(chan int64, 1)
	overUpstreams(t, func(t *testing.T, c *http.Client, f *front) {
		t.Helper()
		for contentType, want := range map[string]int64{"application/grpc": -1, "application/grpc+proto": -1, "text/plain": 0} {
			resp, err := c.Post(f.url("/"), contentType, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got := <-lengths; got != want {
				t.Errorf("%s: the upstream was told a length of %d, want %d", contentType, got, want)
			}
		}
	}, func(_ http.ResponseWriter, r *http.Request) { lengths <- r.ContentLength })
}

// What cannot be done over HTTP/2 to an upstream is refused, and nothing reaches it.
func TestH2UpstreamRefusals(t *testing.T) {
	var asked atomic.Int64
	up := h2Upstream(t, false, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	s := setup{h2c: true}.toH2(false)
	f := s.start(t, up)
	upgrade := "GET / HTTP/1.1\r\nHost: h.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if resp, _ := f.talk(t, upgrade); resp.StatusCode != 502 {
		t.Errorf("an upgrade: %d", resp.StatusCode)
	}
	c := f.rawH2(t)
	c.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "h.test", ":path", "/", "sec-websocket-version", "13")
	if status := c.answerHead(1)[":status"]; status != "502" {
		t.Errorf("an extended CONNECT: %s", status)
	}
	for _, e := range f.log.await(t, 2) {
		if !strings.Contains(e.Note, "an upgrade (WebSocket) is not supported with HTTP/2") {
			t.Errorf("note %q", e.Note)
		}
	}
	s.route = func(r *Route) { r.ProxyProtocol = engine.ProxyV2 }
	f = s.start(t, up)
	f.dial(t).get("/", 502)
	if note := f.log.await(t, 1)[0].Note; !strings.Contains(note, "the PROXY protocol is not supported with HTTP/2") {
		t.Errorf("note %q", note)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
	f = setup{}.toH2(false).start(t, up) // h2c by Upgrade is none, and ignored
	f.dial(t).send("GET / HTTP/1.1\r\nHost: h.test\r\nConnection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").head("GET")
	if n := asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}
