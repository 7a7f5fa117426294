package engine

import (
	"cmp"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// h2stream is one stream of an h2conn: a request and its answer. All but x is used with
// the connection's mu; x is for the goroutine that serves it.
type h2stream struct {
	h2half
	c         *h2conn
	x         *Exchange
	refusal   *Refusal
	cut       bool          // nobody wants the rest of the body
	patience  time.Duration // of the next read of the body
	delivered int64         // of a tunnel
}

var h2streams = sync.Pool{New: func() any { return &h2stream{h2half: newH2Half()} }}

// newH2Stream is called with mu, by the reading goroutine.
func newH2Stream(c *h2conn, id uint32) *h2stream {
	st := h2streams.Get().(*h2stream)
	st.begin(&c.h2link, id)
	st.c, st.cut = c, false
	st.x = newH2Request(st)
	return st
}

// serveReady has the streams served whose heads are complete.
func (c *h2conn) serveReady() {
	for i, st := range c.ready {
		c.ready[i] = nil
		select {
		case c.jobs <- st:
		default:
			go c.work(st)
		}
	}
	c.ready = c.ready[:0]
}

// work serves streams, one after the other.
func (c *h2conn) work(st *h2stream) {
	for st != nil {
		st.serve()
		st = <-c.jobs
	}
}

// dismiss ends the goroutines that wait for a stream.
func (c *h2conn) dismiss() {
	for {
		select {
		case c.jobs <- nil:
		default:
			return
		}
	}
}

// serve is what serverConn.exchange is for HTTP/1.1.
func (st *h2stream) serve() {
	c, x := st.c, st.x
	served := false
	defer func() {
		if !served {
			st.fail()
		}
	}()
	if c.srv.OnPanic != nil {
		defer c.contain()
	}
	c.srv.requests.Add(1)
	st.preload()
	if st.refusal != nil {
		c.srv.Handler.Refuse(x, st.refusal)
	} else {
		c.srv.Handler.Serve(x)
	}
	if x.pump.started { // the handler has left an answer unsent
		x.pump.stop(x)
	}
	x.ended = time.Now()
	c.srv.Handler.Done(x)
	st.linger()
	served = true
	st.retire()
}

// linger waits for the end of a body whose answer has been sent, for a moment: most come to
// it, and then nothing has to be reset. It is thrown away.
func (st *h2stream) linger() {
	until := time.Time{}
	for !st.settled() {
		now := time.Now()
		if until.IsZero() {
			until = now.Add(lateBody)
		}
		if await(st.readable, until.Sub(now)) != nil {
			return
		}
	}
}

// settled reports that the end of the request's body is not waited for, and throws away what has
// come of it.
func (st *h2stream) settled() bool {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.giveBack(st.body.release())
	return st.ended || st.gone || !st.endSent || c.leaving == h2farewell
}

// fail ends a stream whose handler has panicked. What it held is left to the garbage
// collector, but for its part of a budget.
func (st *h2stream) fail() {
	st.x.repayBudget()
	st.c.mu.Lock()
	if !st.gone {
		st.c.writeReset(st.id, http2.ErrCodeInternal)
	}
	st.c.remove(st)
	st.c.mu.Unlock()
	st.c.flush()
}

// preload takes what of the body is here already, so that a short one goes to the upstream
// with its head; and one that has ended by now has a length.
func (st *h2stream) preload() {
	c, x := st.c, st.x
	r := &x.Request
	if r.framing == noBody && !r.upgrade {
		x.startBody()
		return
	}
	c.mu.Lock()
	n := st.body.read(x.in.buf[x.in.w:])
	x.in.w += n
	st.credit(n)
	if st.ended && st.body.empty() && len(st.trailer) == 0 && r.framing == byChunks {
		r.framing, r.ContentLength = byLength, int64(n)
		if n == 0 {
			r.framing = noBody
		}
	}
	c.mu.Unlock()
	x.startBody()
}

// retire ends the stream, after its answer, and gives all back.
func (st *h2stream) retire() {
	c, x := st.c, st.x
	x.letGo()
	c.mu.Lock()
	switch {
	case st.gone:
	case !st.endSent:
		// The client must see that it was cut, and why, where the upstream has said so.
		c.writeReset(st.id, cmp.Or(x.cutCode, http2.ErrCodeInternal))
	case !st.ended:
		// The answer is whole, and the rest of the request is not wanted (RFC 9113 section
		// 8.1).
		c.writeReset(st.id, http2.ErrCodeNo)
	}
	if st.endSent {
		c.guard.earn(h2EarnAnswer)
	}
	c.remove(st)
	c.flushLocked()
	c.mu.Unlock()
	st.release()
}

// remove takes a stream off the connection. It is called with mu.
func (c *h2conn) remove(st *h2stream) {
	st.gone = true
	c.giveBack(st.body.release())
	delete(c.streams, st.id)
	if len(c.streams) == 0 {
		c.idleFrom = time.Now()
		c.state.Store(connIdle)
		if c.leaving == h2farewell {
			c.stopReading()
		}
	}
	c.changed.Broadcast()
}

// abandon ends a stream that nobody has begun to serve.
func (st *h2stream) abandon() {
	st.c.mu.Lock()
	st.c.remove(st)
	st.c.mu.Unlock()
	st.release()
}

// release gives the memory back. Nobody knows the stream any more.
func (st *h2stream) release() {
	x := st.x
	x.in.release()
	x.out.release()
	x.down, x.peer = nil, nil
	exchanges.Put(x)
	st.end()
	st.c, st.x, st.refusal = nil, nil, nil
	h2streams.Put(st)
}

// await waits for a wake, at most so long.
func await(c chan struct{}, limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c:
		return nil
	case <-t.C:
		return os.ErrDeadlineExceeded
	}
}

// armBody says how long fillBody may wait.
func (st *h2stream) armBody(_ time.Time, wait time.Duration) { st.patience = wait }

func (st *h2stream) cutBody() { st.setCut(true) }

func (st *h2stream) mendBody() { st.setCut(false) }

func (st *h2stream) setCut(cut bool) {
	st.c.mu.Lock()
	st.cut = cut
	st.c.mu.Unlock()
	st.wakeReader()
}

// socket is none: the kernel makes no frames.
func (st *h2stream) socket() *wire { return nil }

// fillBody gets more of the request's body. While it waits it holds no buffer.
func (st *h2stream) fillBody(in *input) error {
	in.used()
	for {
		err := st.takeBody(in)
		if len(in.unread()) > 0 {
			st.c.flushSoon()
			return nil
		}
		if err != nil {
			return err
		}
		if err := await(st.readable, st.patience); err != nil {
			return err
		}
	}
}

// takeBody takes what is here of the body, if anything is.
func (st *h2stream) takeBody(in *input) error {
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	switch {
	case st.cut:
		return errStopped
	case st.gone && st.reset:
		return errCutShort
	case st.gone:
		return errClientGone
	case !st.body.empty():
		in.buf, in.r, in.w = st.body.take()
		st.credit(in.w - in.r)
	case st.ended:
		b := &st.x.body
		b.trailer = append(b.trailer[:0], st.trailer...)
		return io.EOF
	}
	return nil
}
