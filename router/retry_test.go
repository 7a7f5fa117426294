package router

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// failOnce is two backends of which the first that is asked answers badly, with a body that
// is not over, and the other one well.
func failOnce(t *testing.T, bad string) (addrs []string, backends []*rawBackend) {
	t.Helper()
	var once sync.Once
	serve := func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			failed := false
			once.Do(func() { failed = true })
			if failed {
				c.send(bad)
				c.gone() // it ends when the proxy drops it
				return
			}
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
		}
	}
	backends = []*rawBackend{startBackend(t, serve), startBackend(t, serve)}
	return []string{backends[0].addr, backends[1].addr}, backends
}

func TestRetryOnAnAnswer(t *testing.T) {
	const bad503 = "HTTP/1.1 503 No\r\nX-Bad: yes\r\nContent-Length: 1000\r\n\r\npart of it"
	const bad404 = "HTTP/1.1 404 No\r\nX-Bad: yes\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nparts\r\n"
	for _, tt := range []struct {
		name   string
		on     RetryOn
		bad    string
		raw    string
		status int
	}{
		{"asked for", Retry503, bad503, getIt, 200},
		{"404 asked for", Retry404, bad404, getIt, 200},
		{"a body that is here", Retry503, bad503, putIt, 200},
		{"not asked for", Retry502 | RetryErrors, bad503, getIt, 503},
		{"not by default", 0, bad503, getIt, 503},
		{"not idempotent", Retry503, bad503, postIt, 503},
		{"not idempotent, but asked for", Retry503 | RetryNonIdempotent, bad503, postIt, 200},
		{"a body to come, of which part was sent", Retry503 | RetryNonIdempotent, bad503, "PUT / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 100000\r\n\r\nhello", 503},
		{"off", Retry503 | RetryOff, bad503, getIt, 503},
		{"not HTTP", RetryInvalidHeaders, "NONSENSE\r\n\r\n", getIt, 200},
		{"not HTTP, by default", 0, "NONSENSE\r\n\r\n", getIt, 502},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addrs, backends := failOnce(t, tt.bad)
			if tt.name == "a body to come, of which part was sent" {
				// The backend would wait for the body: it answers at once.
				for i := range backends {
					backends[i] = startBackend(t, func(c *upstreamConn) {
						c.r.ReadString('\n')
						c.send("HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
						c.gone()
					})
					addrs[i] = backends[i].addr
				}
			}
			f := setup{route: withPolicy(&Policy{Retry: Retry{On: tt.on}})}.start(t, addrs...)
			c := f.dial(t).send(tt.raw)
			method, _, _ := strings.Cut(tt.raw, " ")
			resp := c.head(method)
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if resp.StatusCode == 200 && resp.Header.Get("X-Bad") != "" {
				t.Error("a field of the answer that was dropped is in the other one")
			}
			c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close() // half closed it would go on waiting for the rest of the body
			want := 1
			if tt.status == 200 {
				want = 2
			}
			if e := f.log.await(t, 1)[0]; e.Tries != want {
				t.Errorf("%d tries, want %d", e.Tries, want)
			}
			counts := f.backend.Counts()
			if n := counts.Retries[RetriedStatus] + counts.Retries[RetriedInvalid]; int(n) != want-1 {
				t.Errorf("counted %d retries, want %d", n, want-1)
			}
		})
	}
}

// The head of the second answer comes in more than one piece.
func TestRetryReadsALongHead(t *testing.T) {
	t.Parallel()
	addrs, _ := failOnce(t, "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\npoor")
	long := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("l", 20<<10) + "\r\nContent-Length: 4\r\n\r\ngood")
		}
	})
	f := setup{route: withPolicy(&Policy{Retry: Retry{On: Retry503, Tries: 2}})}.start(t, addrs[0], long.addr)
	c := f.dial(t)
	for range 2 { // either backend may be the first
		if got := c.get("/", 200); got != "good" {
			t.Error(got)
		}
	}
}

func TestRetryTries(t *testing.T) {
	for tries, want := range map[int]int{0: 3, 1: 1, 2: 2, 5: 5, 100: maxTried} {
		var addrs []string
		for range 10 {
			addrs = append(addrs, startBackend(t, func(c *upstreamConn) {
				c.request()
				c.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
			}).addr)
		}
		f := setup{route: withPolicy(&Policy{Retry: Retry{On: Retry503, Tries: tries}})}.start(t, addrs...)
		if resp, _ := f.talk(t, getIt); resp.StatusCode != 503 {
			t.Errorf("status %d: the last answer is the answer", resp.StatusCode)
		}
		if e := f.log.await(t, 1)[0]; e.Tries != want {
			t.Errorf("%d tries of %d, want %d", e.Tries, tries, want)
		}
	}
}

// Endpoints that never answer take a read timeout each, but none begins after the time.
func TestRetryTimeout(t *testing.T) {
	hangs := func(c *upstreamConn) { c.request(); c.gone() }
	for timeout, tries := range map[time.Duration]int{0: 3, time.Millisecond: 1} {
		f := setup{
			pool:  engine.PoolConfig{ReadTimeout: 50 * time.Millisecond},
			route: withPolicy(&Policy{Retry: Retry{Timeout: timeout}}),
		}.start(t, startBackend(t, hangs).addr, startBackend(t, hangs).addr, startBackend(t, hangs).addr)
		if resp, _ := f.talk(t, getIt); resp.StatusCode != 504 {
			t.Errorf("status %d", resp.StatusCode)
		}
		if e := f.log.await(t, 1)[0]; e.Tries != tries {
			t.Errorf("timeout %v: %d tries, want %d", timeout, e.Tries, tries)
		}
	}
}

func TestRetryBudget(t *testing.T) {
	for _, tt := range []struct {
		percent, floor int
		inFlight       int64
		want           int // requests that may be under way again
	}{
		{20, 10, 0, 10},
		{20, 10, 40, 10},
		{20, 10, 100, 20},
		{20, 10, 1000, 200},
		{-1, 5, 1000, 5},
		{-1, -1, 1000, 0},
		{100, -1, 7, 7},
	} {
		b := backendAt(t, 1, 2)
		b.Endpoints()[0].inFlight.Store(tt.inFlight - tt.inFlight/3)
		b.Endpoints()[1].inFlight.Store(tt.inFlight / 3)
		got := 0
		for b.retry(tt.percent, tt.floor) {
			got++
		}
		if got != tt.want {
			t.Errorf("%d%% and %d of %d: %d, want %d", tt.percent, tt.floor, tt.inFlight, got, tt.want)
		}
		if n := b.retrying.Load(); int(n) != tt.want {
			t.Errorf("%d are counted after a refusal, want %d", n, tt.want)
		}
	}
}

// Without a budget, a backend that is down for all gets three times the requests.
func TestRetryBudgetBoundsTheLoad(t *testing.T) {
	refuses := func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
		}
	}
	for _, tt := range []struct{ floor, tries int }{{-1, 1}, {10, 3}} {
		f := setup{route: withPolicy(&Policy{Retry: Retry{On: Retry503, Budget: -1, BudgetFloor: tt.floor}})}.
			start(t, startBackend(t, refuses).addr, startBackend(t, refuses).addr, startBackend(t, refuses).addr)
		for range 5 {
			f.talk(t, getIt)
		}
		for _, e := range f.log.await(t, 5) {
			if e.Tries != tt.tries {
				t.Errorf("floor %d: %d tries, want %d", tt.floor, e.Tries, tt.tries)
			}
		}
		if n := f.backend.Counts().BudgetExhausted; (n == 5) != (tt.floor < 0) {
			t.Errorf("floor %d: budget exhausted %d times", tt.floor, n)
		}
		if n := f.backend.retrying.Load(); n != 0 {
			t.Errorf("%d retries are counted when all is over", n)
		}
	}
}

func TestRetryOnNames(t *testing.T) {
	for i, name := range retryNames {
		if on, ok := ParseRetryOn(name); !ok || on != 1<<i || on.String() != name {
			t.Errorf("%s: %v %v", name, on, ok)
		}
	}
	if _, ok := ParseRetryOn("http_418"); ok {
		t.Error("http_418 is a reason")
	}
}
