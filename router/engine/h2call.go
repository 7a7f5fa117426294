package engine

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// h2call is one stream of an h2client: a request and its answer, seen by the exchange that
// sends it. What h2half has, and the first part, is used with the connection's mu.
type h2call struct {
	h2half
	c       *h2client
	answers []*h2answer // heads that have come and were not taken
	headed  bool        // the final one has come
	head    bool        // the request is a HEAD
	refused bool        // the upstream has not looked at the request
	fault   error       // what is wrong with what it has sent

	// Of the exchange.
	taken *h2answer // the head that x.Response has
	in    input     // of the body
	timer *time.Timer
	sent  int64 // of the request's content
}

var h2calls = sync.Pool{New: func() any {
	u := &h2call{h2half: newH2Half(), timer: time.NewTimer(time.Hour)}
	u.timer.Stop()
	return u
}}

// newCall takes the place that was reserved. The stream begins with sendHead.
func (c *h2client) newCall() *h2call {
	u := h2calls.Get().(*h2call)
	c.mu.Lock()
	u.begin(&c.h2link, 0)
	c.mu.Unlock()
	u.c, u.call = c, u
	u.answers, u.headed, u.head, u.refused, u.fault = u.answers[:0], false, false, false, nil
	u.taken, u.in, u.sent = nil, input{}, 0
	return u
}

// sendHead opens the stream (RFC 9113 section 8.3.1).
func (u *h2call) sendHead(x *Exchange, _ bool) error {
	c := u.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := u.awaitRoom(); err != nil {
		return err
	}
	if c.leaving || c.dead != nil || c.seenID >= h2MaxID-2 {
		return errLeaving
	}
	if c.seenID == 0 {
		c.seenID = 1
	} else {
		c.seenID += 2
	}
	if c.seenID >= h2MaxID-2 { // the last there is (RFC 9113 section 5.1.1)
		c.leaving = true
	}
	u.limit, u.by = x.waits.Send, x.by
	u.id, u.flow.send, u.head = c.seenID, c.flow.initial, x.Request.IsMethod("HEAD")
	c.streams[u.id] = &u.h2half
	ends := c.out.encoder.request(x, c.wire.tls != nil)
	u.appendBlock(ends)
	return nil
}

// writeBody sends one piece of the request's content. While it waits for the upstream,
// nobody reads from the client.
func (u *h2call) writeBody(piece []byte, last bool) error { return u.send(piece, last, &u.sent) }

func (u *h2call) flush() error {
	u.c.flush()
	return nil
}

func (u *h2call) endBody(trailer []byte) error { return u.finish(trailer) }

func (u *h2call) bodySent() {}

// readHead waits for the next head.
func (u *h2call) readHead(x *Exchange) *UpstreamError {
	since := time.Now()
	for {
		a, failed := u.nextHead()
		switch {
		case a != nil:
			u.keep(a)
			x.Response, a.response = a.response, x.Response
			if x.Request.Version != HTTP20 {
				x.Response.forHTTP1(a.empty)
			}
			return nil
		case failed != nil && x.pump.clientFailed() == nil:
			return failed
		}
		if err := u.await(x, &since); err != nil {
			return x.headError(err, true)
		}
	}
}

// forHTTP1 settles the framing of an answer that goes to a client of HTTP/1.1: there a
// missing body has a length, and a trailer section needs chunks.
func (r *Response) forHTTP1(empty bool) {
	switch {
	case empty:
		r.Fields.AddString(ContentLength, "0")
	case r.framing == byLength && r.Fields.Has(Trailer):
		r.Fields.Del(ContentLength)
		r.framing, r.ContentLength = untilClose, -1
	}
}

func (u *h2call) nextHead() (*h2answer, *UpstreamError) {
	u.c.mu.Lock()
	defer u.c.mu.Unlock()
	if u.gone && u.reset { // what it has sent before is worth nothing
		return nil, u.whyGone()
	}
	if len(u.answers) > 0 {
		a := u.answers[0]
		copy(u.answers, u.answers[1:])
		u.answers = u.answers[:len(u.answers)-1]
		return a, nil
	}
	if u.gone {
		return nil, u.whyGone()
	}
	return nil, nil
}

// keep holds on to the head that is in use, and lets go of the one before.
func (u *h2call) keep(a *h2answer) {
	if u.taken != nil {
		u.taken.release()
	}
	u.taken = a
}

// await waits until there may be something new, in which since began. It minds whether there is
// still somebody to answer, and whether the request's body still comes.
func (u *h2call) await(x *Exchange, since *time.Time) error {
	limit := x.patience(false)
	now := time.Now()
	if first := glance - now.Sub(*since); first > 0 && u.sleep(now, min(first, within(limit, x.by, now))) == nil {
		return nil
	}
	err := x.waitOn(u, since, limit, u.sleep)
	if errors.Is(err, os.ErrDeadlineExceeded) && x.pump.clientFailed() == nil {
		u.c.suspect(*since)
		return errH2Timeout
	}
	return err
}

func (u *h2call) sleep(_ time.Time, wait time.Duration) error {
	u.timer.Reset(wait)
	select {
	case <-u.readable:
		u.timer.Stop()
		return nil
	case <-u.timer.C:
		return os.ErrDeadlineExceeded
	}
}

// beginBody begins with what is here. If that is all, its length is known.
func (u *h2call) beginBody(x *Exchange) {
	c := u.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.Response.framing == noBody {
		x.upBody.start(&u.in, noBody, 0)
		return
	}
	if !u.ended {
		x.upBody.start(&u.in, untilClose, -1) // that its length is right was seen to
		return
	}
	n := u.body.len()
	if n > 0 {
		u.in.buf, u.in.r, u.in.w = u.body.take()
		u.credit(u.in.w - u.in.r)
	}
	if !u.body.empty() {
		x.upBody.start(&u.in, untilClose, -1)
		return
	}
	x.upBody.start(&u.in, byLength, int64(n))
	x.upBody.trailer = append(x.upBody.trailer, u.trailer...)
}

// fill gets more of the answer's body. While it waits it holds no buffer.
func (u *h2call) fill(x *Exchange, _ int) error {
	u.in.release()
	for since := time.Now(); ; {
		err := u.takeBody(x)
		if err != nil || len(u.in.unread()) > 0 {
			return err
		}
		if err := u.await(x, &since); err != nil {
			return err
		}
	}
}

// takeBody takes what is here of the body, if anything is.
func (u *h2call) takeBody(x *Exchange) error {
	c := u.c
	c.mu.Lock()
	waits := false
	if !u.body.empty() {
		u.in.buf, u.in.r, u.in.w = u.body.take()
		u.credit(u.in.w - u.in.r)
		waits = len(c.out.pending) > 0
	}
	ended, gone := u.ended, u.gone
	if gone && u.byPeer && !ended {
		x.cutCode = u.code
	}
	c.mu.Unlock()
	switch {
	case waits:
		c.flushSoon()
		return nil
	case len(u.in.unread()) > 0:
		return nil
	case ended:
		x.upBody.trailer = append(x.upBody.trailer[:0], u.trailer...) // complete, and ours now
		return io.EOF
	case gone:
		return errCutShort
	}
	return nil
}

func (u *h2call) leaveHead(x *Exchange) { x.left.answer, u.taken = u.taken, nil }

func (u *h2call) interrupt() { u.wakeReader() }

func (u *h2call) unsent() bool {
	u.c.mu.Lock()
	defer u.c.mu.Unlock()
	return u.id == 0 || u.refused
}

// cut resets the stream, unless it is over.
func (u *h2call) cut() {
	u.c.mu.Lock()
	u.cutLocked()
	u.c.changed.Broadcast() // for one who waits for room
	u.c.mu.Unlock()
	u.c.flushSoon()
}

func (u *h2call) cutLocked() {
	if u.id != 0 && !u.gone && (!u.ended || !u.endSent) {
		u.c.writeReset(u.id, http2.ErrCodeCancel)
		u.c.owed = min(u.c.owed+h2Owed, h2MaxOwed)
	}
	u.reset = true
	u.lose()
}

// close ends the call, and gives all back.
func (u *h2call) close() {
	c := u.c
	c.mu.Lock()
	u.cutLocked()
	c.giveBack(u.body.release())
	if u.id != 0 {
		delete(c.streams, u.id)
	}
	c.free()
	waits := len(c.out.pending) > 0
	c.mu.Unlock()
	if waits {
		c.flushSoon()
	}
	for i, a := range u.answers {
		a.release()
		u.answers[i] = nil
	}
	u.answers = u.answers[:0]
	u.keep(nil)
	u.in.release()
	u.end()
	u.c = nil
	h2calls.Put(u)
}

// rest is close: the place is free, and the connection is for all.
func (u *h2call) rest(time.Time) { u.close() }
