package engine

import (
	"bytes"
	"slices"
)

// allowedTrailer checks a trailer section and returns the lines of it that may be passed
// on: well-formed ones that say nothing about framing, routing, authority or the
// connection (RFC 9110 section 6.5.1). A malformed section spoils its message.
func (b *body) allowedTrailer(mayTrail func(FieldID, []byte) bool) ([]byte, error) {
	if len(b.trailer) == 0 {
		return nil, nil
	}
	section, fields := b.trailer, &b.fields
	fields.Reset()
	defer fields.Reset()
	if err := parseFieldLines(section, fields, maxTrailerFields); err != nil {
		return nil, err
	}
	if err := fields.dropHopByHop(mayTrail); err != nil {
		return nil, err
	}
	for i := range fields.list {
		f := &fields.list[i]
		f.dropped = f.dropped || !mayTrail(f.ID, f.Name)
	}
	b.allowed = fields.appendTo(b.allowed[:0])
	return b.allowed, nil
}

const maxTrailerFields = 100

// untrailed and forbiddenTrailers are the names that no trailer section passes on.
var (
	untrailed = SetOf(
		Connection, KeepAlive, ProxyConnection, TE, TransferEncoding, Upgrade, HTTP2Settings,
		ContentLength, Host, Trailer, Expect, ContentType, Proxy, Forwarded, Location,
		XForwardedFor, XForwardedHost, XForwardedPort, XForwardedPrefix, XForwardedProto,
		XForwardedScheme, XForwardedServer, XForwardedSSL, XOriginalForwardedFor,
		XRealIP, XRequestID, XScheme, XOriginalURL, XRewriteURL,
		SSLClientCert, SSLClientIssuerDN, SSLClientSubjectDN, SSLClientVerify, XForwardedClientCert,
	)
	forbiddenTrailers = []string{
		"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "Content-Encoding",
		"Content-Range", "Cache-Control", "Max-Forwards", "Range",
		"WWW-Authenticate", "Proxy-Authenticate",
	}
	// In requests, more that a server that merges the section into the header would believe: what
	// makes a request conditional, and what controls caches and answers. An answer may have some of
	// them: trailing metadata of gRPC has any name, and nobody decides by it.
	forbiddenInRequests = []string{
		"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
		"Pragma", "Expires", "Age", "Date", "Vary", "Retry-After", "Warning", "Allow", "Accept-Encoding",
		"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "True-Client-IP",
	}
)

func mayTrailAnswer(id FieldID, name []byte) bool {
	return untrailed>>id&1 == 0 && !hasName(forbiddenTrailers, name)
}

// mayTrailRequest passes on no name with an underscore, as with header fields (see dropFields).
func mayTrailRequest(id FieldID, name []byte) bool {
	return mayTrailAnswer(id, name) && !hasName(forbiddenInRequests, name) && bytes.IndexByte(name, '_') < 0
}

func hasName(names []string, name []byte) bool {
	return slices.ContainsFunc(names, func(known string) bool { return equalFold(name, known) })
}

// pruneNames takes the names out of a Trailer that are not passed on (RFC 9110 section 6.6.2):
// whoever is promised one of them may wait for it, or refuse the message.
func (f *Fields) pruneNames(l *Field, mayTrail func(FieldID, []byte) bool) {
	good := true
	for name := range tokens(l.Value) {
		good = good && mayTrail(fieldID(name), name)
	}
	if good {
		return
	}
	start := len(f.arena)
	for name := range tokens(l.Value) {
		if !mayTrail(fieldID(name), name) {
			continue
		}
		if len(f.arena) > start {
			f.arena = append(f.arena, ", "...)
		}
		f.arena = append(f.arena, name...)
	}
	l.Value = f.arena[start:len(f.arena):len(f.arena)]
	l.dropped = len(l.Value) == 0
}

// requestTrailer is what of the client's trailer section goes to the upstream.
func (x *Exchange) requestTrailer() ([]byte, error) { return x.body.allowedTrailer(mayTrailRequest) }

// responseTrailer is what of the upstream's trailer section goes to the client.
func (x *Exchange) responseTrailer() ([]byte, error) { return x.upBody.allowedTrailer(mayTrailAnswer) }
