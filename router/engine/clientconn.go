package engine

import "time"

// clientConn is one connection to an upstream that speaks HTTP/1.1. An exchange has it for
// itself.
type clientConn struct {
	wire
	pool      *Pool
	in        input
	out       output
	requests  int
	idleSince time.Time
}

// close ends the connection and gives its buffers back.
func (u *clientConn) close() {
	_ = u.conn.Close() // nothing can be done about it
	u.in.release()
	u.out.release()
	u.pool.open.Add(-1)
}

// rest gives the buffers back and the connection to its pool, unless more has come than the
// answer: that is nobody's.
func (u *clientConn) rest(now time.Time) {
	if len(u.in.unread()) > 0 {
		u.close()
		return
	}
	u.in.release()
	u.out.release()
	u.pool.put(u, now)
}

// The methods by which an exchange speaks to its upstream; readHead is in forward.go.

func (u *clientConn) sendHead(x *Exchange) error {
	u.requests++
	u.out.start(&u.wire, u.pool.cfg.WriteTimeout)
	x.appendRequest(&u.out)
	return nil
}

func (u *clientConn) writeBody(piece []byte, _ bool) error { return u.out.body(piece) }

func (u *clientConn) flush() error { return u.out.flush() }

func (u *clientConn) endBody(trailer []byte) error { return u.out.end(trailer) }

func (u *clientConn) beginBody(x *Exchange) {
	u.in.pin()
	x.upBody.start(&u.in, x.Response.framing, x.Response.ContentLength)
}

func (u *clientConn) read(x *Exchange, p []byte) (int, error) { return x.readUpstream(u, p) }

func (u *clientConn) interrupt() { _ = u.conn.SetReadDeadline(past) } // fails only if it has closed

func (u *clientConn) unsent() bool { return u.out.wrote == 0 }

func (u *clientConn) cut() { _ = u.conn.Close() } // nothing can be done about it
