package engine

import (
	"io"
	"time"

	"golang.org/x/net/http2"
)

// tunnel answers an extended CONNECT, whose upstream has taken the WebSocket, and passes
// bytes on from then on (RFC 8441 section 5). Fields that are about the Upgrade stay behind.
func (st *h2stream) tunnel(x *Exchange) error {
	u, ok := x.up.(*clientConn)
	if !ok {
		return errUpgrade
	}
	fields := &x.Response.Fields
	x.Response.Status, x.Response.Reason = 200, nil
	fields.Del(SecWebSocketAccept)
	fields.Del(ContentLength)
	err := st.writeHead(x, false)
	x.Response.Status = 101 // what it was, and is in logs and counts, whatever the version of HTTP
	if err == nil {
		err = st.bind(u)
	}
	if err != nil {
		x.dropUpstream()
		return err
	}
	st.c.flush()
	err = x.relayTunnel(st, &u.wire, u.in.unread())
	if st.unbind() && err != nil {
		return errClientGone // the rest follows from it
	}
	return err
}

// bind names the upstream whose connection ends with the stream. Nobody else may be looking
// at the stream by then: its client can have ended its half.
func (st *h2stream) bind(u *clientConn) error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	if st.gone {
		return errClientGone
	}
	st.upstream = u.conn
	return nil
}

// unbind reports whether it was the client who broke the tunnel off.
func (st *h2stream) unbind() bool {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.upstream = nil
	return st.gone && !st.reset
}

// receive gets what the client sends in DATA. It holds no buffer while it waits.
func (st *h2stream) receive(in *input, limit time.Duration) error {
	for {
		n, err := st.tryReceive(in)
		switch {
		case n > 0:
			st.c.flushSoon()
			return nil
		case err != nil:
			return err
		}
		in.release()
		if err := await(st.readable, limit); err != nil {
			return err
		}
	}
}

func (st *h2stream) tryReceive(in *input) (int, error) {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	switch {
	case st.gone:
		return 0, errClientGone
	case st.body.empty() && st.ended:
		return 0, io.EOF
	case st.body.empty():
		return 0, nil
	}
	in.release()
	in.buf, in.r, in.w = st.body.take()
	st.credit(in.w - in.r)
	return in.w - in.r, nil
}

// deliver sends DATA, as the client's windows allow.
func (st *h2stream) deliver(p []byte, limit time.Duration) error {
	st.limit, st.by, st.paced = limit, time.Time{}, false
	if err := st.send(p, false, &st.delivered); err != nil {
		return err
	}
	st.c.flush()
	return nil
}

// endHalf is END_STREAM.
func (st *h2stream) endHalf() error { return st.endAnswer(nil, nil) }

// breakOff resets the stream with the code that RFC 8441 section 5 has for a TCP connection
// that was reset.
func (st *h2stream) breakOff() {
	st.c.mu.Lock()
	if !st.gone {
		st.reset = true
		st.c.writeReset(st.id, http2.ErrCodeCancel)
		st.lose()
	}
	st.c.mu.Unlock()
	st.c.flush()
}
