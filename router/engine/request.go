package engine

import (
	"bytes"
	"errors"
	"slices"
)

// Version is an HTTP version, major*10 + minor.
type Version uint8

// The versions the engine speaks.
const (
	HTTP10 Version = 10
	HTTP11 Version = 11
	HTTP20 Version = 20
)

// String gives the version as in a request line.
func (v Version) String() string {
	switch v {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP20:
		return "HTTP/2.0"
	}
	return "HTTP/1.1"
}

// Request is the head of a request. All of it lies in the buffer it was read into and is
// valid until the exchange is done.
type Request struct {
	// Method as received; it is case-sensitive.
	Method []byte
	// Target as received, in whichever form (RFC 9112 section 3.2).
	Target []byte
	// Path in the normal form of NormalizePath, or "*". Matching, filters and logs use it,
	// and it is what goes to the upstream.
	Path []byte
	// Query without its question mark, as received.
	Query []byte
	// HasQuery tells "/?" from "/".
	HasQuery bool
	// Authority is the host and port the client asked for, as received: the Host field, or
	// what an absolute target says. Empty for an HTTP/1.0 request without Host.
	Authority []byte
	// Host is Authority in lower case without port, trailing dot and brackets, in punycode.
	Host []byte
	// Port is the digits of the port in Authority, or empty.
	Port []byte
	// Version of the request line.
	Version Version
	// Fields are the header fields.
	Fields Fields
	// ContentLength of the body in bytes; -1 if only its end will tell.
	ContentLength int64

	protocol     []byte // of an extended CONNECT (RFC 8441)
	webSocketKey []byte // that we have made for it

	framing   framing
	keepAlive bool   // the client wants the connection to go on
	upgrade   bool   // a protocol change is asked for and may be passed on
	expects   bool   // Expect: 100-continue
	trailers  bool   // TE: trailers
	last      bool   // Max-Forwards lets it go no further
	scratch   []byte // for Path, Host and Upgrade where they differ from what came
}

func (r *Request) reset() {
	fields, scratch := r.Fields, r.scratch[:0]
	fields.Reset()
	if cap(scratch) > maxScratch {
		scratch = nil
	}
	*r = Request{Fields: fields, scratch: scratch}
}

// IsMethod compares the method.
func (r *Request) IsMethod(method string) bool { return string(r.Method) == method }

// isIdempotent reports the methods that may be sent twice (RFC 9110 section 9.2.2).
func (r *Request) isIdempotent() bool {
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}

// parse reads a complete head: request line, field lines, empty line. On a refusal, what
// had been read by then is there for the log.
func (r *Request) parse(head []byte, limits *Limits) *Refusal {
	eol := bytes.IndexByte(head, '\n')
	if refusal := r.parseLine(head[:eol-1], limits); refusal != nil {
		return refusal
	}
	if err := parseFieldLines(head[eol+1:len(head)-2], &r.Fields, limits.MaxFields); err != nil {
		if errors.Is(err, errTooManyFields) {
			return &Refusal{Status: 431, Reason: err.Error()}
		}
		return badRequest(err.Error())
	}
	if refusal := r.parseTarget(); refusal != nil {
		return refusal
	}
	if refusal := r.parseFraming(); refusal != nil {
		return refusal
	}
	if refusal := r.readConnection(); refusal != nil {
		return refusal
	}
	return r.countForwards()
}

// parseLine parses method SP target SP version (RFC 9112 section 3), without leniency.
func (r *Request) parseLine(line []byte, limits *Limits) *Refusal {
	i := 0
	for i < len(line) && isTokenByte[line[i]] {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ' ' {
		return badRequest("malformed method")
	}
	if i > maxMethod {
		return &Refusal{Status: 501, Reason: "method longer than any known"}
	}
	r.Method = line[:i]
	rest := line[i+1:]
	sp := bytes.IndexByte(rest, ' ')
	if sp <= 0 {
		return badRequest("malformed request line")
	}
	r.Target = rest[:sp]
	switch version := rest[sp+1:]; {
	case string(version) == "HTTP/1.1":
		r.Version = HTTP11
	case string(version) == "HTTP/1.0":
		r.Version = HTTP10
	case isVersion(version):
		return &Refusal{Status: 505, Reason: "HTTP version not supported"}
	case bytes.HasPrefix(version, httpSlash):
		return badRequest("malformed HTTP version")
	default:
		return errNotHTTP
	}
	if len(r.Target) > limits.MaxTarget {
		return &Refusal{Status: 414, Reason: "target longer than the limit"}
	}
	return nil
}

var httpSlash = []byte("HTTP/")

// maxMethod is well above the longest registered method (UPDATEREDIRECTREF).
const maxMethod = 32

func isVersion(b []byte) bool {
	return len(b) == len("HTTP/1.1") && string(b[:5]) == "HTTP/" && b[6] == '.' &&
		'0' <= b[5] && b[5] <= '9' && '0' <= b[7] && b[7] <= '9'
}

// parseTarget sorts out the four forms of a target and agrees it with the Host field.
func (r *Request) parseTarget() *Refusal {
	hosts := 0
	for i := range r.Fields.list {
		if f := &r.Fields.list[i]; f.ID == Host {
			hosts++
			r.Authority = f.Value
		}
	}
	switch {
	case hosts > 1:
		return badRequest("several Host fields")
	case hosts == 0 && r.Version != HTTP10:
		return badRequest("no Host field")
	}
	if len(r.Authority) > 0 || hosts > 0 {
		if err := r.parseHost(); err != nil {
			return badRequest(err.Error())
		}
	}
	switch t := r.Target; {
	case string(r.Method) == "CONNECT":
		return &Refusal{Status: 405, Reason: "CONNECT is not supported"}
	case string(r.Method) == "TRACE":
		return &Refusal{Status: 405, Reason: "TRACE is not supported"}
	case t[0] == '/':
		return r.parsePath(t)
	case len(t) == 1 && t[0] == '*':
		if !r.IsMethod("OPTIONS") {
			return badRequest("asterisk target with a method other than OPTIONS")
		}
		r.Path = t
		return nil
	default:
		return r.parseAbsolute(t)
	}
}

func (r *Request) parseHost() error {
	r.growScratch(len(r.Authority))
	host, port, err := parseAuthority(r.scratch, r.Authority)
	if err != nil {
		return err
	}
	r.Host, r.Port = host, port
	r.keepScratch(host)
	if !isASCII(r.Authority) {
		r.spellHost()
	}
	return nil
}

// spellHost writes a host that came in UTF-8 in punycode: the upstream must see the name
// that was matched, and a Host field is ASCII (RFC 3986 section 3.2.2).
func (r *Request) spellHost() {
	r.Authority = slices.Clone(r.Host)
	if len(r.Port) > 0 {
		r.Authority = append(append(r.Authority, ':'), r.Port...)
	}
	for i := range r.Fields.list {
		if f := &r.Fields.list[i]; f.ID == Host {
			f.Value = r.Authority
		}
	}
}

// growScratch makes room for n bytes more. What was kept before goes on lying in the old
// memory.
func (r *Request) growScratch(n int) {
	if cap(r.scratch)-len(r.scratch) < n {
		r.scratch = make([]byte, 0, max(n, minScratch))
	}
}

// minScratch is enough for most, maxScratch what is kept for the next request.
const (
	minScratch = 512
	maxScratch = 4 << 10
)

// keepScratch moves the start of free scratch behind what was appended to it.
func (r *Request) keepScratch(used []byte) {
	n := len(r.scratch)
	if cap(r.scratch) > n && len(used) > 0 && &r.scratch[:n+1][n] == &used[0] {
		r.scratch = r.scratch[:n+len(used)]
	}
}

// parseAbsolute reads scheme "://" authority path-abempty [ "?" query ]. It has to name
// the host that the Host field names.
func (r *Request) parseAbsolute(t []byte) *Refusal {
	var rest []byte
	switch {
	case len(t) > 7 && equalFold(t[:7], "http://"):
		rest = t[7:]
	case len(t) > 8 && equalFold(t[:8], "https://"):
		rest = t[8:]
	default:
		return badRequest("target is neither a path nor an http URI")
	}
	end := 0
	for end < len(rest) && rest[end] != '/' && rest[end] != '?' && rest[end] != '#' {
		end++
	}
	authority, path := rest[:end], rest[end:]
	if len(r.Authority) > 0 && !equalFoldBytes(authority, r.Authority) {
		return badRequest("absolute target and Host field disagree")
	}
	if len(r.Authority) == 0 {
		r.Authority = authority
		if err := r.parseHost(); err != nil {
			return badRequest(err.Error())
		}
	}
	switch {
	case len(path) > 0:
	case r.IsMethod("OPTIONS"): // RFC 9112 section 3.2.4
		r.Path = asterisk
		return nil
	default:
		path = slash
	}
	if path[0] == '?' { // an empty path is a slash (RFC 9110 section 4.2.3)
		r.Path = slash
		return r.parseQuery(path[1:])
	}
	return r.parsePath(path)
}

var slash, asterisk = []byte("/"), []byte("*")

func (r *Request) parsePath(t []byte) *Refusal {
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		if refusal := r.parseQuery(t[i+1:]); refusal != nil {
			return refusal
		}
		t = t[:i]
	}
	if bytes.IndexByte(t, '#') >= 0 {
		return badRequest("fragment in the target")
	}
	if isNormalPath(t) && t[0] == '/' {
		r.Path = t
		return nil
	}
	r.growScratch(3 * len(t)) // all of it may become escapes
	path, err := NormalizePath(r.scratch, t)
	if err != nil {
		return badRequest(err.Error())
	}
	r.Path = path
	r.keepScratch(path)
	return nil
}

func (r *Request) parseQuery(q []byte) *Refusal {
	for _, c := range q {
		if c <= ' ' || c == 0x7f || c == '#' {
			return badRequest("control character or fragment in the query")
		}
	}
	r.Query, r.HasQuery = q, true
	return nil
}

func (r *Request) parseFraming() *Refusal {
	kind, length, err := messageFraming(&r.Fields)
	if err != nil {
		return badRequest(err.Error())
	}
	if kind == byChunks && r.Version == HTTP10 {
		return badRequest("Transfer-Encoding in an HTTP/1.0 request")
	}
	if kind == byLength && length == 0 {
		kind = noBody
	}
	r.framing, r.ContentLength = kind, length
	return nil
}

// readConnection reads the fields that concern the connection, and drops those that must
// not travel on.
func (r *Request) readConnection() *Refusal {
	r.keepAlive = r.Version == HTTP11
	var upgrade []byte
	wantsUpgrade, http2, closes, expecting := false, false, false, false
	for i := range r.Fields.list {
		f := &r.Fields.list[i]
		switch f.ID {
		case Connection:
			for token := range tokens(f.Value) {
				switch {
				case equalFold(token, "close"):
					closes = true
				case equalFold(token, "keep-alive"):
					r.keepAlive = true
				case equalFold(token, "upgrade"):
					wantsUpgrade = true
				}
			}
		case Upgrade:
			if upgrade != nil || !mayUpgradeTo(f.Value) {
				http2 = true
			}
			upgrade = f.Value
		case HTTP2Settings:
			http2 = true
		case Expect:
			if expecting || !equalFold(f.Value, "100-continue") {
				return errExpectation
			}
			expecting = true
			r.expects = r.Version == HTTP11 && r.framing != noBody
			f.dropped = !r.expects
		case TE:
			r.trailers = r.trailers || hasToken(f.Value, "trailers")
		}
	}
	r.keepAlive = r.keepAlive && !closes
	// An upgrade to HTTP/2 would carry requests past all checks (RFC 9113 section 3.1
	// deprecates it); one with a body is a kind nobody uses.
	r.upgrade = wantsUpgrade && upgrade != nil && !http2 && r.framing == noBody && r.Version == HTTP11
	if err := r.dropFields(); err != nil {
		return badRequest(err.Error())
	}
	if r.upgrade {
		r.Fields.Add(Upgrade, upgrade)
	}
	return nil
}

// mayUpgradeTo reports whether a tunnel may be made for all of these protocols: not for
// one in which further requests would travel past the proxy, as HTTP/2 or TLS.
func mayUpgradeTo(protocols []byte) bool {
	named := false
	for p := range tokens(protocols) {
		named = true
		name, _, _ := bytes.Cut(p, slash)
		if !isToken(name) || equalFold(name, "h2c") || equalFold(name, "h2") ||
			equalFold(name, "http") || equalFold(name, "tls") {
			return false
		}
	}
	return named
}

// sound reports whether the request line can be written. What came from the client can
// be; a filter may have put something else in its place.
func (r *Request) sound() bool {
	return isToken(r.Method) && len(r.Path) > 0 && r.Path[0] == '/' &&
		isVisible(r.Path) && isVisible(r.Query) && isVisible(r.Authority)
}

// dropFields removes what the upstream must not see: hop-by-hop fields, framing (it is
// written anew), Proxy (it becomes HTTP_PROXY in CGI programs), and names with an
// underscore, which CGI and WSGI cannot tell from the dashed name that the proxy sets.
func (r *Request) dropFields() error {
	if err := r.Fields.dropHopByHop(mayTrailRequest); err != nil {
		return err
	}
	for i := range r.Fields.list {
		f := &r.Fields.list[i]
		switch f.ID {
		case ContentLength, Proxy:
			f.dropped = true
		case 0:
			if bytes.IndexByte(f.Name, '_') >= 0 {
				f.dropped = true
			}
		}
	}
	return nil
}
