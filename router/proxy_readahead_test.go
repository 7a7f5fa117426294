package router

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// huge is an answer that does not fit between the proxy and a client that reads nothing.
var huge = bodyOf("big", 600<<10)

// tight is a listener whose connections have little room in the kernel, but enough to get on.
type tight struct{ net.Listener }

func (l tight) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		conn.(*net.TCPConn).SetWriteBuffer(tightBuffer)
	}
	return conn, err
}

const tightBuffer = 32 << 10

// readAhead is a proxy that holds so much of an answer, and little in its kernel. Each
// of its endpoints has one request at a time; another one waits for that, but not for long.
func readAhead(most int64) setup {
	return setup{
		h2c:    true,
		listen: func(ln net.Listener) net.Listener { return tight{ln} },
		route: func(r *Route) {
			r.BufferAnswer = most
			r.Policy = &Policy{Limits: Limits{Connections: 1, Pending: 1, PendingTimeout: patience / 3}}
		},
	}
}

// slowReader asks for /big and takes nothing of the answer, until it is told to take all. It
// returns what it got, and whether that was whole.
type slowReader struct {
	name string
	ask  func(t *testing.T, f *front) (rest func() (body string, whole bool), leave func())
}

var slowReaders = []slowReader{
	{"HTTP/1.1", slowPlain},
	{"HTTP/1.1 over TLS", slowTLS},
	{"HTTP/2", slowH2},
}

// start begins a proxy for such a client.
func (r slowReader) start(t *testing.T, s setup, upstream string) *front {
	t.Helper()
	secure := strings.Contains(r.name, "TLS")
	return s.withTLS(secure).start(t, upstream).trusting(secure)
}

// dialSlowly makes a connection with little room on the client's side.
func (f *front) dialSlowly(t *testing.T) *client {
	t.Helper()
	d := *f
	d.tls = nil
	c := d.dial(t)
	c.Conn.(*net.TCPConn).SetReadBuffer(tightBuffer)
	return c
}

func slowPlain(t *testing.T, f *front) (func() (string, bool), func()) {
	t.Helper()
	return slowH1(t, f.dialSlowly(t))
}

func slowTLS(t *testing.T, f *front) (func() (string, bool), func()) {
	t.Helper()
	c := f.dialSlowly(t)
	c.Conn = tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	c.r = bufio.NewReader(c.Conn)
	return slowH1(t, c)
}

func slowH1(t *testing.T, c *client) (func() (string, bool), func()) {
	t.Helper()
	c.send("GET /big HTTP/1.1\r\nHost: h.test\r\n\r\n")
	return func() (string, bool) {
		resp := c.head("GET")
		body, err := io.ReadAll(resp.Body)
		if declared := resp.Header["Trailer"]; err == nil && resp.Trailer.Get("X-Sum") == "" && len(declared) > 0 {
			t.Error("the trailer did not come")
		}
		return string(body), err == nil
	}, func() { c.Close() }
}

func slowH2(t *testing.T, f *front) (func() (string, bool), func()) {
	t.Helper()
	c := f.rawH2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.request(1, "/big")
	return func() (string, bool) {
		c.fr.WriteWindowUpdate(0, 1<<30)
		c.fr.WriteWindowUpdate(1, 1<<30)
		var body bytes.Buffer
		for whole := false; !whole; {
			reset := false
			c.until(func(fr http2.Frame) bool {
				switch fr := fr.(type) {
				case *http2.DataFrame:
					body.Write(fr.Data())
					whole = fr.StreamEnded()
				case *http2.HeadersFrame:
					whole = fr.StreamEnded()
				case *http2.RSTStreamFrame:
					reset = true
				}
				return whole || reset
			})
			if reset {
				return body.String(), false
			}
		}
		return body.String(), true
	}, func() { c.fr.WriteRSTStream(1, http2.ErrCodeCancel) }
}

// The heads and bodies of answers that are all big.
var bigAnswers = map[string]string{
	"by length": fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(huge), huge),
	"chunked":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(huge, 7000) + "0\r\n\r\n",
	"with a trailer": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
		chunks(huge, 70000) + "0\r\nX-Sum: 5\r\n\r\n",
	"until it closes": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + huge,
}

// answering is a backend that gives this answer for /big, and a short one for all else.
func answering(raw string) func(c *upstreamConn) {
	return func(c *upstreamConn) {
		for {
			r, _, ok := c.request()
			switch {
			case !ok:
				return
			case r.URL.Path != "/big":
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				continue
			}
			c.send(raw)
			if strings.Contains(raw, "Connection: close") {
				return
			}
		}
	}
}

// An endpoint that has sent its answer serves the next request, on the same connection, while
// the client of the first has taken next to nothing.
func TestAnEndpointIsFreeBeforeASlowClientHasItsAnswer(t *testing.T) {
	for framing, raw := range bigAnswers {
		for _, slow := range slowReaders {
			t.Run(slow.name+", "+framing, func(t *testing.T) {
				t.Parallel()
				b := startBackend(t, answering(raw))
				s := readAhead(1 << 20)
				f := slow.start(t, s, b.addr)
				rest, _ := slow.ask(t, f)
				eventually(t, "the first is there", func() bool { return b.conns() == 1 })
				if resp, _ := f.talk(t, getIt); resp.StatusCode != 200 {
					t.Errorf("the second: status %d", resp.StatusCode)
				}
				if n := len(f.log.await(t, 1)); n != 1 {
					t.Fatal("the client has got all: this shows nothing")
				}
				if n := b.conns(); n != 1 && framing != "until it closes" {
					t.Errorf("%d connections", n)
				}
				if body, whole := rest(); body != huge || !whole {
					t.Errorf("%d bytes of %d, whole %t", len(body), len(huge), whole)
				}
			})
		}
	}
}

func TestAStreamOfHTTP2IsFreeBeforeASlowClientHasItsAnswer(t *testing.T) {
	for _, slow := range slowReaders {
		t.Run(slow.name, func(t *testing.T) {
			t.Parallel()
			up := h2Upstream(t, false, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/big" {
					w.Header().Set("Trailer", "X-Sum")
					io.WriteString(w, huge)
					w.Header().Set("X-Sum", "5")
				}
			})
			s := readAhead(1 << 20).toH2(false)
			f := slow.start(t, s, up)
			rest, _ := slow.ask(t, f)
			eventually(t, "the first is there", func() bool { return f.InFlight() == 1 })
			if resp, _ := f.talk(t, getIt); resp.StatusCode != 200 {
				t.Errorf("the second: status %d", resp.StatusCode)
			}
			if n := len(f.log.await(t, 1)); n != 1 {
				t.Fatal("the client has got all: this shows nothing")
			}
			if body, whole := rest(); body != huge || !whole {
				t.Errorf("%d bytes of %d, whole %t", len(body), len(huge), whole)
			}
		})
	}
}

// Where an answer does not fit, or may not be held, its endpoint waits for the client. Nothing
// is lost.
func TestAnEndpointWaitsForASlowClient(t *testing.T) {
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(huge), huge)
	tests := map[string]struct {
		most, budget int64
		fields       string
	}{
		"without a policy":     {0, 0, ""},
		"above its bound":      {16 << 10, 0, ""},
		"above the budget":     {1 << 20, 64 << 10, ""},
		"without a budget":     {1 << 20, 1, ""},
		"events":               {1 << 20, 0, "Content-Type: Text/Event-Stream;charset=utf-8\r\n"},
		"gRPC":                 {1 << 20, 0, "Content-Type: application/grpc+proto\r\n"},
		"gRPC-Web":             {1 << 20, 0, "Content-Type: application/grpc-web\r\n"},
		"the endpoint says so": {1 << 20, 0, "x-accel-buffering: No\r\n"},
		"it cannot ask for it": {0, 0, "X-Accel-Buffering: yes\r\n"},
		"above the least":      {1, 0, ""},
	}
	for name, tt := range tests {
		for _, slow := range slowReaders {
			t.Run(name+", "+slow.name, func(t *testing.T) {
				t.Parallel()
				b := startBackend(t, answering("HTTP/1.1 200 OK\r\n"+tt.fields+length))
				s := readAhead(tt.most)
				s.limits.BufferedAnswers = tt.budget
				route := s.route
				s.route = func(r *Route) { route(r); r.Policy.Limits.PendingTimeout = short }
				f := slow.start(t, s, b.addr)
				rest, _ := slow.ask(t, f)
				eventually(t, "the first is there", func() bool { return b.conns() == 1 })
				if resp, _ := f.talk(t, getIt); resp.StatusCode != 503 {
					t.Errorf("the second: status %d", resp.StatusCode)
				}
				if body, whole := rest(); body != huge || !whole {
					t.Errorf("%d bytes of %d, whole %t", len(body), len(huge), whole)
				}
			})
		}
	}
}

// What an endpoint tells nginx is not for clients.
func TestAccelFieldsAreNotPassedOn(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nx-accel-redirect: /internal\r\nX-Accel-Expires: 5\r\n" +
				"X-Accel-Limit-Rate: 1\r\nX-Accel-Charset: utf-8\r\nX-Accel: it is\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	for _, most := range []int64{0, 1 << 20} {
		resp, _ := readAhead(most).start(t, b.addr).talk(t, getIt)
		for name := range resp.Header {
			if strings.HasPrefix(name, "X-Accel-") {
				t.Errorf("the client got %s", name)
			}
		}
		if resp.Header.Get("X-Accel") == "" {
			t.Error("X-Accel is no field of nginx")
		}
	}
}

// An endpoint that breaks off leaves its client with what it had sent, and no end.
func TestAnAnswerThatWasReadAheadIsCutToo(t *testing.T) {
	part := huge[:300<<10]
	answers := map[string]string{
		"by length": fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(huge), part),
		"chunked":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.ReplaceAll(chunks(part, 7000), ";ext=1", ""),
		"malformed": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(part, 7000) + "zz\r\n",
	}
	for framing, raw := range answers {
		for _, slow := range slowReaders {
			t.Run(slow.name+", "+framing, func(t *testing.T) {
				t.Parallel()
				b := startBackend(t, func(c *upstreamConn) {
					if r, _, _ := c.request(); r.URL.Path == "/big" {
						c.send(raw)
						return
					}
					c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					c.gone()
				})
				s := readAhead(1 << 20)
				s.route = func(r *Route) { r.BufferAnswer = 1 << 20 }
				f := slow.start(t, s, b.addr)
				rest, _ := slow.ask(t, f)
				eventually(t, "the endpoint's connection has gone", func() bool {
					return b.conns() == 1 && f.backend.Endpoints()[0].Pool().Open() == 0
				})
				if body, whole := rest(); body != part || whole {
					t.Errorf("%d bytes of %d, whole %t", len(body), len(part), whole)
				}
				if e := f.log.await(t, 1)[0]; e.Note == "" {
					t.Errorf("in the log: %+v", e)
				}
				f.dial(t).get("/", 200)
			})
		}
	}
}

// One who leaves leaves nothing behind: there is as much budget for the next as there was.
func TestOneWhoLeavesGivesTheBudgetBack(t *testing.T) {
	for _, slow := range slowReaders {
		t.Run(slow.name, func(t *testing.T) {
			t.Parallel()
			b := startBackend(t, answering(bigAnswers["chunked"]))
			s := readAhead(1 << 20)
			s.limits.BufferedAnswers = 800 << 10 // for one at a time
			f := slow.start(t, s, b.addr)
			for n := 1; n <= 6; n += 2 {
				_, leave := slow.ask(t, f)
				eventually(t, "it is there", func() bool { return f.InFlight() > 0 })
				if resp, _ := f.talk(t, getIt); resp.StatusCode != 200 {
					t.Errorf("status %d: there was no room for the answer before it", resp.StatusCode)
				}
				leave()
				for _, e := range f.log.await(t, n+1) {
					if e.Path == "/big" && e.Note == "" {
						t.Errorf("in the log: %+v", e)
					}
				}
			}
		})
	}
}

// A client that takes nothing is cut in time, also while the endpoint has more to say and
// after it has said all.
func TestASlowClientIsCutWhateverIsHeld(t *testing.T) {
	for name, serve := range map[string]func(*upstreamConn){"all": answering(bigAnswers["by length"]), "more": flood} {
		for _, slow := range slowReaders {
			t.Run(slow.name+", "+name, func(t *testing.T) {
				t.Parallel()
				b := startBackend(t, serve)
				s := readAhead(1 << 20)
				s.limits.WriteTimeout = short
				f := slow.start(t, s, b.addr)
				slow.ask(t, f)
				if e := f.log.await(t, 1)[0]; !strings.Contains(e.Note, "timeout") {
					t.Errorf("in the log: %+v", e)
				}
			})
		}
	}
}

// A client that leaves is noticed though nothing has to be written to it, and its endpoint
// has no more to do for it.
func TestALeavingClientEndsWhatIsReadAhead(t *testing.T) {
	for name, part := range map[string]string{"nothing held": "5\r\nhello\r\n", "much held": chunks(huge, 7000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			b := startBackend(t, func(c *upstreamConn) {
				c.request()
				c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + part)
				c.gone()
				close(gone)
			})
			f := readAhead(1<<20).start(t, b.addr)
			c := f.dialSlowly(t).send(getIt)
			c.head("GET")
			c.Close()
			select {
			case <-gone:
			case <-time.After(patience):
				t.Fatal("the endpoint never sees it")
			}
			if e := f.log.await(t, 1)[0]; e.Note == "" {
				t.Errorf("in the log: %+v", e)
			}
		})
	}
}

// The rest of a request's body may still be on its way when its answer is all here.
func TestAnAnswerIsReadAheadWhileTheBodyComes(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		r, err := http.ReadRequest(c.r)
		if err != nil {
			return
		}
		c.send(bigAnswers["by length"])
		io.Copy(io.Discard, r.Body)
		c.gone()
	})
	f := readAhead(1<<20).start(t, b.addr)
	c := f.dial(t).send("POST /big HTTP/1.1\r\nHost: h.test\r\nContent-Length: 10\r\n\r\nhello")
	resp := c.head("POST")
	c.send("again")
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != huge {
		t.Errorf("%d bytes of %d, %v", len(body), len(huge), err)
	}
	f.log.await(t, 1)
}

// Total runs while a slow client is waited for, too.
func TestTheTimeOfARequestRunsWhileItsAnswerIsHeld(t *testing.T) {
	b := startBackend(t, answering(bigAnswers["by length"]))
	s := readAhead(1 << 20)
	route := s.route
	s.route = func(r *Route) { route(r); r.Timeouts = engine.Timeouts{Total: 2 * short} }
	f := s.start(t, b.addr)
	rest, _ := slowReaders[0].ask(t, f)
	if e := f.log.await(t, 1)[0]; e.Note == "" {
		t.Errorf("in the log: %+v", e)
	}
	if _, whole := rest(); whole {
		t.Error("it came whole")
	}
}
