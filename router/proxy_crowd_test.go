package router

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestACrowd has many clients ask all kinds of things in all kinds of pieces, of backends
// that answer in all kinds of ways. Each request and answer carries a name and a body made
// of it, so that bytes of one that turn up in another are seen. With the race detector
// buffers that were given back are overwritten: one that is still in use is seen too.
func TestACrowd(t *testing.T) {
	for _, most := range []int64{0, 5000, 1 << 20} {
		t.Run(fmt.Sprint("answers read ahead by ", most), func(t *testing.T) { testACrowd(t, most) })
	}
}

func testACrowd(t *testing.T, most int64) {
	t.Helper()
	var addrs []string
	for range 3 {
		addrs = append(addrs, startBackend(t, moody).addr)
	}
	f := setup{route: func(r *Route) { r.BufferAnswer = most }}.start(t, addrs...)
	var asked sync.Map
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for n := 0; n < 100; {
				c := f.dial(t)
				for range 1 + rnd.IntN(30) {
					n++
					asked.Store(fmt.Sprintf("/%d-%d", i, n), true)
					if !askOne(t, c, rnd, fmt.Sprintf("%d-%d", i, n)) {
						break
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	for _, e := range f.log.await(t, 1) { // a head outlives its body: the log reads it last
		if _, ok := asked.Load(strings.TrimSuffix(e.Path, "b")); !ok || e.Method != "PUT" {
			t.Errorf("in the log: %q %q", e.Method, e.Path)
		}
	}
}

// bodyOf is the body that belongs to a name.
func bodyOf(name string, size int) string {
	unit := "<" + name + ">"
	return strings.Repeat(unit, size/len(unit)+1)[:size]
}

var crowdSizes = []int{0, 1, 50, 4000, 8100, 8300, 20000, 65536, 70000, 400000}

// askOne sends one request, or two at once, and checks the answers.
func askOne(t *testing.T, c *client, rnd *rand.Rand, name string) (again bool) {
	t.Helper()
	var raw strings.Builder
	names := []string{name}
	if rnd.IntN(3) == 0 {
		names = append(names, name+"b")
	}
	sizes := make([]int, len(names))
	for i, name := range names {
		sizes[i] = crowdSizes[rnd.IntN(len(crowdSizes))]
		padding := strings.Repeat("p", rnd.IntN(3)*rnd.IntN(5000))
		fmt.Fprintf(&raw, "PUT /%s?%d HTTP/1.1\r\nHost: h.test\r\nX-Padding: %s\r\n", name, rnd.IntN(5), padding)
		body := bodyOf(name, sizes[i])
		if rnd.IntN(2) == 0 {
			fmt.Fprintf(&raw, "Transfer-Encoding: chunked\r\n\r\n%s0\r\nX-T: %s\r\n\r\n", chunks(body, 10+rnd.IntN(9000)), name)
		} else {
			fmt.Fprintf(&raw, "Content-Length: %d\r\n\r\n%s", len(body), body)
		}
	}
	pieces := []int{1 << 20, 16 << 10, 1000}[rnd.IntN(3)]
	go func(s string) {
		for len(s) > 0 {
			n := min(len(s), pieces)
			if _, err := io.WriteString(c.Conn, s[:n]); err != nil {
				return
			}
			s = s[n:]
		}
	}(raw.String())
	for i, name := range names {
		c.SetDeadline(time.Now().Add(patience)) // for each: a busy machine takes its time for all of them
		resp, err := http.ReadResponse(c.r, nil)
		for err == nil && resp.StatusCode == 103 {
			if hint := resp.Header.Get("X-Hint"); hint != name {
				t.Errorf("%s: hint for %q", name, hint)
			}
			resp, err = http.ReadResponse(c.r, nil)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return false
		}
		body, err := io.ReadAll(resp.Body)
		if got := resp.Header.Get("X-Name"); err != nil || resp.StatusCode != 200 || got != name || string(body) != bodyOf(name, sizes[i]) {
			t.Errorf("%s: status %d, answer of %q, %d bytes of %d, %v", name, resp.StatusCode, got, len(body), sizes[i], err)
			return false
		}
		if resp.Close {
			return false
		}
	}
	return true
}

// moody echoes, in one of several ways that the query chooses.
func moody(c *upstreamConn) {
	w := bufio.NewWriterSize(c.Conn, 32<<10)
	for {
		r, body, ok := c.request()
		if !ok {
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/")
		closing := ""
		if r.URL.RawQuery == "4" {
			closing = "Connection: close\r\n"
			w.WriteString("HTTP/1.1 103 Early Hints\r\nX-Hint: " + name + "\r\n\r\n")
		}
		fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nX-Name: %s\r\n%s", name, closing)
		switch r.URL.RawQuery {
		case "0", "1":
			fmt.Fprintf(w, "Content-Length: %d\r\n\r\n%s", len(body), body)
		case "2":
			fmt.Fprintf(w, "Transfer-Encoding: chunked\r\n\r\n%s0\r\nX-T: %s\r\n\r\n", chunks(body, 3000), name)
		default:
			fmt.Fprintf(w, "Connection: close\r\n\r\n")
			w.Flush()
			w.WriteString(body)
			closing = "x"
		}
		if w.Flush() != nil || closing != "" {
			return
		}
	}
}
