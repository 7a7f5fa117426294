package engine

import (
	"io"
	"os"
	"sync/atomic"
	"time"
)

// clientConn is one connection to an upstream. An exchange has it for itself.
type clientConn struct {
	wire
	pool      *Pool
	in        input
	out       output
	requests  int
	idleSince time.Time

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
	if !head || u.in.buf == nil {
		return u.fill(&u.in, n)
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
