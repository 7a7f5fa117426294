package engine

import (
	"errors"
	"time"

	"golang.org/x/net/http2"
)

// h2conn is one connection of a client that speaks HTTP/2 (RFC 9113). One goroutine reads
// frames from it until it ends; each stream has a goroutine of its own from the end of its
// head to the end of its answer. They write into one buffer, and one of them at a time
// brings that to the wire.
type h2conn struct {
	*serverConn
	h2link

	// What belongs to the reading goroutine.
	head    h2head
	came    time.Time   // when something was read last
	settled bool        // the client's first SETTINGS have come
	ready   []*h2stream // heads that are complete, to be served before the next wait

	jobs chan *h2stream // to goroutines that wait for a stream; nil ends one

	// With mu.
	lastID   uint32 // the highest stream that is served
	opened   int
	idleFrom time.Time
	leaving  h2leaving
}

// h2leaving is how far the end of a connection has come (RFC 9113 section 6.8).
type h2leaving uint8

const (
	h2stays    h2leaving = iota
	h2warned             // a GOAWAY asks for no new streams; those that come are still served
	h2farewell           // a GOAWAY has named the last stream that is served
)

// Errors that end the reading of a connection in good order.
var (
	errH2Idle = errors.New("nothing was asked for long")
	errH2Over = errors.New("the last stream has ended")
)

// serveH2 is the life of the connection from its preface on. in holds what was read
// already.
func (c *serverConn) serveH2(in input) {
	now := time.Now()
	h := &h2conn{serverConn: c, came: now, idleFrom: now, jobs: make(chan *h2stream)}
	defer close(h.jobs)
	h.in = in
	h.link(&c.wire, h.more, &h.head, c.srv.limits.WriteTimeout, c.srv.limits.MinRate, h2ConnWindow)
	h.cutOff = errClientGone
	h.head.start(h)
	c.h2.Store(h)
	c.state.Store(connIdle)
	ended := false
	defer func() {
		if !ended { // by a panic
			h.kill(errPanic)
			_ = c.conn.Close() // nothing can be done about it
		}
	}()
	err := h.greet()
	if err == nil {
		err = h.run()
	}
	c.end(h.finish(err))
	h.await()
	h.in.release()
	ended = true
}

// run reads and handles frames until there can be no more.
func (c *h2conn) run() error {
	for {
		err := c.frame()
		if stream, ok := errors.AsType[http2.StreamError](err); ok {
			err = c.reject(stream.StreamID, stream.Code)
		}
		if err != nil {
			return err
		}
	}
}

// h2Rest is how long a connection without streams keeps its buffers and goroutines, and
// h2Busy how often one with streams looks whether it still has any.
const (
	h2Rest = time.Second
	h2Busy = 10 * time.Second
)

// more reads from the wire. What came before has all been handled, so this is the moment
// to serve the streams that it has opened and to answer.
func (c *h2conn) more() error {
	c.serveReady()
	c.flushSoon()
	c.widen()
	for {
		now := time.Now()
		if c.head.late(now) {
			return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		c.armRead(now, min(c.patience(), h2Busy))
		if c.isOver() { // after arming: the deadline of the one who ends it may have come first
			return errH2Over
		}
		n, err := c.refill()
		switch {
		case n > 0:
			c.came = time.Now()
			return nil
		case err == nil:
			continue
		case !isTimeout(err):
			return err
		}
		c.readBy = time.Time{} // what is armed is past
		if err := c.quietly(); err != nil || len(c.in.unread()) > 0 {
			return err
		}
	}
}

// patience is how long the connection may be idle.
func (c *h2conn) patience() time.Duration {
	switch {
	case c.opened == 0, c.head.st != nil: // only the reading goroutine writes them
		return c.srv.limits.HeadTimeout
	case c.srv.draining.Load():
		return min(drainIdle, c.srv.limits.IdleTimeout)
	}
	return c.srv.limits.IdleTimeout
}

// quietly decides what becomes of a connection on which nothing has come for a while: one
// without streams waits without buffers, as long as it may.
func (c *h2conn) quietly() error {
	c.mu.Lock()
	busy, quiet := len(c.streams) > 0, time.Since(c.idleFrom)
	c.mu.Unlock()
	left := c.patience() - quiet
	switch {
	case c.isOver():
		return errH2Over
	case busy:
		return nil
	case left <= 0:
		return errH2Idle
	case quiet < h2Rest:
		return nil
	}
	c.dismiss()
	c.in.release()
	c.armRead(time.Now(), left)
	if c.isOver() {
		return errH2Over
	}
	switch err := c.wire.await(&c.in); {
	case err == nil:
		c.came = time.Now()
		return nil
	case !isTimeout(err):
		return err
	case c.isOver():
		return errH2Over
	case time.Since(c.idleFrom) >= c.patience(): // without streams nobody else changes it
		return errH2Idle
	}
	c.readBy = time.Time{}
	return nil
}

// finish ends the connection after err: with a last word to the client, if there is
// anybody to hear it.
func (c *h2conn) finish(err error) ending {
	code, tell := http2.ErrCodeNo, true
	var fault http2.ConnectionError
	switch {
	case errors.As(err, &fault):
		code = http2.ErrCode(fault)
	case errors.Is(err, http2.ErrFrameTooLarge):
		code = http2.ErrCodeFrameSize
	case errors.Is(err, errH2Idle), errors.Is(err, errH2Over):
	default:
		tell = false
	}
	if !tell {
		c.kill(err)
		return endPlain
	}
	c.mu.Lock()
	if code != http2.ErrCodeNo || c.leaving != h2farewell {
		c.writeGoAway(c.lastID, code)
	}
	c.mu.Unlock()
	t := time.AfterFunc(lingerTime, func() { _ = c.conn.Close() }) // nothing can be done about it
	defer t.Stop()
	c.flush()
	c.mu.Lock()
	for c.out.flushing {
		c.changed.Wait()
	}
	c.mu.Unlock()
	c.kill(err)
	return endLinger
}

// kill ends all streams, wherever they are.
func (c *h2conn) kill(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandonAll(err)
	c.over = true
	c.changed.Broadcast()
}

// await waits until the streams are done with the connection.
func (c *h2conn) await() {
	for _, st := range c.ready {
		st.abandon()
	}
	c.ready = nil
	c.head.abandon()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.streams) > 0 || c.out.flushing {
		c.changed.Wait()
	}
	c.out.release()
}

// warn tells the client that no new streams are wanted. What it has sent by then, and
// what crosses this on its way, is served.
func (c *h2conn) warn() {
	c.mu.Lock()
	if c.leaving == h2stays && c.dead == nil {
		c.leaving = h2warned
		c.writeGoAway(h2MaxID, http2.ErrCodeNo)
		_ = c.conn.SetReadDeadline(past) // so that it is more patient no longer
	}
	c.mu.Unlock()
	c.flushSoon()
}

// farewell names the last stream that is served, and ends the connection once there is
// none.
func (c *h2conn) farewell() {
	c.mu.Lock()
	c.partLocked()
	if len(c.streams) == 0 {
		c.stopReading()
	} else {
		_ = c.conn.SetReadDeadline(past) // so that it looks whether a head is late
	}
	c.mu.Unlock()
	c.flushSoon()
}

func (c *h2conn) partLocked() {
	if c.leaving != h2farewell && c.dead == nil {
		c.leaving = h2farewell
		c.writeGoAway(c.lastID, http2.ErrCodeNo)
	}
}

// flush is the link's: an h2conn is a serverConn too, which has one of HTTP/1.1.
func (c *h2conn) flush() { c.h2link.flush() }
