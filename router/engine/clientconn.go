package engine

import (
	"io"
	"os"
	"sync/atomic"
	"time"
)

// clientConn is one connection to an upstream that speaks HTTP/1.1. An exchange has it for
// itself.
type clientConn struct {
	wire
	pool      *Pool
	in        input
	out       output
	requests  int
	idleSince time.Time

	asks        bool        // what is in out leaves with the next read
	interrupted atomic.Bool // look up from the wait
}

// read is receive, bounded by wait. It ends with a time-out when it is interrupted.
func (u *clientConn) read(n int, head bool, now time.Time, wait time.Duration) error {
	u.armRead(now, wait)
	if u.interrupted.Load() { // after arming: the interrupt's own deadline may have come first
		u.settle()
		return os.ErrDeadlineExceeded
	}
	err := u.receive(n, head)
	if isTimeout(err) {
		u.readBy = time.Time{} // what is armed is past
	}
	return err
}

// settle forgets an interrupt that has come too late.
func (u *clientConn) settle() {
	if u.interrupted.Load() {
		u.interrupted.Store(false)
		u.readBy = time.Time{}
	}
}

// receive reads the rest of a head of which something is here, or up to n bytes.
func (u *clientConn) receive(n int, head bool) error {
	switch {
	case u.asks:
		return u.ask(n)
	case !head || u.in.buf == nil:
		return u.wire.fill(&u.in, n)
	}
	k, err := u.conn.Read(u.in.buf[u.in.w:])
	u.in.w += k
	switch {
	case k > 0:
		return nil
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

// ask writes what is left of the request and reads up to n bytes of what comes back.
func (u *clientConn) ask(n int) error {
	all := len(u.out.buf)
	sent, tried, err := u.wire.ask(u.out.buf, &u.in, n)
	if !tried {
		return err
	}
	u.asks = false
	defer u.out.release()
	u.out.wrote += int64(sent)
	if err != nil || u.in.buf != nil || sent == all {
		u.out.failed = u.out.failed || sent < all // and yet there may be an answer
		return err
	}
	u.out.skip = sent
	_ = u.out.flush() // a failed write is not the end: the upstream may have answered
	return u.wire.fill(&u.in, n)
}

// close ends the connection and gives its buffers back.
func (u *clientConn) close() {
	_ = u.conn.Close() // nothing can be done about it
	u.in.release()
	u.out.release()
	u.pool.open.Add(-1)
}

// rest gives the buffers back and the connection to its pool, unless more has come than the
// answer: that is nobody's. Nor where a part of the request has not left: what is sent next would
// be taken for it.
func (u *clientConn) rest(now time.Time) {
	if u.out.failed || len(u.in.unread()) > 0 {
		u.close()
		return
	}
	u.in.release()
	u.out.release()
	u.pool.put(u, now)
}

// The methods by which an exchange speaks to its upstream; readHead is in forward.go.

func (u *clientConn) sendHead(x *Exchange, whole bool) error {
	u.requests++
	u.asks = whole && u.splices()
	u.out.start(&u.wire, x.waits.Send)
	u.out.by = x.by
	x.appendRequest(&u.out)
	return nil
}

func (u *clientConn) writeBody(piece []byte, _ bool) error { return u.out.body(piece) }

func (u *clientConn) flush() error { return u.out.flush() }

func (u *clientConn) endBody(trailer []byte) error {
	if u.asks && u.out.wrote == 0 && !u.out.failed {
		u.out.close(trailer)
		return nil
	}
	if u.asks { // not where a pump sends, while somebody waits for the answer
		u.asks = false
	}
	return u.out.end(trailer)
}

func (u *clientConn) bodySent() {
	if !u.asks {
		u.out.release()
	}
}

func (u *clientConn) beginBody(x *Exchange) {
	u.in.pin()
	x.upBody.start(&u.in, x.Response.framing, x.Response.ContentLength)
}

func (u *clientConn) fill(x *Exchange, n int) error { return x.readUpstream(u, n) }

func (u *clientConn) leaveHead(x *Exchange) {
	if len(u.in.unread()) > 0 {
		x.upReusable = false // there is more than the answer: that is nobody's
	}
	x.left.buf = u.in.leaveHead()
}

func (u *clientConn) unsent() bool { return u.out.wrote == 0 }

func (u *clientConn) cut() { _ = u.conn.Close() } // nothing can be done about it
