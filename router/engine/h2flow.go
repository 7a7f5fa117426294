package engine

import "golang.org/x/net/http2"

// Windows for what comes (RFC 9113 section 5.2). A stream's bounds what of a body is held
// for somebody who does not take it, a client's connection's what is held in all. That of a
// connection to an upstream has room for all its streams: many clients share it, and some
// that take nothing must not hold up the others.
const (
	h2StreamWindow  = 128 << 10
	h2ConnWindow    = 4 << 20
	h2ClientWindow  = h2MaxStreams * h2StreamWindow
	h2DefaultWindow = 1<<16 - 1
	h2MaxWindow     = 1<<31 - 1
)

// h2window is one window each way. It is used with the connection's mu.
type h2window struct {
	send int64 // what may still be sent; below 0 after a change of settings
	recv int64 // what may still come
	owed int64 // what has been used and not been given back
}

// receive counts what has come, and reports whether that was more than allowed.
func (w *h2window) receive(n int) bool {
	w.recv -= int64(n)
	return w.recv < 0
}

// refund notes that n bytes have been used, and returns what is to be given back now: not
// each little bit.
func (w *h2window) refund(n int, size int64) uint32 {
	w.owed += int64(n)
	if w.owed < size/4 {
		return 0
	}
	back := w.owed
	w.owed = 0
	w.recv += back
	return uint32(back)
}

// h2connFlow is what the streams share.
type h2connFlow struct {
	h2window
	size    int64 // of what may come
	initial int64 // of what may be sent on a new stream
}

func (f *h2connFlow) start(size int64) {
	f.send, f.recv, f.size, f.initial = h2DefaultWindow, size, size, h2DefaultWindow
}

// giveBack makes room in the connection's window. It is called with mu.
func (c *h2link) giveBack(n int) {
	if back := c.flow.refund(n, c.flow.size); back > 0 {
		c.writeWindowUpdate(0, back)
	}
}

// credit makes room for what the stream has used. It is called with mu.
func (st *h2half) credit(n int) {
	st.link.giveBack(n)
	if back := st.flow.refund(n, h2StreamWindow); back > 0 && !st.gone && !st.ended {
		st.link.writeWindowUpdate(st.id, back)
	}
}

// onWindowUpdate lets more be sent (RFC 9113 section 6.9).
func (c *h2link) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(f.Increment)
	switch st := c.streams[f.StreamID]; {
	case f.StreamID == 0:
		waited := c.flow.send <= 0
		if c.flow.send += n; c.flow.send > h2MaxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		if waited {
			for _, st := range c.streams {
				st.wakeWriter()
			}
		}
	case c.idle(f.StreamID):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil || st.gone:
		return c.annoyedLocked(1) // an honest one has had DATA, which has paid for it
	default:
		if st.flow.send += n; st.flow.send > h2MaxWindow {
			return streamError(st.id, http2.ErrCodeFlowControl)
		}
		st.wakeWriter()
	}
	if n < h2TinyWindow {
		return c.annoyedLocked(1)
	}
	return nil
}

// resizeWindows follows a change of the other side's initial window (RFC 9113 section 6.9.2).
// It is called with mu.
func (c *h2link) resizeWindows(initial int64) error {
	by := initial - c.flow.initial
	c.flow.initial = initial
	for _, st := range c.streams {
		if st.flow.send += by; st.flow.send > h2MaxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		st.wakeWriter()
	}
	return nil
}
