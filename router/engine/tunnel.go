package engine

import (
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// tunnel passes the 101 on, and then bytes both ways until both sides have ended or
// nothing has moved for long (RFC 9110 section 7.8). The engine does not look into them.
func (c *serverConn) tunnel(x *Exchange) error {
	u, ok := x.up.(*clientConn)
	if !ok {
		return errUpgrade
	}
	x.closing = true
	b := appendStatusLine(x.out.buf, &x.Response)
	b = x.Response.Fields.appendTo(b)
	x.out.buf = append(b, "Connection: upgrade\r\n\r\n"...)
	x.out.buf = append(x.out.buf, u.in.unread()...)
	if err := x.out.flush(); err != nil {
		x.dropUpstream()
		return err
	}
	c.enterTunnel()
	t := tunnel{limit: c.srv.limits.TunnelTimeout}
	t.moved.Store(time.Now().UnixNano())
	sent := make(chan error, 1)
	go func() {
		sent <- t.copy(&u.wire, &c.wire, x.in.unread(), &t.received)
	}()
	err := t.copy(&c.wire, &u.wire, nil, &t.sent)
	err = errors.Join(err, <-sent)
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
}

// copy moves bytes one way until src ends, and then ends that half of dst. A failure
// closes both connections, so that the other direction ends too.
func (t *tunnel) copy(dst, src *wire, first []byte, count *int64) error {
	err := t.relay(dst, src, first, count)
	if err != nil {
		_ = src.conn.Close()
		_ = dst.conn.Close()
		return err
	}
	_ = dst.closeWrite() // fails if the other side has closed too, and then all is said
	return nil
}

func (t *tunnel) relay(dst, src *wire, first []byte, count *int64) error {
	var in input
	defer in.release()
	if err := t.write(dst, first, count); err != nil {
		return err
	}
	for {
		src.armRead(time.Now(), t.limit)
		err := src.receive(&in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case isTimeout(err) && time.Since(time.Unix(0, t.moved.Load())) < t.limit:
			continue // the other direction is alive
		case err != nil:
			return err
		}
		if err := t.write(dst, in.unread(), count); err != nil {
			return err
		}
	}
}

// receive waits for bytes of a tunnel, if it can without holding a buffer. Over TLS it
// cannot: one byte read ahead would have to be sent on alone.
func (w *wire) receive(in *input) error {
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

func (t *tunnel) write(dst *wire, p []byte, count *int64) error {
	if len(p) == 0 {
		return nil
	}
	now := time.Now()
	t.moved.Store(now.UnixNano())
	dst.armWrite(now, t.limit)
	n, err := dst.conn.Write(p)
	*count += int64(n)
	return err
}
