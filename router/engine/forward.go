package engine

import (
	"errors"
	"os"
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
	x.beginWaits(p)
	if failed := x.TakeBody(); failed != nil {
		return failed
	}
	x.tried = time.Now()
	whole, bad := x.body.complete()
	switch {
	case bad != nil: // known before a connection is spent on it
		return &UpstreamError{Cause: CauseClientBody, Unsent: true, Err: bad}
	case !x.Request.sound():
		return &UpstreamError{Cause: CauseProtocol, Unsent: true, Err: errTarget}
	case x.Request.upgrade && p.cfg.Protocol == ProtocolHTTP2: // which has no Upgrade; and we make no CONNECT
		return &UpstreamError{Cause: CauseProtocol, Unsent: true, Err: errUpgradeH2}
	}
	u, reused, failed := x.reach(p)
	if failed != nil {
		return x.asDeadline(failed)
	}
	x.up = u
	if err := x.exchangeHeads(u, whole); err != nil {
		x.pump.stop(x) // it may be sending yet, and what has left counts
		err.Reused, err.Unsent = reused || err.Reused, u.unsent()
		x.dropUpstream()
		x.Response.reset() // what it had lay in a buffer that is gone
		return x.asDeadline(err)
	}
	x.answered = true
	return nil
}

// reach finds a connection to the upstream, or makes one, in the time there is.
func (x *Exchange) reach(p *Pool) (u upstream, reused bool, failed *UpstreamError) {
	if expired(x.by, x.tried) {
		return nil, false, &UpstreamError{Cause: CauseDeadline, Unsent: true, Err: errTotal}
	}
	return p.upstream(x.peer.proxyHeader(x.proxyOut), within(x.waits.Connect, x.by, x.tried))
}

// beginWaits settles what may be waited for.
func (x *Exchange) beginWaits(p *Pool) {
	x.waits = x.Timeouts.or(&p.cfg)
	x.by = x.Deadline()
}

// rewind makes the body readable from its start, for another try.
func (x *Exchange) rewind() {
	x.Response.reset()
	x.arrived = time.Time{}
	if x.in.pinned == nil && x.gathered == nil {
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
	if err := u.sendHead(x, whole); err != nil {
		return &UpstreamError{Cause: CauseClosed, Err: err}
	}
	if whole {
		err, byClient := x.sendBody(u)
		if err != nil && byClient {
			return &UpstreamError{Cause: CauseClientBody, Err: err}
		}
		// A failed write is not the end: the upstream may have answered and closed.
		u.bodySent()
		if isTimeout(err) {
			x.waits.FirstByte = min(x.waits.FirstByte, lateAnswer)
		}
	} else {
		x.pump.begin(x)
	}
	return x.receiveHead(u)
}

// appendRequest writes the head that goes to the upstream.
func (x *Exchange) appendRequest(o *output) {
	r := &x.Request
	b := append(o.borrow(), r.Method...)
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
	for keepAlive := true; ; {
		if err := u.readHead(x); err != nil {
			return err
		}
		keepAlive = keepAlive && x.Response.keepAlive
		status := x.Response.Status
		switch {
		case status == 101 && !x.switches(),
			x.Request.webSocketKey != nil && status/100 == 2: // to a CONNECT it would say that the tunnel is there
			return protocolError(errUpgrade)
		case status == 101, status >= 200:
			x.Response.keepAlive = keepAlive
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
	return x.Request.upgrade && x.Response.accepts(x.Request.Fields.Get(Upgrade)) &&
		x.Request.provesWebSocket(&x.Response)
}

// headArrived begins the body. What of it came with the head is looked through: while
// nothing has been written to the client, a malformed body still has a clear answer.
func (x *Exchange) headArrived(u upstream) *UpstreamError {
	u.beginBody(x)
	if _, err := x.upBody.complete(); err != nil {
		return protocolError(err)
	}
	x.arrived = time.Now()
	x.spliceStep, x.slow, x.step = minSplice, false, bodyBufferSize
	return nil
}

func protocolError(err error) *UpstreamError { return &UpstreamError{Cause: CauseProtocol, Err: err} }

// readHead reads and parses one head.
func (u *clientConn) readHead(x *Exchange) *UpstreamError {
	if !u.asks {
		letOthers()
	}
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
		if u.in.buf != nil && !u.in.compact(u.pool.cfg.MaxHead) {
			return protocolError(errHeadTooLarge)
		}
		if err := x.readUpstream(u, headBufferSize); err != nil {
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

// readUpstream reads once: the rest of a head that has begun, or up to n bytes of what
// follows. While it waits it holds no buffer, if it can, and minds whether there is still
// somebody to answer, and whether the request's body still comes; the time in which it does
// is not the upstream's.
func (x *Exchange) readUpstream(u *clientConn, n int) error {
	limit := x.patience(len(u.in.unread()) > 0)
	now := time.Now()
	err := u.read(n, x.arrived.IsZero(), now, min(glance, within(limit, x.by, now)))
	if !isTimeout(err) {
		return err
	}
	defer u.settle()
	return x.waitOn(u, &now, limit, func(now time.Time, wait time.Duration) error {
		return u.read(n, x.arrived.IsZero(), now, wait)
	})
}

// patience is how long the upstream may take for what comes next. begun: a part of the head
// is here.
func (x *Exchange) patience(begun bool) time.Duration {
	if x.arrived.IsZero() && !begun {
		return x.waits.FirstByte
	}
	return x.waits.Read
}

// lateAnswer is how long an upstream that has stopped taking the request may go on to answer.
const lateAnswer = time.Second

// waitOn goes on waiting for an upstream that takes its time, at most limit since then. try
// waits once, and ends with a time-out when s is interrupted.
func (x *Exchange) waitOn(s sleeper, since *time.Time, limit time.Duration, try func(now time.Time, wait time.Duration) error) error {
	watched := x.down.watch(s)
	defer x.down.unwatch(s)
	for {
		now := time.Now()
		switch {
		case x.pump.running():
			*since = now
		case x.pump.upstreamFailed():
			limit = min(limit, lateAnswer)
		}
		left := limit - now.Sub(*since)
		switch {
		case x.pump.clientFailed() != nil:
			return os.ErrDeadlineExceeded
		case x.backlog.failed(), x.down.hasLeft(x):
			return errClientGone
		case expired(x.by, now):
			return errTotal
		case left <= 0:
			return os.ErrDeadlineExceeded
		}
		if !watched || x.pump.running() || x.backlog.running() {
			left = min(left, blindGlance)
		}
		if err := try(now, within(left, x.by, now)); !isTimeout(err) {
			return err
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
