package engine

import (
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// tunnel passes the 101 on, and then bytes both ways (RFC 9110 section 7.8).
func (c *serverConn) tunnel(x *Exchange) error {
	u, ok := x.up.(*clientConn)
	if !ok {
		return errUpgrade
	}
	x.closing = true
	b := appendStatusLine(x.out.borrow(), &x.Response)
	b = x.Response.Fields.appendTo(b)
	x.out.buf = append(b, "Connection: upgrade\r\n\r\n"...)
	if err := x.out.flush(); err != nil {
		x.dropUpstream()
		return err
	}
	c.state.Store(connTunnel)
	return x.relayTunnel(&c.wire, &u.wire, u.in.unread())
}

// tunnelEnd is one of the two ends of a tunnel: a connection, or a stream of HTTP/2. One
// goroutine receives from it, another one delivers to it.
type tunnelEnd interface {
	// receive waits for bytes, at most so long; io.EOF means that the other side has ended
	// its half.
	receive(in *input, limit time.Duration) error
	// deliver writes p, and waits at most so long at a time until the other side takes it.
	deliver(p []byte, limit time.Duration) error
	// endHalf tells the other side that no more will come.
	endHalf() error
	// breakOff ends both halves: who receives from it or delivers to it fails.
	breakOff()
}

// relayTunnel passes bytes between client and upstream, first those that are here.
func (x *Exchange) relayTunnel(client tunnelEnd, up *wire, first []byte) error {
	t := tunnel{limit: max(x.peer.srv.limits.TunnelTimeout, x.Timeouts.Read)}
	err := t.run(x.peer.srv, client, up, x.in.unread(), first)
	x.out.bytes += t.sent
	x.body.bytes += t.received
	x.in.r = x.in.w
	x.dropUpstream()
	return err
}

// tunnel is the state that its two directions share.
type tunnel struct {
	limit          time.Duration
	moved          atomic.Int64 // when something last did, Unix nanoseconds
	sent, received int64        // bytes, each written by one direction alone
	failed         sync.Once
	err            error // of the direction that failed first
}

// run moves bytes both ways until both ends have ended or nothing has moved for long, and
// returns why it failed, if it did. The engine does not look into the bytes. What has come
// from the client and the upstream already is passed on first.
func (t *tunnel) run(srv *Server, client tunnelEnd, upstream *wire, fromClient, fromUpstream []byte) error {
	srv.tunnels.Add(1)
	defer srv.tunnels.Add(-1)
	t.touch()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if srv.OnPanic != nil {
			defer t.contain(srv, upstream, client)
		}
		t.copy(upstream, client, fromClient, &t.received)
	}()
	t.copy(client, upstream, fromUpstream, &t.sent)
	<-ended
	return t.err
}

func (t *tunnel) touch() { t.moved.Store(time.Now().UnixNano()) }

// quiet reports whether nothing has moved for long, either way.
func (t *tunnel) quiet() bool { return time.Since(time.Unix(0, t.moved.Load())) >= t.limit }

// copy moves bytes one way until src ends, and then ends that half of dst. A failure ends
// the other direction too.
func (t *tunnel) copy(dst, src tunnelEnd, first []byte, count *int64) {
	if err := t.relay(dst, src, first, count); err != nil {
		t.fail(err, dst, src)
		return
	}
	_ = dst.endHalf() // fails if the other side has closed too, and then all is said
}

func (t *tunnel) fail(err error, a, b tunnelEnd) {
	t.failed.Do(func() { t.err = err })
	a.breakOff()
	b.breakOff()
}

// contain keeps a panic in one direction to its tunnel.
func (t *tunnel) contain(srv *Server, a, b tunnelEnd) {
	if reason := recover(); reason != nil {
		srv.OnPanic(reason, debug.Stack())
		t.fail(errPanic, a, b)
	}
}

func (t *tunnel) relay(dst, src tunnelEnd, first []byte, count *int64) error {
	var in input
	defer in.release()
	for piece := first; ; piece = in.unread() {
		if len(piece) > 0 {
			t.touch()
			if err := dst.deliver(piece, t.limit); err != nil {
				return err
			}
			*count += int64(len(piece))
		}
		if len(in.buf) > 0 && len(piece) == len(in.buf) { // more will be there
			in.release()
			if err := t.splice(dst, src, count); err != nil {
				return err
			}
		}
		if err := t.receive(src, &in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// spliceGlance is how long the kernel is let wait for more to move. It holds a pipe meanwhile.
const spliceGlance = 20 * time.Millisecond

// splice lets the kernel move what comes, as long as much comes, if it can.
func (t *tunnel) splice(to, from tunnelEnd, count *int64) error {
	dst, _ := to.(*wire)
	src, _ := from.(*wire)
	if dst == nil || src == nil || !dst.splices() || !src.splices() {
		return nil
	}
	for {
		now := time.Now()
		t.touch()
		src.armRead(now, spliceGlance)
		dst.armWrite(now, t.limit)
		n, err := dst.tcp.ReadFrom(&io.LimitedReader{R: src.tcp, N: maxSplice})
		*count += n
		switch {
		case isTimeout(err) && time.Since(now) < t.limit:
			return nil // it was the source that paused, and all it had sent has been moved
		case err != nil:
			return err
		case n < maxSplice:
			return nil // it has ended, as the next look tells
		}
	}
}

// receive waits as long as the other direction is alive.
func (t *tunnel) receive(src tunnelEnd, in *input) error {
	for {
		if err := src.receive(in, t.limit); !isTimeout(err) || t.quiet() {
			return err
		}
	}
}

// receive waits without a buffer, if it can. Over TLS it cannot: one byte read ahead would
// have to be sent on alone.
func (w *wire) receive(in *input, limit time.Duration) error {
	w.armRead(time.Now(), limit)
	if w.tls == nil && w.raw != nil {
		in.release()
		return w.await(in)
	}
	if in.buf == nil {
		in.buf = getHeadBuffer()
	}
	n, err := w.conn.Read(in.buf)
	in.r, in.w = 0, n
	if n > 0 {
		return nil
	}
	return err
}

func (w *wire) deliver(p []byte, limit time.Duration) error {
	w.armWrite(time.Now(), limit)
	_, err := w.conn.Write(p)
	return err
}

func (w *wire) endHalf() error { return w.closeWrite() }

func (w *wire) breakOff() { _ = w.conn.Close() } // nothing can be done about it
