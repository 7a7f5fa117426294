package router

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

func TestLimits(t *testing.T) {
	get := func(target, fields string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: h.test\r\n" + fields + "\r\n"
	}
	small := engine.Limits{MaxHead: 4096, MaxTarget: 1000, MaxFields: 20}
	tests := []struct {
		name, raw string
		status    int
	}{
		{"a head of nearly all that is allowed", get("/", "X-A: "+strings.Repeat("a", 4000)+"\r\n"), 200},
		{"a head too large", get("/", "X-A: "+strings.Repeat("a", 4096)+"\r\n"), 431},
		{"a head too large and without an end", "GET / HTTP/1.1\r\nHost: h.test\r\nX-A: " + strings.Repeat("a", 10000), 431},
		{"a target too long", get("/"+strings.Repeat("a", 1000), ""), 414},
		{"a target longer than a head", get("/"+strings.Repeat("a", 10000), ""), 414},
		{"a target without an end", "GET /" + strings.Repeat("a", 10000), 414},
		{"as many fields as are allowed", get("/", strings.Repeat("X-A: 1\r\n", 19)), 200},
		{"too many fields", get("/", strings.Repeat("X-A: 1\r\n", 20)), 431},
		{"100,000 fields", get("/", strings.Repeat("X-A: 1\r\n", 100000)), 431},
	}
	b := startBackend(t, answerAll)
	f := setup{limits: small}.start(t, b.addr)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := f.dial(t)
			go io.WriteString(c.Conn, tt.raw)
			resp, _ := c.answer("GET")
			if resp.StatusCode != tt.status || resp.Close != (tt.status != 200) {
				t.Errorf("status %d, want %d, close %t", resp.StatusCode, tt.status, resp.Close)
			}
		})
	}
}

// A head larger than the first buffer moves while it is read.
func TestHeadsOfAllSizes(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		for {
			r, body, ok := c.request()
			if !ok {
				return
			}
			c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nX-A: %s\r\nContent-Length: %d\r\n\r\n%s", r.Header.Get("X-A"), len(body), body))
		}
	})
	f := startFront(t, b.addr)
	for _, piece := range []int{1 << 20, 1000, 1} {
		t.Run(fmt.Sprint("in pieces of ", piece), func(t *testing.T) {
			t.Parallel()
			c := f.dial(t)
			for size := 7900; size < 31000; size = size*9/8 + 1 {
				value := strings.Repeat("v", size)
				raw := "POST /" + value[:100] + " HTTP/1.1\r\nHost: h.test\r\nX-A: " + value + "\r\nContent-Length: 5\r\n\r\nhello"
				go func() {
					for len(raw) > 0 {
						n := min(piece, len(raw))
						c.Write([]byte(raw[:n]))
						raw = raw[n:]
					}
				}()
				resp, body := c.answer("POST")
				if resp.StatusCode != 200 || resp.Header.Get("X-A") != value || body != "hello" {
					t.Fatalf("size %d: status %d, field of %d, body %q", size, resp.StatusCode, len(resp.Header.Get("X-A")), body)
				}
			}
		})
	}
}

func TestMoreConnectionsThanAllowedAreClosed(t *testing.T) {
	b := startBackend(t, answerAll)
	f := setup{limits: engine.Limits{MaxConnections: 2}}.start(t, b.addr)
	one, two := f.dial(t), f.dial(t)
	one.get("/", 200)
	two.get("/", 200)
	f.dial(t).closed()
	eventually(t, "one was refused", func() bool { return f.server.Stats().Refused == 1 })
	one.Close()
	eventually(t, "there is room again", func() bool { return f.server.Stats().Open == 1 })
	f.dial(t).get("/", 200)
}

func TestAListThatWouldCostTooMuchIsRefused(t *testing.T) {
	f := startFront(t)
	list := "Connection: " + strings.Repeat("aa,", 9000) + "\r\n"
	raw := "GET / HTTP/1.1\r\nHost: h.test\r\n" + strings.Repeat("aa: 1\r\n", 190) + list + "\r\n"
	w := startWatch()
	for range 20 {
		if resp, _ := f.talk(t, raw); resp.StatusCode != 400 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	if took, _ := w.stop(); took > 2*time.Second {
		t.Errorf("20 requests took %v", took)
	}
}
