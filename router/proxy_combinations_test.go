package router

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A client that is bound to an endpoint is elsewhere while that is ejected, through a new
// table too, and comes back.
func TestStickyAndEjectionAndANewTable(t *testing.T) {
	for _, mode := range []StickyMode{StickyBalanced, StickyPersistent} {
		t.Run(mode.String(), func(t *testing.T) {
			var ill [2]atomic.Bool
			backend := func(i int) string {
				return startBackend(t, func(c *upstreamConn) {
					for {
						if _, _, ok := c.request(); !ok {
							return
						}
						code := "200 OK"
						if ill[i].Load() {
							code = "500 Internal Server Error"
						}
						c.send("HTTP/1.1 " + code + "\r\nContent-Length: 1\r\n\r\n" + string(rune('0'+i)))
					}
				}).addr
			}
			policy := &Policy{Sticky: Sticky{Mode: mode, Cookie: "SID"}, Ejection: Ejection{Consecutive: 2, Base: time.Hour}}
			addrs := []string{backend(0), backend(1)}
			f := setup{route: withPolicy(policy)}.start(t, addrs...)
			home, set := f.visit(t, "")
			cookie := "SID=" + set.Value
			ill[home[0]-'0'].Store(true)
			ask := func() int {
				resp, _ := f.talk(t, "GET / HTTP/1.1\r\nHost: h.test\r\nCookie: "+cookie+"\r\n\r\n")
				return resp.StatusCode
			}
			if a, b := ask(), ask(); a != 500 || b != 500 {
				t.Fatalf("the endpoint it is bound to: %d, %d", a, b)
			}
			elsewhere := func(when string) {
				t.Helper()
				for range 4 {
					if at, another := f.visit(t, cookie); at == home || another != nil {
						t.Errorf("%s: at %s with a new cookie %v", when, at, another)
					}
				}
			}
			elsewhere("ejected")
			route := *f.table.Load().Match([]byte("h.test"), []byte("/"))
			edit := NewTable().Edit()
			edit.Put(NewHost("", []*Route{&route}, nil))
			f.Swap(edit.Table())
			elsewhere("ejected, and a new table")
			ill[home[0]-'0'].Store(false)
			f.targets(addrs[1-(home[0]-'0')]) // it goes and comes back, as a new Pod does
			f.targets(addrs...)
			if at, another := f.visit(t, cookie); at != home || another != nil {
				t.Errorf("when it is well: at %s with a new cookie %v", at, another)
			}
		})
	}
}

// A tunnel counts as a request for as long as it lasts: others wait behind it, and the next
// one goes when it ends. The log has all tunnels alike, whatever the version of HTTP.
func TestATunnelHoldsItsPlace(t *testing.T) {
	policy := &Policy{Limits: Limits{Connections: 1, Requests: 1, Pending: 5, PendingTimeout: patience}}
	serve := wsHandler(echoMessages)
	overAllWays(t, func(t *testing.T, h2, secure bool) {
		t.Helper()
		s := setup{h2c: h2 && !secure, route: withPolicy(policy)}
		f := s.withTLS(secure).start(t, startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/chat" {
				serve(w, r)
				return
			}
			io.WriteString(w, "ok")
		})).trusting(secure)
		ws := f.dialWS(t, h2)
		waiting := f.dial(t).send(getIt)
		eventually(t, "one waits", func() bool { return f.backend.Counts().Pending == 1 })
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := ws.Write(ctx, websocket.MessageText, []byte("still here")); err != nil {
			t.Fatal(err)
		}
		if _, p, err := ws.Read(ctx); string(p) != "still here" || err != nil {
			t.Fatal(string(p), err)
		}
		if f.backend.Counts().Pending != 1 || f.backend.Endpoints()[0].InFlight() != 1 {
			t.Error("the tunnel has lost its place")
		}
		ws.Close(websocket.StatusNormalClosure, "")
		if resp, body := waiting.answer("GET"); resp.StatusCode != 200 || body != "ok" {
			t.Errorf("after the tunnel: %d %q", resp.StatusCode, body)
		}
		again := f.dialWS(t, h2)
		again.CloseNow() // without a word
		f.dial(t).get("/", 200)
		entries := f.log.await(t, 4)
		for _, e := range entries {
			if e.Path == "/chat" && (e.Method != "GET" || e.Status != 101 || h2 != strings.HasPrefix(e.Proto, "HTTP/2")) {
				t.Errorf("in the log: %+v", e)
			}
		}
		if n := f.backend.running.Load(); n != 0 || f.backend.Endpoints()[0].InFlight() != 0 {
			t.Errorf("%d are running when all is over", n)
		}
	})
}
