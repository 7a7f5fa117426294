package engine

import (
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2head takes header blocks apart, which is for the reading goroutine: HPACK has a state
// that all of a connection's blocks change, in their order (RFC 9113 section 4.3).
type h2head struct {
	c   *h2conn
	dec *hpack.Decoder

	order     h2order
	kind      h2headKind
	st        *h2stream // of a request
	id        uint32
	ends      bool // END_STREAM
	selfish   bool // depends on itself
	wire      int  // bytes as they came
	size      int  // as RFC 9113 section 6.5.2 counts them
	fields    int
	malformed bool
	regular   bool // a field that is no pseudo-header has come
	seen      h2pseudo
	scheme    bool // it is http or https
	cookie    []byte
	lines     []byte // of a trailer section
}

type h2headKind uint8

const (
	h2Nothing h2headKind = iota // read for HPACK's sake
	h2Request
	h2Trailer
	h2Refused // more streams than agreed
	h2Closed  // for a stream that the client has reset
)

// h2pseudo is a set of pseudo-header fields (RFC 9113 section 8.3.1).
type h2pseudo uint8

const (
	h2Method h2pseudo = 1 << iota
	h2Scheme
	h2Authority
	h2Path
	h2Protocol // of RFC 8441
)

// fit reports whether a request of this method has all that it needs, and nothing else: a
// CONNECT names neither scheme nor path (RFC 9113 section 8.5), unless it is an extended one
// (RFC 8441 section 4).
func (p h2pseudo) fit(method []byte) bool {
	switch isConnect := string(method) == "CONNECT"; {
	case isConnect && p&h2Protocol == 0:
		return p == h2Method|h2Authority
	case !isConnect && p&h2Protocol != 0:
		return false
	}
	const required = h2Method | h2Scheme | h2Path
	return p&required == required
}

func (h *h2head) start(c *h2conn) {
	h.c = c
	h.dec = hpack.NewDecoder(4096, h.field)
	h.dec.SetMaxStringLength(c.srv.limits.MaxHead)
}

// begin makes it ready for a block. st is the stream that a request opens.
func (h *h2head) begin(kind h2headKind, st *h2stream, id uint32) {
	*h = h2head{c: h.c, dec: h.dec, kind: kind, st: st, id: id, cookie: h.cookie[:0], lines: h.lines[:0]}
}

// write takes one fragment. What a head may be long is bounded as it comes over the wire
// too: nobody has to buffer, or to decode, more than that.
func (h *h2head) write(fragment []byte) error {
	if h.wire += len(fragment); h.wire > h.c.srv.limits.MaxHead+h2MaxFrame {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	if _, err := h.dec.Write(fragment); err != nil || h.order.broken(fragment) {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	return nil
}

// tooLarge reports a head above the limits. It is still read to its end.
func (h *h2head) tooLarge() bool {
	limits := &h.c.srv.limits
	return h.size > limits.MaxHead || h.fields > limits.MaxFields
}

// field takes one field line.
func (h *h2head) field(f hpack.HeaderField) {
	h.size += int(f.Size())
	h.fields++
	if h.kind != h2Request && h.kind != h2Trailer || h.malformed || h.tooLarge() {
		return
	}
	switch {
	case f.IsPseudo():
		h.malformed = h.kind == h2Trailer || h.regular || !h.pseudo(f)
	case !validH2Field(f.Name, f.Value):
		h.malformed = true
	case h.kind == h2Trailer:
		h.trailer(f)
	case f.Name == "cookie":
		// Crumbs become one field again (RFC 9113 section 8.2.3).
		if len(h.cookie) > 0 {
			h.cookie = append(h.cookie, "; "...)
		}
		h.cookie = append(h.cookie, f.Value...)
	default:
		name := h.keep(f.Name)
		h.malformed = connectionSpecific(h.request().Fields.add(name, h.keep(f.Value)))
	}
	h.regular = h.regular || !f.IsPseudo()
}

func (h *h2head) request() *Request { return &h.st.x.Request }

// validH2Field checks a field line (RFC 9113 section 8.2.1): a token in lower case, and a
// value that neither begins nor ends with white space, nor holds a control character.
func validH2Field(name, value string) bool {
	for i := range len(name) {
		if c := name[i]; !isTokenByte[c] || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	for i := range len(value) {
		if isControl(value[i]) {
			return false
		}
	}
	n := len(value)
	return name != "" && (n == 0 || !isBlank(value[0]) && !isBlank(value[n-1]))
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// connectionSpecific reports fields that mean something to one connection of HTTP/1.1 and
// may not stand in a message of HTTP/2 (RFC 9113 section 8.2.2).
func connectionSpecific(f *Field) bool {
	switch f.ID {
	case Connection, KeepAlive, ProxyConnection, TransferEncoding, Upgrade, HTTP2Settings:
		return true
	case TE:
		return !equalFold(f.Value, "trailers")
	}
	return false
}

// pseudo takes a pseudo-header field, and reports whether it may stand here.
func (h *h2head) pseudo(f hpack.HeaderField) bool {
	r := h.request()
	var which h2pseudo
	switch f.Name {
	case ":method":
		which, r.Method = h2Method, h.keep(f.Value)
		if !isToken(r.Method) {
			return false
		}
	case ":scheme":
		which, h.scheme = h2Scheme, f.Value == "http" || f.Value == "https"
	case ":authority":
		which, r.Authority = h2Authority, h.keep(f.Value)
	case ":protocol":
		which, r.protocol = h2Protocol, h.keep(f.Value)
	case ":path":
		which, r.Target = h2Path, h.keep(f.Value)
		if f.Value == "" {
			return false
		}
	default:
		return false
	}
	again := h.seen&which != 0
	h.seen |= which
	return !again
}

// trailer keeps a line of a trailer section, as it would stand in HTTP/1.1. It was checked
// by then, so that it is one line.
func (h *h2head) trailer(f hpack.HeaderField) {
	if len(h.lines)+len(f.Name)+len(f.Value) > maxTrailer {
		h.malformed = true
		return
	}
	h.lines, h.malformed = appendLine(h.lines, f)
}

// keep copies s to where the head of the request lies.
func (h *h2head) keep(s string) []byte {
	in := &h.st.x.in
	if len(in.buf)-in.w < len(s) {
		// The fields of the old buffer go on lying there, so it is left to the garbage
		// collector.
		in.buf, in.w = make([]byte, max(2*h.c.srv.limits.MaxHead, len(s))), 0
	}
	n := copy(in.buf[in.w:], s)
	kept := in.buf[in.w : in.w+n : in.w+n]
	in.w += n
	return kept
}

// end is called when the block is complete.
func (h *h2head) end() error {
	if err := h.dec.Close(); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	defer func() { h.st = nil }()
	switch h.kind {
	case h2Refused:
		return streamError(h.id, http2.ErrCodeRefusedStream)
	case h2Closed:
		return streamError(h.id, http2.ErrCodeStreamClosed)
	case h2Trailer:
		return h.endTrailer()
	case h2Request:
		return h.endRequest(h.st)
	}
	return h.c.annoyed(1)
}

// endTrailer ends a request's body (RFC 9113 section 8.1).
func (h *h2head) endTrailer() error {
	if !h.ends || h.malformed || h.tooLarge() || h.selfish {
		return streamError(h.id, http2.ErrCodeProtocol)
	}
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	st := h.c.streams[h.id]
	if st == nil || st.gone { // its answer has ended meanwhile
		return nil
	}
	if st.connect { // RFC 9113 section 8.5
		return streamError(h.id, http2.ErrCodeProtocol)
	}
	if st.declared >= 0 && st.received != st.declared {
		return streamError(h.id, http2.ErrCodeProtocol)
	}
	st.trailer = append(st.trailer, h.lines...)
	st.ended = true
	st.wakeReader()
	return nil
}

// endRequest hands the request over to be served. One that is malformed is not answered
// (RFC 9113 section 8.1.1): its stream is reset.
func (h *h2head) endRequest(st *h2stream) error {
	x := st.x
	r := &x.Request
	large := h.tooLarge()
	if h.malformed || h.selfish || !large && !h.seen.fit(r.Method) {
		st.abandon()
		return streamError(h.id, http2.ErrCodeProtocol)
	}
	if len(h.cookie) > 0 && !large {
		r.Fields.add(cookieName, h.keep(text(h.cookie)))
	}
	x.in.r = x.in.w
	x.in.pin()
	x.bodyStart = x.in.r
	r.Version, r.keepAlive = HTTP20, true
	if large {
		st.refusal = &Refusal{Status: 431, Reason: errHeadTooLarge.Error()}
	} else {
		st.refusal = r.finishH2(h.ends, h.scheme, &h.c.srv.limits)
	}
	if st.refusal == nil && h.ends && r.ContentLength > 0 {
		st.abandon()
		return streamError(h.id, http2.ErrCodeProtocol)
	}
	h.c.mu.Lock()
	st.ended = h.ends
	st.connect = r.upgrade
	if st.refusal == nil && !h.ends && !st.connect {
		st.declared = r.ContentLength
	}
	h.c.mu.Unlock()
	h.c.ready = append(h.c.ready, st)
	if large {
		return h.c.annoyed(h2CostError)
	}
	return nil
}

var cookieName = []byte("cookie")

// late reports a request whose head has begun and does not come to its end.
func (h *h2head) late(now time.Time) bool {
	if h.st == nil {
		return false
	}
	srv := h.c.srv
	return now.After(srv.headsBy(h.st.x.Start.Add(srv.limits.HeadTimeout)))
}

// abandon lets go of a request whose head never ends.
func (h *h2head) abandon() {
	if h.st != nil {
		h.st.abandon()
	}
	h.st = nil
}

// finishH2 checks a request whose head is here as a whole, and makes of it what one of
// HTTP/1.1 would be.
func (r *Request) finishH2(ends, scheme bool, limits *Limits) *Refusal {
	switch {
	case len(r.Method) > maxMethod:
		return &Refusal{Status: 501, Reason: "method longer than any known"}
	case string(r.Method) == "CONNECT" && r.protocol == nil, string(r.Method) == "TRACE":
		return &Refusal{Status: 405, Reason: string(r.Method) + " is not supported"}
	case len(r.Target) > limits.MaxTarget:
		return &Refusal{Status: 414, Reason: "target longer than the limit"}
	case !scheme:
		return badRequest("scheme is neither http nor https")
	}
	if refusal := r.agreeHost(); refusal != nil {
		return refusal
	}
	if err := r.parseHost(); err != nil {
		return badRequest(err.Error())
	}
	switch {
	case r.Target[0] == '/':
		if refusal := r.parsePath(r.Target); refusal != nil {
			return refusal
		}
	case string(r.Target) == "*" && r.IsMethod("OPTIONS"):
		r.Path = r.Target
	default:
		return badRequest("path does not begin with a slash")
	}
	if r.protocol != nil {
		return r.bootstrap(ends)
	}
	return r.frameH2(ends)
}

// agreeHost makes :authority and Host one. The field is dropped: it is written anew, where
// it belongs in HTTP/1.1 (RFC 9113 section 8.3.1).
func (r *Request) agreeHost() *Refusal {
	hosts := 0
	for i := range r.Fields.list {
		f := &r.Fields.list[i]
		if f.ID != Host {
			continue
		}
		if hosts++; hosts > 1 {
			return badRequest("several Host fields")
		}
		f.dropped = true
		if len(r.Authority) == 0 {
			r.Authority = f.Value
		} else if !equalFoldBytes(r.Authority, f.Value) {
			return badRequest(":authority and Host disagree")
		}
	}
	if len(r.Authority) == 0 {
		return badRequest("no authority")
	}
	return nil
}

// frameH2 settles how the body goes on to an upstream, and what of the fields does.
func (r *Request) frameH2(ends bool) *Refusal {
	kind, length, err := messageFraming(&r.Fields)
	switch {
	case err != nil:
		return badRequest(err.Error())
	case kind == byLength && length == 0 || kind == noBody && ends:
		kind = noBody
	case kind == noBody:
		kind, length = byChunks, -1
	}
	r.framing, r.ContentLength = kind, length
	expecting := false
	for i := range r.Fields.list {
		switch f := &r.Fields.list[i]; f.ID {
		case Expect:
			if expecting || !equalFold(f.Value, "100-continue") {
				return errExpectation
			}
			expecting = true
			r.expects = r.framing != noBody
			f.dropped = !r.expects
		case TE:
			r.trailers = true
		}
	}
	if err := r.dropFields(); err != nil {
		return badRequest(err.Error())
	}
	return r.countForwards()
}

// newH2Request borrows what the head of a request is read into.
func newH2Request(st *h2stream) *Exchange {
	x := exchanges.Get().(*Exchange)
	x.begin(st, &st.c.peer, st.c.came)
	x.out = output{}
	x.in.buf = getHeadBuffer()
	x.in.r, x.in.w = 0, 0
	return x
}
