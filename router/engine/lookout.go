package engine

import "time"

// sleeper is one that waits, for an upstream or its turn, and can be told to look up.
type sleeper interface{ interrupt() }

// glance is how long one waits for an upstream before the client is looked at, and watched.
// It costs nothing to those who are answered sooner.
const glance = 50 * time.Millisecond

// blindGlance is how often the client is looked at where nobody can watch it.
const blindGlance = time.Second

// WatchClient has something put into wake, if there is room in it, when the client may have
// left: ClientGone tells. It reports false where nobody can watch, so that one has to look now
// and then. It is for one who holds a request that has not been forwarded yet, and ends with
// UnwatchClient.
func (x *Exchange) WatchClient(wake chan<- struct{}) bool { return x.down.watch(waker(wake)) }

// UnwatchClient ends that: nothing is put into wake afterwards.
func (x *Exchange) UnwatchClient(wake chan<- struct{}) { x.down.unwatch(waker(wake)) }

// waker is a sleeper that waits at a channel.
type waker chan<- struct{}

func (w waker) interrupt() {
	select {
	case w <- struct{}{}:
	default: // it will look anyway
	}
}

// interrupt ends the read that waits, or the next one.
func (u *clientConn) interrupt() {
	u.interrupted.Store(true)
	_ = u.conn.SetReadDeadline(past) // fails only if it has closed
}

// watch has s interrupted when the client ends the connection, or its half of it. It reports
// false where nobody can tell.
func (c *serverConn) watch(s sleeper) bool {
	watched := false
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) { // fails only if it has closed, which the next look finds
			c.watchedAs = int(fd)
			watched = c.srv.lookout.add(int(fd), s)
		})
	}
	return watched
}

// unwatch ends that; s is not interrupted afterwards.
func (c *serverConn) unwatch(s sleeper) { c.srv.lookout.remove(c.watchedAs, s) }

// hasLeft reports whether the client has gone. One who ends its half may have left, or may
// have said all it wants to say and wait for the answer: TCP tells us the same. It is asked
// with the byte that it gets next in any case. If there is nobody who reads it, a reset comes
// back.
func (c *serverConn) hasLeft(x *Exchange) bool {
	switch found := c.poll(hangUpEvents); {
	case found&brokenEvents != 0:
		return true
	case found == 0, x.pump.running(), x.backlog.running(): // whoever reads or writes finds out
		return false
	}
	return x.foretell() != nil
}

// foretell sends the first byte of what comes next, if that is known: the "H" of a status
// line, or a zero before the size of a chunk.
func (x *Exchange) foretell() error {
	o := &x.out
	switch {
	case o.foretold || len(o.buf) > 0:
		return nil
	case !x.sent:
		o.skip = 1
		return o.foretell('H')
	case o.chunked:
		return o.foretell('0')
	}
	return nil
}

// watch has s interrupted when the client resets the stream, or the connection ends.
func (st *h2stream) watch(s sleeper) bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.sleeper = s
	if st.gone {
		s.interrupt()
	}
	return true
}

func (st *h2stream) unwatch(sleeper) {
	st.c.mu.Lock()
	st.sleeper = nil
	st.c.mu.Unlock()
}

// hasLeft reports whether the client has cancelled the request, or left.
func (st *h2stream) hasLeft(*Exchange) bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	return st.gone
}
