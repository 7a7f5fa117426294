package router

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/portico-ingress/portico/router/engine"
)

// The time of a request runs while it waits for room, too.
func TestARequestsTimeEndsInTheQueue(t *testing.T) {
	t.Parallel()
	h := startHolding(t)
	f := setup{route: withPolicy(&Policy{Limits: Limits{Connections: 1, Pending: 1, PendingTimeout: time.Hour}}), hosts: func(edit *Edit, route *Route) {
		patient := *route
		edit.Put(NewHost("patient.test", []*Route{&patient}, nil))
		route.Timeouts = engine.Timeouts{Total: short}
	}}.start(t, h.addr)
	first := f.dial(t).send("GET / HTTP/1.1\r\nHost: patient.test\r\n\r\n")
	eventually(t, "one is under way", func() bool { return h.now.Load() == 1 })
	if resp, _ := f.talk(t, getIt); resp.StatusCode != 504 {
		t.Errorf("status %d, want 504", resp.StatusCode)
	}
	h.release <- struct{}{}
	if resp, _ := first.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// A client that is slow to send a body that is taken first holds no place at the backend.
func TestABodyThatIsTakenFirstHoldsNoPlace(t *testing.T) {
	t.Parallel()
	b := startBackend(t, answerAll)
	f := setup{route: func(r *Route) {
		r.Policy = &Policy{Limits: Limits{Connections: 1, Requests: 1}}
		r.BufferBody = 1 << 20
	}}.start(t, b.addr)
	slow := f.dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 10\r\n\r\nhello")
	eventually(t, "the slow one is there", func() bool { return f.InFlight() == 1 })
	time.Sleep(short / 4)
	if resp, _ := f.talk(t, getIt); resp.StatusCode != 200 {
		t.Errorf("status %d, want 200", resp.StatusCode)
	}
	eventually(t, "its place is free", func() bool { return f.InFlight() == 1 })
	slow.send("again")
	if resp, _ := slow.answer("POST"); resp.StatusCode != 200 {
		t.Errorf("status %d, want 200", resp.StatusCode)
	}
}

// What a client says in a trailer section about who it is, and where, is not passed on
// either: some servers make fields of it.
func TestTrailersOfRequestsTellNoLies(t *testing.T) {
	names := []string{
		"ssl-client-verify", "ssl-client-subject-dn", "ssl-client-issuer-dn", "ssl-client-cert",
		"x-forwarded-client-cert", "x-original-url", "x-rewrite-url", "x_forwarded_for", "x-real-ip",
	}
	b := startBackend(t, answerAll)
	f := setup{h2c: true}.start(t, b.addr)
	fields := []string{"x-sum", "a_true_word"}
	raw := "POST / HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-sum: a_true_word\r\n"
	for _, name := range names {
		fields = append(fields, name, "a lie")
		raw += name + ": a lie\r\n"
	}
	f.dial(t).send(raw + "\r\n").answer("POST")
	c := f.rawH2(t)
	c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
	c.fr.WriteData(1, false, []byte("x"))
	c.head(1, true, fields...)
	c.answerHead(1)
	saw := strings.Join(b.saw(), "")
	if strings.Contains(saw, "a lie") || strings.Count(saw, "x-sum: a_true_word\r\n") != 2 {
		t.Errorf("the backend saw %q", saw)
	}
}

// One who has left while it waited in the queue does not get its turn, and those behind it do.
func TestOneWhoLeftTheQueueIsNotSent(t *testing.T) {
	t.Parallel()
	leave := map[string]func(f *front) (leave func()){
		"torn down": func(f *front) func() {
			c := f.dial(t).send("GET /left HTTP/1.1\r\nHost: h.test\r\n\r\n")
			return func() { c.Conn.(*net.TCPConn).SetLinger(0); c.Close() }
		},
		"reset stream": func(f *front) func() {
			c := f.rawH2(t)
			c.request(1, "/left")
			return func() { c.fr.WriteRSTStream(1, http2.ErrCodeCancel); c.ping() }
		},
	}
	for how, ask := range leave {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			h := startHolding(t)
			f := setup{h2c: true, route: withPolicy(&Policy{Limits: Limits{Connections: 1, Pending: 2, PendingTimeout: patience}})}.start(t, h.addr)
			first := f.dial(t).send(getIt)
			eventually(t, "one is under way", func() bool { return h.now.Load() == 1 })
			leave := ask(f)
			eventually(t, "one waits", func() bool { return f.backend.Counts().Pending == 1 })
			last := f.dial(t).send("GET /last HTTP/1.1\r\nHost: h.test\r\n\r\n")
			eventually(t, "two wait", func() bool { return f.backend.Counts().Pending == 2 })
			leave()
			close(h.release)
			first.answer("GET")
			if resp, _ := last.answer("GET"); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			if saw := strings.Join(h.saw(), ""); strings.Contains(saw, "/left") {
				t.Error("the backend has a request whose client had left")
			}
			if n := f.backend.Counts().Rejected[RejectedGone]; n != 1 {
				t.Errorf("%d counted as gone, want 1", n)
			}
		})
	}
}

// The queue is left at once by those whose clients leave, whose turn need not come for that.
func TestALeavingClientLeavesTheQueue(t *testing.T) {
	t.Parallel()
	h := startHolding(t)
	f := setup{route: withPolicy(&Policy{Limits: Limits{Connections: 1, Pending: 1, PendingTimeout: time.Hour}})}.start(t, h.addr)
	first := f.dial(t).send(getIt)
	eventually(t, "one is under way", func() bool { return h.now.Load() == 1 })
	defer close(h.release) // or it would wait for ever where this fails
	const all = 20         // looked at once a second, they would need more time than there is
	for range all {
		c := f.dial(t).send(getIt)
		eventually(t, "one waits", func() bool { return f.backend.Counts().Pending == 1 })
		c.Close() // which says no more than that nothing more is going to be sent
		eventually(t, "none waits", func() bool { return f.backend.Counts().Pending == 0 })
	}
	if n := f.backend.Counts().Rejected[RejectedGone]; n != all {
		t.Errorf("%d counted as gone, want %d", n, all)
	}
	h.release <- struct{}{}
	first.answer("GET")
}
