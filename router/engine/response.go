package engine

import (
	"bytes"
	"errors"
)

// Response is the head of an answer. From an upstream it lies in the buffer it was read
// into, and is valid until the exchange is done.
type Response struct {
	Status int
	// Reason is the reason phrase, perhaps empty.
	Reason []byte
	// Fields are the header fields.
	Fields Fields
	// ContentLength of the body in bytes; -1 if only its end will tell.
	ContentLength int64

	framing   framing
	keepAlive bool // the upstream keeps the connection open, and nothing of this answer can still come
}

func (r *Response) reset() {
	fields := r.Fields
	fields.Reset()
	*r = Response{Fields: fields}
}

var errStatusLine = errors.New("malformed status line")

// parse reads a complete head of an answer to a request with this method.
func (r *Response) parse(head, method []byte, maxFields int) error {
	eol := bytes.IndexByte(head, '\n')
	version, err := r.parseLine(head[:eol-1])
	if err != nil {
		return err
	}
	if err := parseFieldLines(head[eol+1:len(head)-2], &r.Fields, maxFields); err != nil {
		return err
	}
	if err := r.parseFraming(method, version); err != nil {
		return err
	}
	return r.readConnection(version)
}

// parseLine parses version SP status [SP reason] (RFC 9112 section 4).
func (r *Response) parseLine(line []byte) (Version, error) {
	if len(line) < len("HTTP/1.1 200") || line[8] != ' ' || !isVersion(line[:8]) || line[5] != '1' {
		return 0, errStatusLine
	}
	version := HTTP11
	if line[7] == '0' {
		version = HTTP10
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, errStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 {
		return 0, errStatusLine
	}
	if rest := line[12:]; len(rest) > 0 {
		if rest[0] != ' ' || hasControl(rest) {
			return 0, errStatusLine
		}
		r.Reason = rest[1:]
	}
	return version, nil
}

// bodiless reports the statuses whose answers have no body, whatever their fields say.
func bodiless(status int) bool { return status < 200 || status == 204 || status == 304 }

func (r *Response) parseFraming(method []byte, version Version) error {
	kind, length, err := messageFraming(&r.Fields)
	if err != nil {
		return err
	}
	switch {
	case kind == byChunks && version == HTTP10:
		return errTransferEncoding
	case bodiless(r.Status) || string(method) == "HEAD":
		r.framing = noBody
		r.ContentLength = length
		if kind != byLength {
			r.ContentLength = -1
		}
	case kind == noBody:
		r.framing, r.ContentLength = untilClose, -1
	default:
		r.framing, r.ContentLength = kind, length
	}
	return nil
}

func (r *Response) readConnection(version Version) error {
	r.keepAlive = version == HTTP11
	closes := false
	for i := range r.Fields.list {
		f := &r.Fields.list[i]
		if f.ID != Connection {
			continue
		}
		for token := range tokens(f.Value) {
			switch {
			case equalFold(token, "close"):
				closes = true
			case equalFold(token, "keep-alive"):
				r.keepAlive = true
			}
		}
	}
	r.keepAlive = r.keepAlive && !closes
	if err := r.Fields.dropHopByHop(mayTrailAnswer); err != nil {
		return err
	}
	if r.Status == 101 || r.Status == 426 { // RFC 9110 section 15.5.22
		r.Fields.restore(Upgrade)
	}
	if r.Status < 200 || r.Status == 204 {
		r.keepAlive = r.keepAlive && !r.announcesBody()
		r.Fields.Del(ContentLength) // RFC 9110 section 8.6
	}
	return nil
}

// announcesBody reports a body that a status without one may not announce (RFC 9110 section
// 8.6, RFC 9112 section 6.1). Whoever does may send it, too, and it would be read as the next
// answer on the connection.
func (r *Response) announcesBody() bool {
	kind, length, err := messageFraming(&r.Fields)
	return err != nil || kind == byChunks || length > 0
}

// accepts reports whether a 101 switches to protocols that were asked for, and to no other.
func (r *Response) accepts(asked []byte) bool {
	named := false
	for f := range r.Fields.All() {
		if f.ID != Upgrade {
			continue
		}
		for got := range tokens(f.Value) {
			named = true
			if !hasTokenBytes(asked, got) {
				return false
			}
		}
	}
	return named
}
