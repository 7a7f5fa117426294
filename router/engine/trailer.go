package engine

import "bytes"

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
		switch f.ID {
		case ContentLength, Host, Trailer, Expect, ContentType, Proxy, Forwarded, Location,
			XForwardedFor, XForwardedHost, XForwardedPort, XForwardedPrefix, XForwardedProto,
			XForwardedScheme, XForwardedServer, XForwardedSSL, XOriginalForwardedFor,
			XRealIP, XRequestID, XScheme, XOriginalURL, XRewriteURL,
			SSLClientCert, SSLClientIssuerDN, SSLClientSubjectDN, SSLClientVerify, XForwardedClientCert:
			f.dropped = true
		}
		for _, name := range forbiddenTrailers {
			if equalFold(f.Name, name) {
				f.dropped = true
			}
		}
	}
	b.allowed = fields.appendTo(b.allowed[:0])
	return b.allowed, nil
}

const maxTrailerFields = 100

var forbiddenTrailers = []string{
	"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "Content-Encoding",
	"Content-Range", "Cache-Control", "Max-Forwards", "Range",
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
