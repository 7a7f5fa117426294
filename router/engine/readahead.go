package engine

import (
	"runtime/debug"
	"time"
)

// relayAhead is relay for an answer that may be read ahead of its client: the upstream has
// done its part, and serves others, as soon as the rest of its answer fits in the backlog.
// Beyond that it waits for the client, as without.
func (x *Exchange) relayAhead() error {
	if x.backlog == nil {
		x.backlog = new(backlog)
	}
	b := x.backlog
	b.open(x.BufferAnswer, x.up, &x.peer.srv.answers)
	whole := false
	defer func() {
		if !whole { // a panic: what is borrowed is for others
			b.abandon()
		}
	}()
	err := x.readAhead(b)
	b.part()
	if err != nil {
		x.dropUpstream() // it need not wait for the client
	} else {
		x.partEarly()
	}
	failed := x.finishBacklog(b)
	if whole = true; failed != nil {
		return x.breakOff(failed)
	}
	if err != nil {
		_ = x.down.flush(x) // a client that sees no beginning cannot see the cut
		return err
	}
	return x.endRelay()
}

// readAhead puts all of the answer into the backlog.
func (x *Exchange) readAhead(b *backlog) error {
	for {
		piece, err := x.upBody.buffered()
		switch {
		case err != nil:
			return err
		case len(piece) > 0:
			if err := x.hold(b, piece); err != nil {
				return err
			}
		case x.upBody.ended:
			return nil
		default:
			n, err := x.roomAhead(b)
			if err != nil {
				return err
			}
			if err := x.upBody.filled(x.up.fill(x, n)); err != nil {
				return err
			}
		}
	}
}

// hold puts a piece into the backlog. While there is no room it waits for the client.
func (x *Exchange) hold(b *backlog, piece []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil && len(piece) > 0 {
		n := b.put(piece)
		piece = piece[n:]
		switch {
		case n > 0:
		case b.idle(): // there is no budget for any of it
			return unlocked(b, func() error { return x.writeSlowly(piece) })
		default:
			x.setOff(b)
			b.changed.Wait()
		}
	}
	return b.err
}

// roomAhead has what is held, and the head before it, written while more is waited for, and
// returns how much is worth reading.
func (x *Exchange) roomAhead(b *backlog) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x.setOff(b)
	for b.err == nil && !b.roomy() {
		b.changed.Wait() // until then one writes
	}
	return min(x.upBody.in.want(), int(b.most-b.held)), b.err
}

// setOff sees to it that somebody writes. It is called with b.mu.
func (x *Exchange) setOff(b *backlog) {
	if !b.writing {
		b.writing = true
		go x.writeBehind(b)
	}
}

func (x *Exchange) writeBehind(b *backlog) {
	if srv := x.peer.srv; srv.OnPanic != nil {
		defer b.contain(srv)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	x.drain(b)
}

// contain keeps a panic to this exchange, whose answer ends in a cut.
func (b *backlog) contain(srv *Server) {
	if reason := recover(); reason != nil {
		srv.OnPanic(reason, debug.Stack())
		b.mu.Lock()
		b.err = errPanic
		b.rest()
		b.mu.Unlock()
	}
}

// drain writes until nothing is held, and flushes unless the end of the answer does. It is
// called with b.mu, and lets go of it to write.
func (x *Exchange) drain(b *backlog) {
	for flushed := false; b.err == nil; {
		switch {
		case !b.queue.empty():
			buf, r, w := b.queue.take()
			b.wrote(w-r, unlocked(b, func() error { return x.writeSlowly(buf[r:w]) }))
			putBuffer(buf)
			flushed = false
		case flushed || b.over:
			b.rest()
			return
		default:
			b.wrote(0, unlocked(b, func() error { return x.down.flush(x) }))
			flushed = true
		}
	}
	b.rest()
}

// writeSlowly writes for a client that may take its time.
func (x *Exchange) writeSlowly(piece []byte) error {
	if err := x.down.mayWrite(x); err != nil {
		return err
	}
	return x.down.writeBody(x, piece, false)
}

// unlocked does what may wait without b.mu.
func unlocked(b *backlog, do func() error) error {
	b.mu.Unlock()
	defer b.mu.Lock()
	return do()
}

// finishBacklog waits until the client has what is held, or returns why it has not.
func (x *Exchange) finishBacklog(b *backlog) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for b.writing {
		b.changed.Wait()
	}
	x.drain(b)
	return b.close()
}

// partEarly lets go of the upstream, whose answer is here, before the client has all of it.
// Where the request's body is still on its way, or a trailer is malformed, it is left to
// endRelay.
func (x *Exchange) partEarly() {
	if _, bad := x.responseTrailer(); bad != nil || !x.pump.finished(0) {
		return
	}
	x.pump.stop(x)
	x.upReusable = x.Response.keepAlive && x.upBody.framing != untilClose
	x.up.leaveHead(x)
	x.letGoUpstream(time.Now())
	if x.UpstreamDone != nil {
		x.UpstreamDone(x)
	}
}

// leftHead is where the head of an answer lies whose upstream has gone on.
type leftHead struct {
	buf    []byte    // of HTTP/1.1
	answer *h2answer // of HTTP/2
}

func (l *leftHead) release() {
	if l.buf != nil {
		putBuffer(l.buf)
	}
	if l.answer != nil {
		l.answer.release()
	}
	*l = leftHead{}
}
