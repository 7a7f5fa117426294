package router

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// section is what one side has seen of the other's trailer section.
type section struct {
	announced string   // the field Trailer
	fields    []string // "name: value", in lower case
}

func (s section) String() string { return fmt.Sprintf("Trailer %q, then %q", s.announced, s.fields) }

// readSection reads a message of HTTP/1.1 in chunks.
func readSection(r io.Reader) (s section) {
	raw, _ := io.ReadAll(r) // what is missing shows
	head, rest, _ := strings.Cut(string(raw), "\r\n\r\n")
	_, trailer, _ := strings.Cut(rest, "\r\n0\r\n")
	for line := range strings.SplitSeq(strings.ToLower(head), "\r\n") {
		if value, ok := strings.CutPrefix(line, "trailer: "); ok {
			s.announced += value
		}
	}
	for line := range strings.SplitSeq(strings.ToLower(trailer), "\r\n") {
		if line != "" {
			s.fields = append(s.fields, line)
		}
	}
	return s
}

// take adds a head of HTTP/2.
func (s *section) take(h *http2.MetaHeadersFrame, trailer bool) {
	for _, f := range h.Fields {
		if trailer {
			s.fields = append(s.fields, f.Name+": "+f.Value)
		} else if f.Name == "trailer" {
			s.announced += f.Value
		}
	}
}

const (
	// What the two sides send: names that may be in a trailer section, and others.
	announcedByClient   = "Content-Length, X-Check, host,,Transfer-Encoding"
	announcedByUpstream = "trailer, X-Sum , Content-Length"
)

// trailersOver1 is an upstream of HTTP/1.1.
func trailersOver1(t *testing.T, seen chan<- section) string {
	t.Helper()
	return startBackend(t, func(c *upstreamConn) {
		var raw strings.Builder
		for !strings.Contains(raw.String(), "\r\n0\r\n") || !strings.HasSuffix(raw.String(), "\r\n\r\n") {
			line, err := c.r.ReadString('\n')
			if raw.WriteString(line); err != nil {
				return
			}
		}
		seen <- readSection(strings.NewReader(raw.String()))
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: " + announcedByUpstream + "\r\n\r\n2\r\nok\r\n0\r\nX-Sum: yes\r\nSet-Cookie: a=b\r\n\r\n")
		c.gone()
	}).addr
}

// trailersOver2 is one of HTTP/2.
func trailersOver2(t *testing.T, seen chan<- section) string {
	t.Helper()
	return startBackend(t, func(c *upstreamConn) {
		if _, err := io.ReadFull(c.r, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		up := newRawH2(t, c)
		up.fr = http2.NewFramer(c, c.r)
		up.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		up.fr.WriteSettings()
		var s section
		for heads := 0; ; {
			f, err := up.fr.ReadFrame()
			if err != nil {
				return
			}
			h, ok := f.(*http2.MetaHeadersFrame)
			if !ok {
				continue
			}
			s.take(h, heads > 0)
			if heads++; !h.StreamEnded() {
				continue
			}
			seen <- s
			up.head(h.StreamID, false, ":status", "200", "trailer", announcedByUpstream)
			up.fr.WriteData(h.StreamID, false, []byte("ok"))
			up.head(h.StreamID, true, "x-sum", "yes", "set-cookie", "a=b")
		}
	}).addr
}

func (f *front) trailersFrom1(t *testing.T) section {
	t.Helper()
	c := f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nTE: trailers\r\nConnection: TE, close\r\nTransfer-Encoding: chunked\r\nTrailer: " +
		announcedByClient + "\r\n\r\n2\r\nhi\r\n0\r\nX-Check: ok\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
	return readSection(c.r)
}

func (f *front) trailersFrom2(t *testing.T) (s section) {
	t.Helper()
	c := f.rawH2(t)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/", "te", "trailers", "trailer", announcedByClient)
	c.fr.WriteData(1, false, []byte("hi"))
	c.head(1, true, "x-check", "ok", "x-forwarded-for", "6.6.6.6")
	for trailer := false; ; trailer = true {
		h := c.until(func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok }).(*http2.MetaHeadersFrame)
		s.take(h, trailer)
		if h.StreamEnded() {
			return s
		}
	}
}

// Trailer sections go both ways between all protocols, and neither they nor their announcement
// speak of framing, routing or who the client is.
func TestTrailersBetweenProtocols(t *testing.T) {
	for _, down := range []int{1, 2} {
		for _, up := range []int{1, 2} {
			t.Run(fmt.Sprintf("HTTP %d to HTTP %d", down, up), func(t *testing.T) {
				seen := make(chan section, 1)
				var f *front
				if up == 1 {
					f = setup{h2c: true}.start(t, trailersOver1(t, seen))
				} else {
					f = setup{h2c: true}.toH2(false).start(t, trailersOver2(t, seen))
				}
				var answered section
				if down == 1 {
					answered = f.trailersFrom1(t)
				} else {
					answered = f.trailersFrom2(t)
				}
				asked := <-seen
				if strings.ToLower(asked.announced) != "x-check" || !slices.Equal(asked.fields, []string{"x-check: ok"}) {
					t.Errorf("the upstream saw %v", asked)
				}
				if strings.ToLower(answered.announced) != "x-sum" || !slices.Equal(answered.fields, []string{"x-sum: yes"}) {
					t.Errorf("the client saw %v", answered)
				}
			})
		}
	}
}
