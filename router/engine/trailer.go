package engine

import (
	"bytes"
	"slices"
)

// allowedTrailer checks a trailer section and returns the lines of it that may be passed
// on: well-formed ones that say nothing about framing, routing, authority or the
// connection (RFC 9110 section 6.5.1). A malformed section spoils its message.
func (b *body) allowedTrailer() ([]byte, error) {
	if len(b.trailer) == 0 {
		return nil, nil
	}
	section, fields := b.trailer, &b.fields
	fields.Reset()
	defer fields.Reset()
	if err := parseFieldLines(section, fields, maxTrailerFields); err != nil {
		return nil, err
	}
	if err := fields.dropHopByHop(); err != nil {
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
	}
)

func mayTrail(id FieldID, name []byte) bool {
	return untrailed>>id&1 == 0 &&
		!slices.ContainsFunc(forbiddenTrailers, func(known string) bool { return equalFold(name, known) })
}

// pruneNames takes the names out of a Trailer that are not passed on (RFC 9110 section 6.6.2):
// whoever is promised one of them may wait for it, or refuse the message.
func (f *Fields) pruneNames(l *Field) {
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

// requestTrailer is what of the client's trailer section goes to the upstream: as with header
// fields, no name with an underscore (see dropFields).
func (x *Exchange) requestTrailer() ([]byte, error) {
	lines, err := x.body.allowedTrailer()
	if err != nil || bytes.IndexByte(lines, '_') < 0 {
		return lines, err
	}
	kept := lines[:0]
	for line := range bytes.SplitAfterSeq(lines, crlf) {
		if name, _, _ := bytes.Cut(line, colon); bytes.IndexByte(name, '_') < 0 {
			kept = append(kept, line...)
		}
	}
	return kept, nil
}

var crlf, colon = []byte("\r\n"), []byte(":")

// responseTrailer is what of the upstream's trailer section goes to the client.
func (x *Exchange) responseTrailer() ([]byte, error) { return x.upBody.allowedTrailer() }
