package router

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// naming answers every request with the name of the backend that got it.
func naming(name string) func(c *upstreamConn) {
	return func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(name), name))
		}
	}
}

func withPolicy(p *Policy) func(*Route) { return func(r *Route) { r.Policy = p } }

func startNaming(t *testing.T, n int) []string {
	t.Helper()
	var addrs []string
	for i := range n {
		addrs = append(addrs, startBackend(t, naming(fmt.Sprint("b", i))).addr)
	}
	return addrs
}

// visit asks once, with a cookie if there is one, and gives the backend and the new cookie.
func (f *front) visit(t *testing.T, cookie string) (backend string, set *http.Cookie) {
	t.Helper()
	head := "GET / HTTP/1.1\r\nHost: h.test\r\n"
	if cookie != "" {
		head += "Cookie: a=b; " + cookie + "; c=d\r\n"
	}
	resp, body := f.talk(t, head+"\r\n")
	if resp.StatusCode != 200 {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	if all := resp.Cookies(); len(all) > 0 {
		set = all[0]
	}
	return body, set
}

func TestSticky(t *testing.T) {
	for _, mode := range []StickyMode{StickyBalanced, StickyPersistent} {
		t.Run(mode.String(), func(t *testing.T) {
			policy := &Policy{Sticky: Sticky{Mode: mode, Cookie: "SID"}}
			addrs := startNaming(t, 4)
			f := setup{route: withPolicy(policy)}.start(t, addrs...)
			seen := map[string]bool{}
			for range 12 {
				backend, set := f.visit(t, "")
				if set == nil || set.Name != "SID" || !set.HttpOnly || set.Secure || set.Path != "/" {
					t.Fatalf("cookie %+v", set)
				}
				if len(set.Value) != 32 || !isHex([]byte(set.Value)) {
					t.Errorf("cookie %q", set.Value)
				}
				seen[backend] = true
				for range 3 {
					again, another := f.visit(t, "SID="+set.Value)
					if again != backend || another != nil {
						t.Errorf("%s, then %s and cookie %v", backend, again, another)
					}
				}
			}
			if len(seen) != 4 {
				t.Errorf("12 clients are at %d of 4 backends: new ones go in turn", len(seen))
			}
			for _, bad := range []string{"", "x", strings.Repeat("z", 32), strings.Repeat("é", 16), addrs[0], strings.Repeat("0", 33)} {
				if _, set := f.visit(t, "SID="+bad); set == nil {
					t.Errorf("%q leads somewhere", bad)
				}
			}
		})
	}
}

// A persistent cookie is good at every replica that knows the Pods' UIDs, only there, and
// only for the backend it is from.
func TestPersistentSessionsAreOfOneBackendAndPod(t *testing.T) {
	sessionOf := func(name, id string) (*Backend, sessionID) {
		r := NewBackends(BackendsConfig{})
		r.SetTargets(name, []Target{{Address: addressAt(1), ID: id}, {Address: addressAt(2), ID: id + "x"}})
		b := r.Get(name)
		return b, b.list.Load().sessionFor(name, StickyPersistent, b.Endpoints()[1])
	}
	a, id := sessionOf("ns/a:80", "uid")
	if a.list.Load().getSessions("ns/a:80")[id] != a.Endpoints()[1] {
		t.Error("it does not lead to its endpoint")
	}
	if _, same := sessionOf("ns/a:80", "uid"); same != id {
		t.Error("another replica has another cookie")
	}
	for _, other := range [][2]string{{"ns/b:80", "uid"}, {"ns/a:80", "other"}} {
		b, is := sessionOf(other[0], other[1])
		if is == id || b.list.Load().getSessions(other[0])[id] != nil {
			t.Errorf("it leads to an endpoint of %v", other)
		}
	}
}

func TestStickyWhileEndpointsChange(t *testing.T) {
	for _, mode := range []StickyMode{StickyBalanced, StickyPersistent} {
		t.Run(mode.String(), func(t *testing.T) {
			r := NewBackends(BackendsConfig{})
			r.SetTargets("b", targetsAt(1, 2, 3, 4))
			b, p := r.Get("b"), &Policy{Sticky: Sticky{Mode: mode, Cookie: "c"}}
			type client struct {
				session
				at byte
			}
			var clients []client
			for i := range 400 {
				e := b.Endpoints()[i%4]
				clients = append(clients, client{session{id: b.list.Load().sessionFor("b", mode, e)}, e.Address().Addr().As4()[3]})
			}
			resume := func(c client) byte {
				s := c.session
				if mode == StickyPersistent {
					s.home = b.list.Load().getSessions("b")[s.id]
				} else {
					s.home = b.list.Load().getRing().owner(s.key())
				}
				if s.known = s.home != nil; !s.known {
					return 0
				}
				return b.choose(&query{policy: p, session: &s}).Address().Addr().As4()[3]
			}
			for _, c := range clients {
				if at := resume(c); at != c.at {
					t.Fatalf("a session for %d leads to %d", c.at, at)
				}
			}
			// One fails: its clients have one other place each, and return.
			b.Endpoints()[2].Fail(time.Now().Add(time.Hour))
			for _, c := range clients {
				switch at := resume(c); {
				case c.at == 3 && (at == 3 || at != resume(c)):
					t.Fatalf("a client of the one that is down is at %d, then %d", at, resume(c))
				case c.at != 3 && at != c.at:
					t.Fatalf("a client of %d is at %d", c.at, at)
				}
			}
			b.Endpoints()[2].out.Store(0)
			// One goes, one comes.
			r.SetTargets("b", targetsAt(1, 2, 3, 5))
			moved, taken := 0, 0
			for _, c := range clients {
				switch at := resume(c); {
				case c.at == 4:
				case at == 5:
					taken++
				case at != c.at:
					moved++
				}
			}
			if moved != 0 {
				t.Errorf("%d clients moved between endpoints that stayed", moved)
			}
			if mode == StickyPersistent && taken != 0 {
				t.Errorf("the new endpoint took %d clients of others", taken)
			}
			if mode == StickyBalanced {
				within(t, "clients the new endpoint took", taken, 20, 140)
			}
		})
	}
}

func TestStickyChangeOnFailure(t *testing.T) {
	for _, change := range []bool{false, true} {
		t.Run(fmt.Sprint(change), func(t *testing.T) {
			policy := &Policy{Sticky: Sticky{Mode: StickyPersistent, Cookie: "SID", ChangeOnFailure: change}}
			f := setup{route: withPolicy(policy)}.start(t, startNaming(t, 2)...)
			backend, set := f.visit(t, "")
			for _, e := range f.backend.Endpoints() {
				if persistentID(f.backend.name, e) == sessionID([]byte(set.Value)) {
					e.setHealthy(false)
				}
			}
			other, again := f.visit(t, "SID="+set.Value)
			if other == backend || (again != nil) != change {
				t.Errorf("was at %s, now at %s with cookie %v", backend, other, again)
			}
			for _, e := range f.backend.Endpoints() {
				e.setHealthy(true)
			}
			if change {
				set = again
			}
			if back, _ := f.visit(t, "SID="+set.Value); (back == backend) == change {
				t.Errorf("was at %s, in the end at %s", backend, back)
			}
		})
	}
}

func TestStickyCookie(t *testing.T) {
	id := sessionID([]byte(strings.Repeat("0a", 16)))
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600))
	for _, tt := range []struct {
		sticky Sticky
		path   string
		tls    bool
		want   string
	}{
		{Sticky{Cookie: "INGRESSCOOKIE"}, "/something", false, "INGRESSCOOKIE=ID; Path=/something; HttpOnly"},
		{Sticky{Cookie: "S"}, "/", true, "S=ID; Path=/; Secure; HttpOnly"},
		{
			Sticky{Cookie: "S", Path: "/foo/bar", Domain: "foo.bar", MaxAge: time.Hour, Expires: 2 * time.Hour, SameSite: "Lax", Secure: true},
			"/x", false,
			"S=ID; Expires=Tue, 03 Feb 2026 05:05:06 GMT; Max-Age=3600; Domain=foo.bar; Path=/foo/bar; Secure; HttpOnly; SameSite=Lax",
		},
		{Sticky{Cookie: "S"}, "/a;b/c", false, "S=ID; Path=/; HttpOnly"},
		{Sticky{Cookie: "S"}, "/a/b;Domain=evil", false, "S=ID; Path=/a/; HttpOnly"},
	} {
		got := string(tt.sticky.appendCookie(nil, &id, tt.path, tt.tls, now))
		if want := strings.ReplaceAll(tt.want, "ID", string(id[:])); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestHashBy(t *testing.T) {
	hash := func(parts ...HashPart) *Policy {
		var h HashBy
		copy(h[:], parts)
		return &Policy{Balance: ConsistentHash, HashBy: h}
	}
	for _, tt := range []struct {
		policy            *Policy
		a, same, other, n string // requests; n has no key
	}{
		{hash(HashPart{HashHeader, "x-user"}), "GET /a HTTP/1.1\r\nX-User: 1", "GET /b HTTP/1.1\r\nx-user: 1", "GET /a HTTP/1.1\r\nX-User: %d", "GET /a HTTP/1.1"},
		{hash(HashPart{HashCookie, "u"}), "GET /a HTTP/1.1\r\nCookie: u=1; v=2", "GET /b HTTP/1.1\r\nCookie: v=3;u=1", "GET /a HTTP/1.1\r\nCookie: uu=1; u=%d", "GET /a HTTP/1.1\r\nCookie: uu=1"},
		{hash(HashPart{HashURI, ""}), "GET /a?x=1 HTTP/1.1", "GET /b/../a?x=1 HTTP/1.1", "GET /a?x=%d HTTP/1.1", ""},
		{hash(HashPart{HashPath, ""}), "GET /a?x=1 HTTP/1.1", "GET /a?x=2 HTTP/1.1", "GET /a/%d HTTP/1.1", ""},
		{hash(HashPart{HashArgument, "id"}), "GET /a?id=1&x=2 HTTP/1.1", "GET /b?y=3&id=1 HTTP/1.1", "GET /a?id=%d HTTP/1.1", "GET /a?di=1 HTTP/1.1"},
		{hash(HashPart{HashHost, ""}, HashPart{HashHeader, "x-user"}), "GET /a HTTP/1.1\r\nX-User: 1", "GET /b HTTP/1.1\r\nX-User: 1", "GET /a HTTP/1.1\r\nX-User: %d", ""},
	} {
		t.Run(tt.policy.String(), func(t *testing.T) {
			t.Parallel()
			f := setup{route: withPolicy(tt.policy)}.start(t, startNaming(t, 5)...)
			ask := func(raw string) string {
				_, body := f.talk(t, raw+"\r\nHost: h.test\r\n\r\n")
				return body
			}
			home := ask(tt.a)
			for range 3 {
				if got := ask(tt.a); got != home {
					t.Errorf("%s, then %s", home, got)
				}
				if got := ask(tt.same); got != home {
					t.Errorf("%s, then %s for the same key", home, got)
				}
			}
			others := map[string]bool{}
			for i := range 40 {
				others[ask(fmt.Sprintf(tt.other, i+2))] = true
			}
			if len(others) < 3 {
				t.Errorf("40 other keys go to %d of 5", len(others))
			}
			if tt.n != "" {
				none := map[string]bool{}
				for range 5 {
					none[ask(tt.n)] = true
				}
				if len(none) != 5 {
					t.Errorf("5 requests without a key go to %d of 5", len(none))
				}
			}
		})
	}
	t.Run("client", func(t *testing.T) {
		f := setup{route: withPolicy(hash(HashPart{HashClient, ""}))}.start(t, startNaming(t, 5)...)
		seen := map[string]bool{}
		for i := range 10 {
			_, body := f.talk(t, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h.test\r\nX-Forwarded-For: 10.0.0.%d\r\n\r\n", i, i))
			seen[body] = true
		}
		if len(seen) != 1 {
			t.Errorf("one client is at %d endpoints", len(seen))
		}
	})
}

func FuzzCookieOf(f *testing.F) {
	f.Add("a=b; SID=x;c", "SID")
	f.Add("SID", "SID")
	f.Add(";;=;SID==", "SID")
	f.Fuzz(func(t *testing.T, line, name string) {
		value := cookieIn([]byte(line), name)
		if value != nil && !strings.Contains(line, name+"="+string(value)) {
			t.Errorf("%q has no cookie %q of value %q", line, name, value)
		}
	})
}
