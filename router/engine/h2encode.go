package engine

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2encoder writes header blocks (RFC 7541). It is used with the connection's mu, in the
// order in which the blocks are sent.
type h2encoder struct {
	hpack *hpack.Encoder
	block bytes.Buffer
	name  []byte
	path  []byte
	last  Fields            // of a trailer section
	known map[string]string // values that may stand in HPACK's table
	table uint32            // counts what has changed that table
	sized bool              // the other side has to be told of a change of its size, before all else
	short [fieldIDs]h2short
}

// h2short is a field with its value as it stands in HPACK's table, and the index that stands for
// it as long as that table stays as it is.
type h2short struct {
	value string
	table uint32
	n     uint8 // bytes of code; 0: none is known
	code  [3]byte
}

// What goes into HPACK's table must not change later, so its text is our own. Values that
// come again are kept here; a few, for a client must not fill our memory through an upstream.
const (
	h2KnownValues = 64
	h2KnownLength = 256
)

func (e *h2encoder) start() {
	e.hpack = hpack.NewEncoder(&e.block)
	e.known = map[string]string{}
}

// limit follows the client's SETTINGS_HEADER_TABLE_SIZE.
func (e *h2encoder) limit(n uint32) {
	e.hpack.SetMaxDynamicTableSizeLimit(min(n, 4096))
	e.table++
	e.sized = true
}

// repeats are the fields whose values come again and again.
var repeats = map[string]bool{
	"server": true, "content-type": true, "date": true, "vary": true, "cache-control": true,
	"content-encoding": true, "accept-ranges": true, "strict-transport-security": true,
	"x-content-type-options": true, "x-frame-options": true, "referrer-policy": true,
	"access-control-allow-origin": true, "access-control-allow-credentials": true,
	"x-powered-by": true, "via": true, "alt-svc": true, "content-language": true,
	"x-xss-protection": true, "grpc-status": true, "grpc-accept-encoding": true,
	// Of requests, those in which the clients of one upstream differ little.
	"user-agent": true, "accept": true, "accept-encoding": true, "accept-language": true,
	"grpc-encoding": true, "x-forwarded-host": true, "x-forwarded-port": true, "x-forwarded-proto": true,
}

// repeating are those of them that have a number.
var repeating = func() (ids [fieldIDs]bool) {
	for id, name := range lowerNames {
		ids[id] = repeats[name]
	}
	return ids
}()

var lowerNames = func() (names [fieldIDs]string) {
	for id, name := range fieldNames {
		names[id] = strings.ToLower(string(name))
	}
	return names
}()

// text is b as a string, for as long as b stays as it is.
func text(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // nobody keeps it: see field
}

// field writes one field, its name in lower case. What is not among the repeats is marked
// never to be indexed, and so HPACK keeps none of it.
func (e *h2encoder) field(id FieldID, name, value []byte) {
	lowered := lowerNames[id]
	if repeating[id] {
		e.again(id, value)
		return
	}
	if id == 0 {
		e.name = e.name[:0]
		for _, c := range name {
			e.name = append(e.name, lower(c))
		}
		lowered = text(e.name)
	}
	if id == 0 && repeats[lowered] {
		e.keepField(lowered, value)
		return
	}
	if id != 0 && len(value) <= h2Short && !e.sized {
		e.block.Write(h2Literals[id])
		e.block.WriteByte(byte(len(value)))
		e.block.Write(value)
		return
	}
	e.write(hpack.HeaderField{Name: lowered, Value: text(value), Sensitive: true})
}

// h2Short is up to which length a value is not worth Huffman's code.
const h2Short = 16

// h2Literals begin a field that is never indexed (RFC 7541 section 6.2.3), up to its value.
var h2Literals = func() (begin [fieldIDs][]byte) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for id, name := range lowerNames {
		block.Reset()
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Sensitive: true}) // into memory
		begin[id] = bytes.Clone(block.Bytes()[:block.Len()-1])                 // without the length of the value
	}
	return begin
}()

// again writes one of the repeats: most of them are an index, and mostly the same as last time.
func (e *h2encoder) again(id FieldID, value []byte) {
	s := &e.short[id]
	if s.n > 0 && s.table == e.table && s.value == string(value) {
		e.block.Write(s.code[:s.n])
		return
	}
	begin := e.block.Len()
	e.keepField(lowerNames[id], value)
	code := e.block.Bytes()[begin:]
	s.n = 0
	if code[0]&0x80 != 0 && len(code) <= len(s.code) { // RFC 7541 section 6.1
		s.value, s.table, s.n = e.keep(text(value)), e.table, uint8(copy(s.code[:], code))
	}
}

// keepField writes a field that HPACK may keep.
func (e *h2encoder) keepField(name string, value []byte) {
	if len(value) > h2KnownLength {
		e.write(hpack.HeaderField{Name: name, Value: text(value), Sensitive: true})
		return
	}
	e.write(hpack.HeaderField{Name: e.keep(name), Value: e.keep(text(value))})
}

// keep returns s in memory of our own.
func (e *h2encoder) keep(s string) string {
	if kept, ok := e.known[s]; ok {
		return kept
	}
	if len(e.known) >= h2KnownValues {
		clear(e.known)
	}
	kept := strings.Clone(s)
	e.known[kept] = kept
	return kept
}

func (e *h2encoder) write(f hpack.HeaderField) {
	begin := e.block.Len()
	_ = e.hpack.WriteField(f) // into memory: it does not fail
	e.sized = false
	switch first := e.block.Bytes()[begin]; {
	case first&0xc0 == 0x40, first&0xe0 == 0x20: // a field was put into the table, or its size has changed
		e.table++
	}
}

// h2StatusOK is ":status: 200" (RFC 7541 appendix A).
const h2StatusOK = 0x80 | 8

var h2Statuses = func() (texts [1000]string) {
	for i := 100; i < 1000; i++ {
		texts[i] = strconv.Itoa(i)
	}
	return texts
}()

// head writes the head of an answer. Fields of one connection of HTTP/1.1 stay behind (RFC
// 9113 section 8.2.2).
func (e *h2encoder) head(r *Response) {
	e.block.Reset()
	if r.Status < 100 || r.Status > 999 || r.Status == 101 { // a handler may be wrong
		r.Status = 500
	}
	if r.Status == 200 && !e.sized {
		e.block.WriteByte(h2StatusOK)
	} else {
		e.write(hpack.HeaderField{Name: ":status", Value: h2Statuses[r.Status]})
	}
	if r.Status >= 200 && !r.Fields.Has(Date) {
		e.field(Date, nil, dateValue(time.Now()))
	}
	e.fields(&r.Fields)
}

func (e *h2encoder) fields(fields *Fields) {
	for i := range fields.list {
		f := &fields.list[i]
		if !f.dropped && !ofHTTP1[f.ID] {
			e.field(f.ID, f.Name, f.Value)
		}
	}
}

// ofHTTP1 are fields of one connection of HTTP/1.1.
var ofHTTP1 = [fieldIDs]bool{
	Connection: true, KeepAlive: true, ProxyConnection: true, TransferEncoding: true,
	Upgrade: true, TE: true, HTTP2Settings: true,
}

// request writes the head of a request (RFC 9113 section 8.3.1), and tells whether it ends with it.
func (e *h2encoder) request(x *Exchange, secure bool) (ends bool) {
	r := &x.Request
	e.block.Reset()
	e.write(hpack.HeaderField{Name: ":method", Value: text(r.Method), Sensitive: !isCommon(r.Method)})
	scheme := "http"
	if secure {
		scheme = "https"
	}
	e.write(hpack.HeaderField{Name: ":scheme", Value: scheme})
	authority := r.Fields.Get(Host) // a filter may have put another in
	switch {
	case authority != nil:
	case len(r.Authority) > 0:
		authority = r.Authority
	default:
		authority = append(e.name[:0], x.upAddr...)
	}
	e.keepField(":authority", authority)
	e.path = append(e.path[:0], r.Path...)
	if r.HasQuery {
		e.path = append(append(e.path, '?'), r.Query...)
	}
	call := IsGRPC(r.Fields.Get(ContentType))
	if call { // the names of a few methods
		e.keepField(":path", e.path)
	} else {
		e.write(hpack.HeaderField{Name: ":path", Value: text(e.path), Sensitive: true})
	}
	for i := range r.Fields.list {
		if f := &r.Fields.list[i]; !f.dropped && !ofHTTP1[f.ID] && f.ID != Host {
			e.field(f.ID, f.Name, f.Value)
		}
	}
	if r.trailers {
		e.write(hpack.HeaderField{Name: "te", Value: "trailers"})
	}
	// Servers of gRPC wait for the end of a request in a DATA frame, as it is specified, and
	// some of them for ever.
	ends = r.framing == noBody && !call
	if r.framing == byLength || ends && r.ContentLength == 0 && expectsBody(r.Method) {
		e.path = strconv.AppendInt(e.path[:0], r.ContentLength, 10)
		e.write(hpack.HeaderField{Name: "content-length", Value: text(e.path), Sensitive: true})
	}
	return ends
}

// isCommon reports the methods that stand in HPACK's static table.
func isCommon(method []byte) bool { return string(method) == "GET" || string(method) == "POST" }

// appendBlock adds the block that was written as HEADERS and CONTINUATION. It is called
// with mu.
func (st *h2half) appendBlock(end bool) {
	c := st.link
	block := c.out.encoder.block.Bytes()
	t, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags, st.endSent = http2.FlagHeadersEndStream, true
	}
	for {
		n := min(len(block), h2MaxFrame)
		if n == len(block) {
			flags |= http2.FlagHeadersEndHeaders
		}
		c.out.room(h2FrameHead + n)
		c.out.frame(t, flags, st.id, n)
		c.out.pending = append(c.out.pending, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return
		}
		t, flags = http2.FrameContinuation, 0
	}
}

// appendTrailer ends the stream with a trailer section. It is called with mu.
func (st *h2half) appendTrailer(section []byte) {
	e := &st.link.out.encoder
	e.block.Reset()
	_ = parseFieldLines(section, &e.last, maxTrailerFields) // they were checked
	e.fields(&e.last)
	e.last.Reset()
	st.appendBlock(true)
}

// passInterim sends a 1xx answer on.
func (st *h2stream) passInterim(x *Exchange) error {
	if err := st.writeHead(x, false); err != nil {
		return err
	}
	st.c.flush()
	return nil
}

// beginAnswer sends the head of the answer, with the first of the body.
func (st *h2stream) beginAnswer(x *Exchange) error {
	if x.Response.Status == 204 || x.lengthUnknown() {
		x.Response.Fields.Del(ContentLength)
	}
	return st.writeHead(x, x.nothingFollows())
}

func (st *h2stream) writeHead(x *Exchange, end bool) error {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := st.awaitRoom(); err != nil {
		return err
	}
	c.out.encoder.head(&x.Response)
	st.appendBlock(end)
	return nil
}

// nothingFollows reports an answer that ends with its head.
func (x *Exchange) nothingFollows() bool {
	switch {
	case x.Response.framing == noBody, x.Request.IsMethod("HEAD"):
		return true
	case x.up != nil:
		return x.upBody.ended && len(x.upBody.trailer) == 0
	}
	return len(x.reply) == 0
}
