package engine

import "time"

// smallStep is how much is read for a client that was slow to take the last: with its
// framing it fits in a buffer of one piece.
const smallStep = pieceBufferSize - 2*chunkOverhead

// room waits until the client's socket takes something. A body that flows is read only as it
// can go on, so that what waits for a slow reader waits in the kernels of three machines and
// not here.
func (c *serverConn) room(x *Exchange) (int, error) {
	in := x.upBody.in
	n := in.want()
	flows := n > pieceBufferSize || x.step < bodyBufferSize ||
		x.upBody.framing == byLength && x.upBody.left >= spliceFrom
	if !flows {
		return n, nil // so little comes that a look is not worth it
	}
	if !c.writable() {
		in.used()
		x.out.release()
		start := time.Now()
		if err := c.awaitRoom(x, start); err != nil {
			return 0, err
		}
		if time.Since(start) > spliceFast {
			x.step, x.spliceStep = smallStep, minSplice
		}
	}
	n = min(bodyBufferSize, x.step)
	x.step = min(2*x.step, bodyBufferSize)
	return n, nil
}

func (c *serverConn) mayWrite(x *Exchange) error { return c.awaitRoom(x, time.Now()) }

// mayWrite has nothing to add: what the connection writes for all streams has its own patience.
func (st *h2stream) mayWrite(*Exchange) error { return nil }

// awaitRoom waits until there is room in the client's socket. As long as it takes enough of
// what is in there already, it may have all the time it needs.
func (c *serverConn) awaitRoom(x *Exchange, now time.Time) error {
	for ; ; now = time.Now() {
		if expired(x.by, now) {
			return errTotal
		}
		c.armWrite(now, within(x.out.timeout, x.by, now))
		queued := c.queued()
		err := c.awaitWritable()
		if !isTimeout(err) || tooSlow(queued-c.queued(), x.out.minRate, x.out.timeout) {
			return err
		}
	}
}

// room waits until the connection has brought on its way what waits already. Of what the
// stream's windows do not let go, next to nothing is read.
func (st *h2stream) room(x *Exchange) (int, error) {
	c, in := st.c, x.upBody.in
	c.mu.Lock()
	defer c.mu.Unlock()
	n := in.want()
	if len(c.out.pending) > h2HighWater {
		in.used()
		if err := st.awaitRoom(); err != nil {
			return 0, err
		}
	}
	window := max(min(st.flow.send, c.flow.send), headBufferSize)
	return int(min(int64(n), window)), nil
}
