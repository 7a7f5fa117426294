package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
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

// h2Client speaks HTTP/2 only.
func (f *front) h2Client(t testing.TB) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true, TLSClientConfig: f.tls.Clone(), Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(f.tls != nil)
	tr.Protocols.SetUnencryptedHTTP2(f.tls == nil)
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, f.addr)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// oneH2 is a client with one connection, opened here: a Transport that has not yet put its first
// one among the idle dials others.
func (f *front) oneH2(t testing.TB) *http.Client {
	t.Helper()
	scheme := "http"
	if f.tls != nil {
		scheme = "https"
	}
	cc, err := f.h2Client(t).Transport.(*http.Transport).NewClientConn(t.Context(), scheme, "h.test:443") // of which TLS takes the name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return &http.Client{Transport: cc, Timeout: patience}
}

func (f *front) url(path string) string {
	if f.tls != nil {
		return "https://h.test" + path
	}
	return "http://h.test" + path
}

// startH2 makes a proxy that speaks HTTP/2, over TLS or without.
func startH2(t testing.TB, s setup, secure bool, upstreams ...string) *front {
	t.Helper()
	s.h2c = !secure
	return s.withTLS(secure).start(t, upstreams...).trusting(secure)
}

func overBoth(t *testing.T, run func(t *testing.T, secure bool)) {
	t.Helper()
	t.Run("h2c", func(t *testing.T) { run(t, false) })
	t.Run("TLS", func(t *testing.T) { run(t, true) })
}

// startHTTP is a net/http server as an upstream.
func startHTTP(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return ln.Addr().String()
}

// echo answers with what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).EnableFullDuplex() // or it reads what is left of the body over
	w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s host=%s cookie=%q length=%d", r.Method, r.URL, r.Proto, r.Host, r.Header.Get("Cookie"), r.ContentLength))
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
	}
	io.Copy(w, r.Body)
}

func TestH2(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		t.Helper()
		f := startH2(t, setup{}, secure, startHTTP(t, echo))
		c := f.h2Client(t)
		get := func(method, path, body string) (*http.Response, string) {
			t.Helper()
			var r io.Reader
			if body != "" {
				r = strings.NewReader(body)
			}
			req, err := http.NewRequest(method, f.url(path), r)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Add("Cookie", "a=1; b=2")
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			all, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp, string(all)
		}
		resp, _ := get("GET", "/a/../b?c", "")
		if want := `GET /b?c HTTP/1.1 host=h.test cookie="a=1; b=2" length=0`; resp.StatusCode != 200 || resp.Header.Get("X-Seen") != want {
			t.Errorf("%d %q", resp.StatusCode, resp.Header.Get("X-Seen"))
		}
		if resp.Header.Get("Server") != "portico" || resp.Header.Get("Date") == "" || resp.Header.Get("Connection") != "" {
			t.Errorf("%v", resp.Header)
		}
		if _, body := get("POST", "/", "hello"); body != "hello" {
			t.Errorf("%q", body)
		}
		if resp, body := get("HEAD", "/", ""); resp.StatusCode != 200 || body != "" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		if resp, _ := get("GET", "/..%2f", ""); resp.StatusCode != 400 {
			t.Errorf("%d", resp.StatusCode)
		}
	})
}

func TestH2ManyStreamsAtOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		t.Helper()
		f := startH2(t, setup{}, secure, startHTTP(t, echo))
		c := f.oneH2(t)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				for j := range 20 {
					body := strings.Repeat(fmt.Sprintf("%d-%d ", i, j), 1+i*j)
					resp, err := c.Post(f.url("/"), "text/plain", io.MultiReader(strings.NewReader(body)))
					if err != nil {
						t.Error(err)
						return
					}
					all, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil || string(all) != body {
						t.Errorf("%d bytes for %d: %v", len(all), len(body), err)
						return
					}
				}
			})
		}
		wg.Wait()
		if n := f.server.Stats().Accepted; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestH2BigBodies(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		t.Helper()
		f := startH2(t, setup{}, secure, startHTTP(t, echo))
		c := f.h2Client(t)
		size := 1 << 20
		if raceEnabled { // it makes every byte over TLS slow; this is still more than all windows
			size /= 2
		}
		big := bytes.Repeat([]byte("0123456789abcdef"), size)
		for _, known := range []bool{true, false} {
			var body io.Reader = bytes.NewReader(big)
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
			if want := sha256.Sum256(big); err != nil || n != int64(len(big)) || !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Errorf("known length %t: %d bytes, %v", known, n, err)
			}
		}
	})
}

func TestH2TrailersBothWays(t *testing.T) {
	up := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Write(body)
		w.Header().Set("X-Sum", "saw "+r.Trailer.Get("X-Check"))
	})
	f := startH2(t, setup{}, true, up)
	req, _ := http.NewRequest("POST", f.url("/"), io.MultiReader(strings.NewReader("body")))
	req.Trailer = http.Header{"X-Check": {"ok"}}
	resp, err := f.h2Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "body" || err != nil {
		t.Errorf("%q %v", body, err)
	}
	if got := resp.Trailer.Get("X-Sum"); got != "saw ok" {
		t.Errorf("trailer %q", got)
	}
}

func TestH2CancelReachesTheUpstream(t *testing.T) {
	for _, when := range []string{"before the head", "in the body"} {
		t.Run(when, func(t *testing.T) {
			asked, gone := make(chan struct{}, 1), make(chan struct{}, 1)
			up := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				if when == "in the body" {
					w.Write([]byte("begin"))
					w.(http.Flusher).Flush()
				}
				asked <- struct{}{}
				<-r.Context().Done()
				gone <- struct{}{}
			})
			f := startH2(t, setup{}, true, up)
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", f.url("/"), nil)
			go func() { <-asked; time.Sleep(20 * time.Millisecond); cancel() }()
			if resp, err := f.h2Client(t).Do(req); err == nil {
				io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			select {
			case <-gone:
			case <-time.After(patience):
				t.Fatal("the upstream was never told")
			}
		})
	}
}

// A client that reads nothing of one answer does not make the proxy read it from the
// upstream, and other streams go on.
func TestH2SlowReaderHoldsBackTheUpstream(t *testing.T) {
	var wrote atomic.Int64
	up := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" {
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
	f := startH2(t, setup{}, false, up)
	c := f.rawH2(t)
	c.request(1, "/big")
	c.request(3, "/quick")
	c.until(func(fr http2.Frame) bool { h, ok := fr.(*http2.HeadersFrame); return ok && h.StreamID == 3 })
	last := int64(-1)
	eventually(t, "the upstream is held back", func() bool {
		before := last
		last = wrote.Load()
		time.Sleep(short)
		return before == last
	})
	if last > 16<<20 {
		t.Errorf("the upstream was read on: %d bytes", last)
	}
}

func TestH2EarlyAnswerResetsTheRestOfTheBody(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		http.ReadRequest(c.r)
		c.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		c.gone()
	})
	f := startH2(t, setup{}, false, b.addr)
	c := f.rawH2(t)
	c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
	c.until(func(fr http2.Frame) bool { d, ok := fr.(*http2.DataFrame); return ok && d.StreamEnded() })
	c.until(func(fr http2.Frame) bool {
		r, ok := fr.(*http2.RSTStreamFrame)
		return ok && r.StreamID == 1 && r.ErrCode == http2.ErrCodeNo
	})
	c.fr.WriteData(1, true, []byte("late")) // no fault
	c.ping()
}

func TestH2Interim(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		http.ReadRequest(c.r)
		c.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
		c.gone()
	})
	f := startH2(t, setup{}, false, b.addr)
	c := f.rawH2(t)
	c.request(1, "/")
	if got := c.answerHead(1); got[":status"] != "103" || got["link"] != "</a>" {
		t.Errorf("%v", got)
	}
	if got := c.answerHead(1); got[":status"] != "204" {
		t.Errorf("%v", got)
	}
}

func TestH2CutAnswerIsReset(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		http.ReadRequest(c.r)
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
	})
	f := startH2(t, setup{}, false, b.addr)
	c := f.rawH2(t)
	c.request(1, "/")
	c.until(func(fr http2.Frame) bool { _, ok := fr.(*http2.RSTStreamFrame); return ok })
	c.ping()
}

func TestH2Drain(t *testing.T) {
	overBoth(t, func(t *testing.T, secure bool) {
		t.Helper()
		release, asked := make(chan struct{}), make(chan struct{}, 10)
		up := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			if r.URL.Path == "/slow" {
				<-release
			}
			io.WriteString(w, "done")
		})
		f := startH2(t, setup{}, secure, up)
		c := f.h2Client(t)
		got := make(chan error, 1)
		go func() {
			resp, err := c.Get(f.url("/slow"))
			if err == nil {
				var body []byte
				body, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != "done" {
					err = errors.New(string(body))
				}
			}
			got <- err
		}()
		<-asked
		f.server.Drain()
		time.Sleep(20 * time.Millisecond)
		resp, err := c.Get(f.url("/")) // on a new connection
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		down := make(chan error, 1)
		go func() { down <- f.server.Shutdown(t.Context()) }()
		select {
		case err := <-down:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		close(release)
		if err := <-got; err != nil {
			t.Error(err)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

func TestH2IdleConnectionsEnd(t *testing.T) {
	f := startH2(t, setup{limits: engine.Limits{IdleTimeout: 100 * time.Millisecond}}, false, startBackend(t, answerAll).addr)
	c := f.rawH2(t)
	c.request(1, "/")
	c.goAway(http2.ErrCodeNo)
}
