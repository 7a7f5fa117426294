package router

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/portico-ingress/portico/router/engine"
)

// Sticky keeps a client at the endpoint that answered it first, by a cookie. What the cookie
// says has a meaning only among the endpoints of the backend that the route leads to, and it
// tells no address.
type Sticky struct {
	Mode StickyMode
	// Cookie is the name of the cookie.
	Cookie string
	// Path of the cookie; "" is that of the route.
	Path string
	// Domain of the cookie; "" is the host that was asked, and no other.
	Domain string
	// MaxAge and Expires are how long it is kept; 0: to the end of the browser's session.
	MaxAge, Expires time.Duration
	// SameSite is "Strict", "Lax", "None", or "": not said.
	SameSite string
	// Secure marks the cookie for https alone even where the request came without TLS.
	Secure bool
	// ChangeOnFailure binds the client to the endpoint that stood in for one that failed.
	// Otherwise it goes back to its own when that is up again.
	ChangeOnFailure bool
}

// StickyMode says what becomes of clients when endpoints come.
type StickyMode uint8

const (
	// StickyOff needs no cookie.
	StickyOff StickyMode = iota
	// StickyBalanced gives endpoints that come their share of the clients: the cookie is a
	// key on the ring of ConsistentHash.
	StickyBalanced
	// StickyPersistent leaves clients where they are until their endpoint goes: the cookie
	// names it.
	StickyPersistent
)

var stickyNames = [...]string{"off", "balanced", "persistent"}

// String is the word people write.
func (m StickyMode) String() string { return stickyNames[m] }

// String tells the mode, the cookie, and what else is not the default.
func (s Sticky) String() string {
	words := []string{s.Cookie}
	add := func(set bool, format string, args ...any) {
		if set {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(s.Path != "", "path=%s", s.Path)
	add(s.Domain != "", "domain=%s", s.Domain)
	add(s.MaxAge > 0, "max-age=%s", s.MaxAge)
	add(s.Expires > 0, "expires=%s", s.Expires)
	add(s.SameSite != "", "samesite=%s", s.SameSite)
	add(s.Secure, "secure")
	add(s.ChangeOnFailure, "change-on-failure")
	return s.Mode.String() + "(" + strings.Join(words, ",") + ")"
}

// sessionID is the value of a sticky cookie: 128 bits in hexadecimal digits.
type sessionID [32]byte

// session is what a request says about where it belongs.
type session struct {
	id    sessionID
	known bool // the cookie leads somewhere
	// home is the endpoint it leads to.
	home *Endpoint
}

// sessions are the endpoints of a list by their persistent session IDs.
type sessions map[sessionID]*Endpoint

// getSessions makes the index on first use.
func (l *endpointList) getSessions(backend string) sessions {
	if s := l.sessions.Load(); s != nil {
		return *s
	}
	s := make(sessions, len(l.endpoints))
	for _, e := range l.endpoints {
		s[persistentID(backend, e)] = e
	}
	l.sessions.CompareAndSwap(nil, &s)
	return *l.sessions.Load()
}

// processSecret stands in for the ID of endpoints that have none.
var processSecret = rand.Text()

// persistentID names an endpoint of a backend. The Pod's UID is in it, which clients cannot
// guess and other replicas know: without it nobody can find the address by trying all.
func persistentID(backend string, e *Endpoint) (id sessionID) {
	t := e.target.Load()
	secret := t.ID
	if secret == "" {
		secret = processSecret
	}
	var raw [256]byte
	b := append(append(raw[:0], "portico session\x00"...), backend...)
	b = append(append(append(b, 0), secret...), 0)
	b = t.Address.AppendTo(b)
	sum := sha256.Sum256(b)
	hex.Encode(id[:], sum[:len(id)/2])
	return id
}

// session reads the cookie of a request.
func (l *endpointList) session(backend string, p *Sticky, f *engine.Fields) (s session) {
	value := cookieOf(f, p.Cookie)
	if len(value) != len(s.id) || len(l.endpoints) == 0 {
		return s
	}
	copy(s.id[:], value)
	if p.Mode == StickyPersistent {
		s.home = l.getSessions(backend)[s.id]
	} else if isHex(value) {
		s.home = l.getRing().owner(s.key())
	}
	s.known = s.home != nil
	return s
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// key is the place of the session on the ring.
func (s *session) key() uint64 { return xxhash.Sum64(s.id[:]) }

// resume chooses for a request that has a session: its home, and while that is out always
// the same other one. Fresh endpoints have no slow start here, and busy ones no bound.
func (l *endpointList) resume(q *query, s *session) *Endpoint {
	q.settled = true
	if q.takes(s.home) {
		return s.home
	}
	q.key, q.keyed = s.key(), true
	return l.byHash(q, false)
}

// sessionFor makes an ID that leads to e.
func (l *endpointList) sessionFor(backend string, mode StickyMode, e *Endpoint) sessionID {
	if mode == StickyPersistent {
		return persistentID(backend, e)
	}
	var s session
	r := l.getRing()
	// Of random keys, one of as many as there are endpoints is right.
	for range 64 * (len(l.endpoints) + 1) {
		var raw [16]byte
		high, low := mathrand.Uint64(), mathrand.Uint64() // a place among endpoints, and no secret
		for i := range 8 {
			raw[i], raw[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
		}
		hex.Encode(s.id[:], raw[:])
		if len(r.points) == 0 || r.owner(s.key()) == e {
			break
		}
	}
	return s.id
}

// appendCookie writes the value of Set-Cookie (RFC 6265 section 4.1).
func (s *Sticky) appendCookie(b []byte, id *sessionID, path string, secure bool, now time.Time) []byte {
	b = append(append(append(b, s.Cookie...), '='), id[:]...)
	if s.Expires > 0 {
		b = append(b, "; Expires="...)
		b = now.Add(s.Expires).UTC().AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 GMT")
	}
	if s.MaxAge > 0 {
		b = append(b, "; Max-Age="...)
		b = strconv.AppendInt(b, int64(s.MaxAge/time.Second), 10)
	}
	if s.Domain != "" {
		b = append(append(b, "; Domain="...), s.Domain...)
	}
	if s.Path != "" {
		path = s.Path
	}
	b = append(append(b, "; Path="...), cookiePath(path)...)
	if s.Secure || secure {
		b = append(b, "; Secure"...)
	}
	b = append(b, "; HttpOnly"...)
	if s.SameSite != "" {
		b = append(append(b, "; SameSite="...), s.SameSite...)
	}
	return b
}

// cookiePath is the part of a path that can stand in a cookie: a semicolon would end it.
func cookiePath(path string) string {
	if i := strings.IndexByte(path, ';'); i >= 0 {
		path = path[:strings.LastIndexByte(path[:i], '/')+1]
	}
	if path == "" {
		return "/"
	}
	return path
}
