package engine

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// h2stream is one stream of an h2conn: a request and its answer. All but x is used with
// the connection's mu; x is for the goroutine that serves it.
type h2stream struct {
	c       *h2conn
	id      uint32
	x       *Exchange
	refusal *Refusal

	body     h2queue // of the request, as far as it has come
	trailer  []byte  // field lines; complete once ended
	received int64
	declared int64 // Content-Length; -1: none
	flow     h2window
	ended    bool     // the client has sent all (half-closed, RFC 9113 section 5.1)
	endSent  bool     // and so have we
	gone     bool     // it was reset, or the connection is lost: nothing more may be sent
	byPeer   bool     // it was the client who reset it
	reset    bool     // it was us
	cut      bool     // nobody wants the rest of the body
	connect  bool     // it becomes a tunnel, if the upstream takes it
	upstream net.Conn // of the tunnel that it is: it ends with the stream

	sleeper  sleeper       // waits for the upstream
	patience time.Duration // of the next read of the body
	waited   time.Duration // for windows
	taken    int64         // of the answer when that began to count

	readable, writable chan struct{} // capacity 1: look again
}

var h2streams = sync.Pool{New: func() any {
	return &h2stream{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}}

// newH2Stream is called with mu, by the reading goroutine.
func newH2Stream(c *h2conn, id uint32) *h2stream {
	st := h2streams.Get().(*h2stream)
	*st = h2stream{
		c: c, id: id, declared: -1, readable: st.readable, writable: st.writable,
		trailer: st.trailer[:0], body: h2queue{buffers: st.body.buffers[:0]},
		flow: h2window{send: c.flow.initial, recv: h2StreamWindow},
	}
	st.x = newH2Request(st)
	return st
}

// serveReady has the streams served whose heads are complete.
func (c *h2conn) serveReady() {
	for i, st := range c.ready {
		c.ready[i] = nil
		c.mu.Lock()
		if n := len(c.idle); n > 0 {
			next := c.idle[n-1]
			c.idle = c.idle[:n-1]
			c.mu.Unlock()
			next <- st
			continue
		}
		c.mu.Unlock()
		go c.work(st)
	}
	c.ready = c.ready[:0]
}

// work serves streams, one after the other.
func (c *h2conn) work(st *h2stream) {
	next := make(chan *h2stream, 1)
	for st != nil {
		st.serve()
		c.mu.Lock()
		if c.dead != nil || c.over {
			c.mu.Unlock()
			return
		}
		c.idle = append(c.idle, next)
		c.mu.Unlock()
		st = <-next
	}
}

// dismiss ends the goroutines that wait for a stream.
func (c *h2conn) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, next := range c.idle {
		next <- nil
		c.idle[i] = nil
	}
	c.idle = c.idle[:0]
}

// serve is what serverConn.exchange is for HTTP/1.1.
func (st *h2stream) serve() {
	c, x := st.c, st.x
	served := false
	defer func() {
		if !served {
			st.lose()
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
	c.srv.Handler.Done(x)
	st.linger()
	served = true
	st.retire()
}

// linger waits for the end of a body whose answer has been sent, for a moment: most come to
// it, and then nothing has to be reset. It is thrown away.
func (st *h2stream) linger() {
	c := st.c
	for until := time.Now().Add(lateBody); ; {
		c.mu.Lock()
		over := st.ended || st.gone || !st.endSent || c.leaving == h2farewell
		c.giveBack(st.body.release())
		c.mu.Unlock()
		if over || await(st.readable, time.Until(until)) != nil {
			return
		}
	}
}

// lose ends a stream whose handler has panicked. What it held is left to the garbage
// collector.
func (st *h2stream) lose() {
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
	x.letGo(time.Now())
	c.mu.Lock()
	switch {
	case st.gone:
	case !st.endSent:
		c.writeReset(st.id, http2.ErrCodeInternal) // the client must see that it was cut
	case !st.ended:
		// The answer is whole, and the rest of the request is not wanted (RFC 9113 section
		// 8.1).
		c.writeReset(st.id, http2.ErrCodeNo)
	}
	if st.endSent {
		c.guard.earn(h2EarnAnswer)
	}
	c.remove(st)
	c.mu.Unlock()
	c.flush()
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
	for _, c := range []chan struct{}{st.readable, st.writable} {
		select {
		case <-c:
		default:
		}
	}
	if cap(st.trailer) > maxScratch {
		st.trailer = nil
	}
	st.c, st.x, st.refusal = nil, nil, nil
	h2streams.Put(st)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told
	}
}

func (st *h2stream) wakeReader() { wake(st.readable) }

func (st *h2stream) wakeWriter() { wake(st.writable) }

// wakeAll tells all who are at the stream that it is gone.
func (st *h2stream) wakeAll() {
	if st.sleeper != nil {
		st.sleeper.interrupt()
	}
	st.wakeReader()
	st.wakeWriter()
	if st.upstream != nil {
		_ = st.upstream.Close() // nothing can be done about it
	}
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
