package engine

import "time"

// The methods by which an exchange of HTTP/1.1 speaks to its client.

// armBody bounds the next read of a body.
func (c *serverConn) armBody(now time.Time, wait time.Duration) { c.armRead(now, wait) }

// fillBody reads more of a body.
func (c *serverConn) fillBody(in *input) error { return c.fill(in, in.want()) }

// cutBody ends the read of a body that waits.
func (c *serverConn) cutBody() { _ = c.conn.SetReadDeadline(past) } // fails only if it has closed

// mendBody forgets that there was a cut.
func (c *serverConn) mendBody() { c.readBy = time.Time{} }

// socket is the client's, unless TLS lies over it.
func (c *serverConn) socket() *wire {
	if c.splices() {
		return &c.wire
	}
	return nil
}

// passInterim sends a 1xx answer on.
func (c *serverConn) passInterim(x *Exchange) error {
	b := appendStatusLine(x.out.borrow(), &x.Response)
	b = x.Response.Fields.appendTo(b)
	x.out.buf = append(b, '\r', '\n')
	return x.out.flush()
}

// beginAnswer settles how the answer is framed, and collects its head.
func (c *serverConn) beginAnswer(x *Exchange) error {
	c.decideClosing(x)
	x.appendResponse()
	return nil
}

func (c *serverConn) writeBody(x *Exchange, piece []byte, _ bool) error { return x.out.body(piece) }

func (c *serverConn) flush(x *Exchange) error { return x.out.flush() }

func (c *serverConn) endAnswer(x *Exchange, trailer []byte) error { return x.out.end(trailer) }

// decideClosing settles, before the head is written, whether it has to say that the
// connection will close.
func (c *serverConn) decideClosing(x *Exchange) {
	switch {
	case !x.Request.keepAlive,
		c.served+1 >= c.srv.limits.MaxRequests,
		c.srv.draining.Load(),
		x.lengthUnknown() && x.Request.Version == HTTP10,
		!x.bodyWillBeRead():
		x.closing = true
	}
}

// bodyWillBeRead reports whether the request's body has been read by the time the answer
// ends, so that the next request can be found behind it. Where it is still on its way
// then, it is cheaper for all to close.
func (x *Exchange) bodyWillBeRead() bool {
	switch {
	case x.pump.started: // and so x.body is not ours to look at
		return x.pump.state.Load() == pumpFinished || x.pump.running() && x.bodyIsTaken()
	case x.body.ended:
		return true
	}
	whole, err := x.body.complete()
	return whole && err == nil
}

// bodyIsTaken reports whether a body that is on its way still has somewhere to go. After a
// final answer in place of a 100 the client may keep its body, and then nobody knows where
// the next request begins (RFC 9110 section 10.1.1). An upstream that is going to close has
// no use for the rest.
func (x *Exchange) bodyIsTaken() bool {
	return (!x.Request.expects || x.continued) && x.Response.keepAlive
}

// answeredAt is when there was an answer.
func (x *Exchange) answeredAt() time.Time {
	if x.up == nil || x.arrived.IsZero() {
		return time.Now()
	}
	return x.arrived
}

// appendResponse collects the head of the answer.
func (x *Exchange) appendResponse() {
	r := &x.Response
	b := appendStatusLine(x.out.borrow(), r)
	if r.Status == 204 || x.lengthUnknown() {
		r.Fields.Del(ContentLength)
	}
	if !r.Fields.Has(Date) {
		b = appendDate(b, x.answeredAt())
	}
	b = r.Fields.appendTo(b)
	x.out.chunked = false
	if x.lengthUnknown() && x.Request.Version == HTTP11 {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		x.out.chunked = true
	}
	if r.Status == 426 && r.Fields.Has(Upgrade) { // RFC 9110 section 7.8
		b = append(b, "Connection: upgrade\r\n"...)
	}
	switch {
	case x.closing:
		b = append(b, "Connection: close\r\n"...)
	case x.Request.Version == HTTP10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	x.out.buf = append(b, '\r', '\n')
}
