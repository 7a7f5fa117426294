package engine

import (
	"errors"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2answer is the head of an answer, until the exchange takes it.
type h2answer struct {
	response Response
	buf      []byte // borrowed; what its fields lie in
	n        int
	empty    bool // it ends the stream, and does not say that its body is empty
}

var h2answers = sync.Pool{New: func() any { return new(h2answer) }}

func newH2Answer() *h2answer {
	a := h2answers.Get().(*h2answer)
	a.response.reset()
	a.buf, a.n, a.empty = getHeadBuffer(), 0, false
	return a
}

func (a *h2answer) release() {
	a.response.reset()
	if a.buf != nil {
		putBuffer(a.buf)
		a.buf = nil
	}
	h2answers.Put(a)
}

// keep copies s to where the head lies.
func (a *h2answer) keep(s string, limit int) []byte {
	if len(a.buf)-a.n < len(s) {
		// The fields so far go on lying in the old one, which is left to the garbage collector.
		a.buf, a.n = make([]byte, max(limit, len(s))), 0
	}
	n := copy(a.buf[a.n:], s)
	kept := a.buf[a.n : a.n+n : a.n+n]
	a.n += n
	return kept
}

// h2answerHead takes the header blocks of an upstream apart. It is for the reading
// goroutine, as h2head is on the other side.
type h2answerHead struct {
	c   *h2client
	dec *hpack.Decoder

	order  h2order
	kind   h2headKind // h2Request is an answer here
	id     uint32
	ends   bool // END_STREAM
	answer *h2answer
	lines  []byte // of a trailer section
	wire   int    // bytes as they came
	size   int    // as RFC 9113 section 6.5.2 counts them
	fields int
	fault  error
}

var (
	errH2Field   = errors.New("malformed field in HTTP/2")
	errH2Status  = errors.New("malformed or missing :status")
	errH2Head    = errors.New("header block where none may be")
	errH2Length  = errors.New("body and Content-Length differ")
	errH2Interim = errors.New("interim responses faster than they can be passed on")
)

// maxPendingHeads is how many interim answers may wait to be passed on.
const maxPendingHeads = 16

func (h *h2answerHead) start(c *h2client) {
	h.c = c
	h.dec = hpack.NewDecoder(4096, h.field)
	h.dec.SetMaxStringLength(c.pool.cfg.MaxHead)
}

func (h *h2answerHead) begin(kind h2headKind, id uint32, ends bool) {
	*h = h2answerHead{c: h.c, dec: h.dec, kind: kind, id: id, ends: ends, lines: h.lines[:0], answer: h.answer}
	if kind == h2Request && h.answer == nil {
		h.answer = newH2Answer()
	}
}

// write takes one fragment. A block that never ends, or that becomes huge, costs the
// connection.
func (h *h2answerHead) write(fragment []byte) error {
	if h.wire += len(fragment); h.wire > h.c.pool.cfg.MaxHead+h2MaxFrame {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	if _, err := h.dec.Write(fragment); err != nil || h.order.broken(fragment) {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	return nil
}

// field takes one field line.
func (h *h2answerHead) field(f hpack.HeaderField) {
	cfg := &h.c.pool.cfg
	h.size += int(f.Size())
	h.fields++
	if h.kind != h2Request && h.kind != h2Trailer || h.fault != nil {
		return
	}
	switch {
	case h.size > cfg.MaxHead:
		h.fault = errHeadTooLarge
	case h.fields > cfg.MaxFields:
		h.fault = errTooManyFields
	case f.IsPseudo():
		h.status(f)
	case !validH2Field(f.Name, f.Value):
		h.fault = errH2Field
	case h.kind == h2Trailer:
		h.trailer(f)
	case h.answer.response.Status == 0:
		h.fault = errH2Status // it has to come first
	default:
		a := h.answer
		name := a.keep(f.Name, cfg.MaxHead)
		switch l := a.response.Fields.add(name, a.keep(f.Value, cfg.MaxHead)); {
		case connectionSpecific(l):
			h.fault = errH2Field
		case l.ID == Trailer:
			a.response.Fields.pruneNames(l, mayTrailAnswer)
		}
	}
}

// status takes the one pseudo-header field of an answer (RFC 9113 section 8.3.2).
func (h *h2answerHead) status(f hpack.HeaderField) {
	if h.kind == h2Trailer || f.Name != ":status" || h.answer.response.Status != 0 || len(f.Value) != 3 {
		h.fault = errH2Status
		return
	}
	status := 0
	for i := range 3 {
		d := f.Value[i] - '0'
		if d > 9 {
			h.fault = errH2Status
			return
		}
		status = status*10 + int(d)
	}
	if status < 100 || status == 101 { // which does not exist in HTTP/2 (section 8.6)
		h.fault = errH2Status
		return
	}
	h.answer.response.Status = status
}

func (h *h2answerHead) trailer(f hpack.HeaderField) {
	if len(h.lines)+len(f.Name)+len(f.Value) > maxTrailer {
		h.fault = errHeadTooLarge
		return
	}
	var malformed bool
	if h.lines, malformed = appendLine(h.lines, f); malformed {
		h.fault = errH2Field
	}
}

// appendLine writes a field of a trailer section as it would stand in HTTP/1.1. It was checked by
// then, so that it is one line. malformed: it is about one connection.
func appendLine(b []byte, f hpack.HeaderField) (lines []byte, malformed bool) {
	start := len(b)
	b = append(b, f.Name...)
	name := b[start:]
	b = append(b, ": "...)
	b = append(b, f.Value...)
	malformed = connectionSpecific(&Field{Name: name, Value: b[len(b)-len(f.Value):], ID: fieldID(name)})
	return append(b, "\r\n"...), malformed
}

// end is called when the block is complete.
func (h *h2answerHead) end() error {
	if err := h.dec.Close(); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	c := h.c
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[h.id]
	switch {
	case h.kind == h2Closed && st != nil && !st.gone:
		st.call.fault = errH2Head
		return streamError(h.id, http2.ErrCodeStreamClosed)
	case h.kind == h2Nothing, h.kind == h2Closed, st == nil, st.gone:
		h.spoil() // nobody takes it: the stream went while its head came
		return c.crossed()
	}
	if h.fault == nil && h.kind == h2Trailer {
		h.fault = h.endTrailer(st)
	} else if h.fault == nil {
		h.fault = h.endAnswer(st.call)
	}
	if h.fault != nil {
		h.spoil()
		st.call.fault = h.fault
		return streamError(h.id, http2.ErrCodeProtocol)
	}
	c.news = append(c.news, st.readable)
	return nil
}

// spoil forgets a head that is not used.
func (h *h2answerHead) spoil() {
	if h.answer != nil {
		h.answer.release()
		h.answer = nil
	}
}

// endTrailer ends an answer's body (RFC 9113 section 8.1).
func (h *h2answerHead) endTrailer(st *h2half) error {
	switch {
	case !h.ends:
		return errH2Head
	case st.declared >= 0 && st.received != st.declared:
		return errH2Length
	}
	st.trailer = append(st.trailer, h.lines...)
	st.ended = true
	return nil
}

// endAnswer checks a head and hands it over. It is called with mu.
func (h *h2answerHead) endAnswer(u *h2call) error {
	a := h.answer
	r := &a.response
	switch {
	case r.Status == 0:
		return errH2Status
	case len(u.answers) >= maxPendingHeads:
		return errH2Interim
	}
	var method []byte
	if u.head {
		method = headMethod
	}
	if err := r.parseFraming(method, HTTP11); err != nil {
		return err
	}
	r.keepAlive = true
	if r.Status < 200 || r.Status == 204 {
		r.Fields.Del(ContentLength) // RFC 9110 section 8.6
	}
	if r.Status < 200 {
		if h.ends {
			return errH2Head
		}
		u.answers, h.answer = append(u.answers, a), nil
		return nil
	}
	if err := u.frame(a, h.ends); err != nil {
		return err
	}
	u.headed = true
	u.c.guard.earn(h2EarnAnswer)
	u.answers, h.answer = append(u.answers, a), nil
	return nil
}

// frame settles what body there is to be.
func (u *h2call) frame(a *h2answer, ends bool) error {
	r := &a.response
	switch {
	case r.framing == noBody:
		u.declared = 0
	case r.framing == byLength:
		u.declared = r.ContentLength
		if ends && r.ContentLength > 0 {
			return errH2Length
		}
	case ends:
		r.framing, r.ContentLength, a.empty = byLength, 0, true
	}
	u.ended = ends
	return nil
}

var headMethod = []byte("HEAD")
