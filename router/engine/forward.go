package engine

import (
	"errors"
	"io"
	"strconv"
	"time"
)

// Forward sends the request to the pool's upstream and reads the head of its answer into
// Response. Interim answers go to the client on the way. If it fails, and the request is
// Replayable, it may be called again with another pool; nothing of the final answer has
// been written to the client then.
func (x *Exchange) Forward(p *Pool) *UpstreamError {
	x.dropUpstream()
	x.rewind()
	x.upAddr = p.address
	whole, bad := x.body.complete()
	switch {
	case bad != nil: // known before a connection is spent on it
		return &UpstreamError{Cause: CauseClientBody, Unsent: true, Err: bad}
	case !x.Request.sound():
		return &UpstreamError{Cause: CauseProtocol, Unsent: true, Err: errTarget}
	}
	u, reused, err := p.upstream()
	if err != nil {
		return err
	}
	x.up = u
	if err := x.exchangeHeads(u, whole); err != nil {
		err.Reused, err.Unsent = reused || err.Reused, u.unsent()
		x.dropUpstream()
		x.Response.reset() // what it had lay in a buffer that is gone
		return err
	}
	x.answered = true
	return nil
}

// rewind makes the body readable from its start, for another try.
func (x *Exchange) rewind() {
	x.Response.reset()
	if x.in.pinned == nil {
		x.in.r = x.bodyStart
		x.startBody()
	}
}

func (x *Exchange) startBody() {
	kind := x.Request.framing
	if kind == byChunks && x.Request.Version == HTTP20 {
		kind = untilClose // the chunks are ours: a stream just ends (RFC 9113 section 8.1)
	}
	x.body.start(&x.in, kind, x.Request.ContentLength)
}

// exchangeHeads sends the request, and its body if that is here as a whole, and reads the
// head of the answer.
func (x *Exchange) exchangeHeads(u upstream, whole bool) *UpstreamError {
	if err := u.sendHead(x); err != nil {
		return &UpstreamError{Cause: CauseClosed, Err: err}
	}
	if whole {
		err, byClient := x.sendBody(u)
		if err != nil && byClient {
			return &UpstreamError{Cause: CauseClientBody, Err: err}
		}
		// A failed write is not the end: the upstream may have answered and closed.
	} else {
		x.pump.begin(x)
	}
	return x.receiveHead(u)
}

// appendRequest writes the head that goes to the upstream.
func (x *Exchange) appendRequest(o *output) {
	r := &x.Request
	b := append(o.buf, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Path...)
	if r.HasQuery {
		b = append(b, '?')
		b = append(b, r.Query...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	if !r.Fields.Has(Host) {
		b = append(b, "Host: "...)
		if len(r.Authority) > 0 {
			b = append(b, r.Authority...)
		} else {
			b = append(b, x.upAddr...)
		}
		b = append(b, '\r', '\n')
	}
	b = r.Fields.appendTo(b)
	switch r.framing {
	case byLength:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, '\r', '\n')
	case byChunks:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case noBody:
		if r.ContentLength == 0 && expectsBody(r.Method) {
			b = append(b, "Content-Length: 0\r\n"...)
		}
	}
	if r.upgrade {
		b = append(b, "Connection: upgrade\r\n"...)
	}
	o.buf = append(b, '\r', '\n')
	o.chunked = r.framing == byChunks
}

// expectsBody reports the methods for which a missing body is said aloud (RFC 9110
// section 8.6).
func expectsBody(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// maxInterims bounds the 1xx answers to one request.
const maxInterims = 100

// receiveHead reads heads until the final one.
func (x *Exchange) receiveHead(u upstream) *UpstreamError {
	for {
		if err := u.readHead(x); err != nil {
			return err
		}
		status := x.Response.Status
		switch {
		case status == 101 && !x.switches():
			return protocolError(errUpgrade)
		case status == 101, status >= 200:
			return x.headArrived(u)
		}
		if x.interims++; x.interims > maxInterims {
			return protocolError(errInterim)
		}
		if err := x.passInterim(); err != nil {
			return &UpstreamError{Cause: CauseClientGone, Err: err}
		}
		x.Response.reset()
	}
}

// switches reports whether a 101 is for what was asked.
func (x *Exchange) switches() bool {
	return x.Request.upgrade && x.Response.accepts(x.Request.Fields.Get(Upgrade))
}

// headArrived begins the body. What of it came with the head is looked through: while
// nothing has been written to the client, a malformed body still has a clear answer.
func (x *Exchange) headArrived(u upstream) *UpstreamError {
	u.beginBody(x)
	if _, err := x.upBody.complete(); err != nil {
		return protocolError(err)
	}
	x.arrived = time.Now()
	x.spliceStep, x.slow = minSplice, false
	return nil
}

func protocolError(err error) *UpstreamError { return &UpstreamError{Cause: CauseProtocol, Err: err} }

// readHead reads and parses one head.
func (u *clientConn) readHead(x *Exchange) *UpstreamError {
	for scanned := 0; ; {
		end, next, err := scanHead(u.in.unread(), scanned)
		switch {
		case err != nil:
			return protocolError(err)
		case end > 0:
			head := u.in.unread()[:end]
			u.in.take(end)
			if err := x.Response.parse(head, x.Request.Method, u.pool.cfg.MaxFields); err != nil {
				return protocolError(err)
			}
			return nil
		}
		scanned = next
		if u.in.buf == nil {
			u.in.buf = getHeadBuffer()
		}
		if !u.in.compact(u.pool.cfg.MaxHead) {
			return protocolError(errHeadTooLarge)
		}
		n, err := x.readUpstream(u, u.in.buf[u.in.w:])
		u.in.w += n
		if err != nil {
			return x.headError(err, len(u.in.unread()) == 0)
		}
	}
}

// headError sorts out why there is no head.
func (x *Exchange) headError(err error, nothing bool) *UpstreamError {
	failed := x.pump.clientFailed()
	switch {
	case errors.Is(err, errClientGone):
		return &UpstreamError{Cause: CauseClientGone, Err: err}
	case isReset(failed), errors.Is(failed, errClientGone):
		return &UpstreamError{Cause: CauseClientGone, Err: failed}
	case failed != nil:
		return &UpstreamError{Cause: CauseClientBody, Err: failed}
	case isTimeout(err):
		return &UpstreamError{Cause: CauseTimeout, Err: err}
	case nothing:
		return &UpstreamError{Cause: CauseClosed, Err: err}
	}
	return protocolError(errCutShort)
}

// glance is how often one who waits for an upstream looks whether the client is still
// there. It costs nothing to those who are answered sooner.
const glance = time.Second

// readUpstream reads once. While it waits it looks now and then whether there is still
// somebody to answer, and whether the request's body still comes; the time in which it
// does is not the upstream's.
func (x *Exchange) readUpstream(u *clientConn, p []byte) (int, error) {
	now := time.Now()
	since, limit := now, u.pool.cfg.ReadTimeout
	for {
		u.armRead(now, min(glance, limit))
		n, err := u.conn.Read(p)
		if n > 0 {
			return n, nil
		}
		if !isTimeout(err) {
			if err == nil {
				err = io.ErrNoProgress
			}
			return 0, err
		}
		now = time.Now()
		switch {
		case x.pump.clientFailed() != nil:
			return 0, err
		case x.down.hungUp():
			return 0, errClientGone
		case x.pump.running():
			since = now
		case now.Sub(since) >= limit:
			return 0, err
		}
	}
}

// passInterim sends a 1xx answer on, if the client can take it: a 100 only where one was
// asked for (RFC 9110 section 15.2).
func (x *Exchange) passInterim() error {
	if x.Request.Version == HTTP10 || x.Response.Status == 100 && !x.Request.expects {
		return nil
	}
	x.continued = x.continued || x.Response.Status == 100
	return x.down.passInterim(x)
}

// appendStatusLine writes version, status and reason. The two come from a checked head or
// from a handler, which may be wrong: nothing in them can end the line.
func appendStatusLine(b []byte, r *Response) []byte {
	if r.Status < 100 || r.Status > 999 {
		r.Status, r.Reason = 500, nil
	}
	b = append(b, "HTTP/1.1 "...)
	b = append(b, byte('0'+r.Status/100), byte('0'+r.Status/10%10), byte('0'+r.Status%10), ' ')
	if len(r.Reason) > 0 && !hasControl(r.Reason) {
		b = append(b, trimOWS(r.Reason)...)
	} else {
		b = append(b, StatusText(r.Status)...)
	}
	return append(b, '\r', '\n')
}
