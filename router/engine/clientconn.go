package engine

import "time"

// clientConn is one connection to an upstream. An exchange has it for itself.
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

// rest gives the buffers back and the connection to its pool.
func (u *clientConn) rest(now time.Time) {
	u.in.release()
	u.out.release()
	u.pool.put(u, now)
}
