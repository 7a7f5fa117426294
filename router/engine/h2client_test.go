package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// answering is a server whose upstream speaks HTTP/2, and answers with what it is told.
type answering struct {
	pool    *Pool
	clients *pipes
	answers chan []byte
	wrong   chan error // what we have sent to the upstream
}

func startAnswering(t testing.TB) *answering {
	t.Helper()
	clients, upstreams := newPipes(), newPipes()
	a := &answering{clients: clients, answers: make(chan []byte, 1), wrong: make(chan error, 1)}
	a.pool = NewPool("192.0.2.1:80", PoolConfig{
		Protocol: ProtocolHTTP2, DialContext: upstreams.dial,
		ReadTimeout: enough, WriteTimeout: enough, ConnectTimeout: enough,
	})
	s := &Server{Handler: relayed{a.pool}, Limits: Limits{HeadTimeout: enough, BodyTimeout: enough, WriteTimeout: enough}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(clients) })
	wg.Go(func() {
		for {
			c, err := upstreams.Accept()
			if err != nil {
				return
			}
			if err := a.answer(c); err != nil {
				a.wrong <- err
			}
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		a.pool.Close()
		upstreams.Close()
		wg.Wait()
	})
	return a
}

// answer waits for a request's head, sends what it is told, and closes. It reads what comes as
// strictly as a server may.
func (a *answering) answer(c net.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	asked, read := make(chan struct{}, 1), make(chan error, 1)
	go func() { read <- readRequests(c, asked) }()
	begin := newScript()
	_ = begin.WriteSettings()
	if _, err := c.Write(begin.out.Bytes()); err == nil {
		select {
		case <-asked:
			a.say(c, read)
		case err := <-read:
			read <- err
		}
	}
	c.Close()
	return <-read
}

// say sends what the upstream is told, unless the one who asked has left: then nobody says it.
func (a *answering) say(c net.Conn, read chan error) {
	select {
	case answer := <-a.answers:
		_, _ = c.Write(answer) // it may have had enough
	case err := <-read:
		read <- err
	}
}

func readRequests(c net.Conn, asked chan<- struct{}) error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
		return fmt.Errorf("preface %q, %w", preface, err)
	}
	fr := http2.NewFramer(nil, c)
	fr.SetMaxReadFrameSize(h2MaxFrame)
	for {
		f, err := fr.ReadFrame()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
			return nil
		case err != nil:
			return err
		}
		switch f.(type) {
		case *http2.HeadersFrame:
			select {
			case asked <- struct{}{}:
			default: // its trailer section
			}
		case *http2.PushPromiseFrame, *http2.PriorityFrame, *http2.UnknownFrame:
			return fmt.Errorf("%v from a client", f)
		}
	}
}

var askings = []string{
	"GET /up HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n",
	"HEAD /up HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n",
	"POST /up HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
}

// ask has one client ask, and the upstream answer that. What the client gets is an answer, be it
// 502, or one that it can see is cut; and no connection is left.
func (a *answering) ask(t *testing.T, request string, answer []byte) (status int, body string, trailer http.Header) {
	t.Helper()
	conn, err := a.clients.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	a.answers <- answer
	go io.WriteString(conn, request)
	method, _, _ := strings.Cut(request, " ")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	for n := 0; err == nil && resp.StatusCode < 200; n++ {
		if n > maxInterims {
			t.Fatal("interim answers without end")
		}
		resp, err = http.ReadResponse(in, &http.Request{Method: method})
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // a cut
	case err != nil:
		t.Fatalf("no answer: %v", err)
	default:
		var all []byte
		all, err = io.ReadAll(resp.Body)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d, and no body: %v", resp.StatusCode, err)
		}
		if rest, _ := io.ReadAll(in); err == nil && len(rest) > 0 {
			t.Fatalf("%d, and %q after its end", resp.StatusCode, rest)
		}
		status, body, trailer = resp.StatusCode, string(all), resp.Trailer
	}
	for deadline := time.Now().Add(10 * time.Second); a.pool.Open() > 0; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection to the upstream does not end")
		}
	}
	select {
	case <-a.answers: // it was not asked
	default:
	}
	select {
	case err := <-a.wrong:
		t.Fatalf("what we send to the upstream is wrong: %v", err)
	default:
	}
	return status, body, trailer
}

// anyCut stands for the body of a 502 that may come too late.
const anyCut = "\x00cut"

var h2Answers = []struct {
	name   string
	write  func(s *script)
	status int // to GET
	body   string
}{
	{"whole", func(s *script) {
		s.head(1, false, ":status", "200", "content-type", "text/plain")
		_ = s.WriteData(1, true, []byte("hello"))
	}, 200, "hello"},
	{"interim, no body", func(s *script) {
		s.head(1, false, ":status", "103", "link", "</a>")
		s.head(1, true, ":status", "204")
	}, 204, ""},
	{"with a trailer section", func(s *script) {
		s.head(1, false, ":status", "200", "trailer", "x-t")
		_ = s.WriteData(1, false, []byte("hello"))
		s.head(1, true, "x-t", "1")
	}, 200, "hello"},
	{"cut", func(s *script) {
		s.head(1, false, ":status", "200", "content-length", "100")
		_ = s.WriteData(1, false, []byte("hello"))
	}, 200, "hello"},
	{"nothing", func(*script) {}, 502, ""},
	{"no status", func(s *script) { s.head(1, true, "a", "b") }, 502, ""},
	{"101", func(s *script) { s.head(1, true, ":status", "101") }, 502, ""},
	{"a head in capitals", func(s *script) { s.head(1, true, ":status", "200", "X-A", "b") }, 502, ""},
	{"chunks", func(s *script) { s.head(1, true, ":status", "200", "transfer-encoding", "chunked") }, 502, ""},
	{"a lie about the length", func(s *script) {
		s.head(1, false, ":status", "200", "content-length", "3")
		_ = s.WriteData(1, true, []byte("12345"))
	}, 502, anyCut},
	{"body before the head", func(s *script) { _ = s.WriteData(1, true, []byte("12345")) }, 502, ""},
	{"a push", func(s *script) { // nothing has been promised, and we have said ENABLE_PUSH 0
		_ = s.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true, BlockFragment: []byte{0x82, 0x86, 0x84}})
		s.head(2, false, ":status", "200")
		_ = s.WriteData(2, true, []byte("pushed"))
		s.head(1, true, ":status", "200")
	}, 502, ""},
	{"a stream that nobody has opened", func(s *script) { s.head(3, true, ":status", "200") }, 502, ""},
	{"ENABLE_PUSH 1", func(s *script) { // a server may not set it (RFC 9113 section 6.5.2)
		_ = s.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1})
		s.head(1, true, ":status", "200")
	}, 502, ""},
	{"reset", func(s *script) { _ = s.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, 502, ""},
	{"left", func(s *script) { _ = s.WriteGoAway(0, http2.ErrCodeNo, nil) }, 502, ""},
	{"windows", func(s *script) {
		_ = s.WriteWindowUpdate(0, 1<<31-1)
		s.head(1, true, ":status", "200")
	}, 502, ""},
	{"less than the length, and padding", func(s *script) {
		s.head(1, false, ":status", "200", "content-length", "100")
		_ = s.WriteDataPadded(1, true, []byte("x"), make([]byte, 200))
		_ = s.WritePing(false, pingAtTheEnd)
	}, 502, anyCut},
	{"a head that is a bomb", func(s *script) {
		s.head(1, false, ":status", "103", "x", strings.Repeat("y", 3000))
		_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: bytes.Repeat([]byte{0xbe}, 4000)})
	}, 502, ""},
	{"a trailer section about the connection", func(s *script) {
		s.head(1, false, ":status", "200")
		_ = s.WriteData(1, false, []byte("12345"))
		s.head(1, true, "x-t", "1", "connection", "x")
	}, 502, anyCut},
	{"WINDOW_UPDATE by nothing on an idle stream", func(s *script) {
		_ = s.WriteRawFrame(http2.FrameWindowUpdate, 0, 9, make([]byte, 4))
		s.head(1, true, ":status", "200")
	}, 502, ""},
	{"priorities of 2", func(s *script) {
		_ = s.WriteSettings(http2.Setting{ID: h2NoOldPriorities, Val: 2})
		s.head(1, true, ":status", "200")
	}, 502, ""},
	{"a table size after a field", func(s *script) {
		_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: []byte{0x88, 0x20}})
	}, 502, ""},
	{"a table size before all", func(s *script) {
		_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: []byte{0x20, 0x88}})
	}, 200, ""},
	{"HTTP/1.1", func(s *script) { s.out.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, 502, ""},
}

func TestH2Answers(t *testing.T) {
	a := startAnswering(t)
	for _, tt := range h2Answers {
		t.Run(tt.name, func(t *testing.T) {
			for i, request := range askings {
				s := newScript()
				tt.write(s)
				status, body, _ := a.ask(t, request, s.out.Bytes())
				// A good head may have gone to the client before what follows it is seen to be bad: then
				// the client sees a cut, as ask makes sure.
				if tt.status == 502 && tt.body == anyCut && status == 200 {
					continue
				}
				if i == 0 && (status != tt.status || body != strings.TrimSuffix(tt.body, anyCut)) {
					t.Errorf("%d %q", status, body)
				}
			}
		})
	}
}

// What a trailer section says about framing, routing, authority or the connection stays behind,
// whatever it came in.
func TestTrailersOfH2Answers(t *testing.T) {
	a := startAnswering(t)
	for _, bad := range []string{
		"content-length", "host", "trailer", "authorization", "set-cookie", "cookie", "content-type", "content-encoding",
		"content-range", "location", "cache-control", "x-forwarded-for", "x-real-ip", "forwarded", "expect", "max-forwards", "range",
		"connection", "transfer-encoding", "keep-alive", "proxy-connection", "upgrade", "te", ":status",
	} {
		for _, pieces := range [][]string{{"hello"}, {"hel", "lo"}, {}} {
			s := newScript()
			s.head(1, false, ":status", "200", "trailer", "x-t")
			for _, p := range pieces {
				_ = s.WriteData(1, false, []byte(p))
			}
			s.head(1, true, "x-t", "1", bad, "5", "x-u", "2")
			status, body, trailer := a.ask(t, askings[0], s.out.Bytes())
			for name := range trailer {
				if strings.EqualFold(name, bad) && trailer[name] != nil {
					t.Errorf("%s: got it", name)
				}
			}
			switch bad { // malformed: a 502, or a cut where the head had gone
			case ":status", "connection", "transfer-encoding", "keep-alive", "proxy-connection", "upgrade", "te":
				if status != 502 && trailer.Get("X-T") != "" {
					t.Errorf("%s: %d %q %v", bad, status, body, trailer)
				}
				continue
			}
			if status != 502 && (body != strings.Join(pieces, "") || trailer.Get("X-T") != "1" || trailer.Get("X-U") != "2") {
				t.Errorf("%s: %d %q %v", bad, status, body, trailer)
			}
		}
	}
}

// FuzzH2Client has an upstream answer anything after good SETTINGS.
func FuzzH2Client(f *testing.F) {
	a := startAnswering(f)
	for _, tt := range h2Answers {
		s := newScript()
		tt.write(s)
		f.Add(uint8(0), s.out.Bytes())
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		if len(data) <= 64<<10 {
			a.ask(t, askings[int(which)%len(askings)], data)
		}
	})
}
