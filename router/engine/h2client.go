package engine

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// h2client is one connection to an upstream that speaks HTTP/2 (RFC 9113), which any number
// of exchanges use, each through an h2call. One goroutine reads frames from it until it
// ends; whoever has a request to send writes.
type h2client struct {
	h2link
	wire wire
	pool *Pool

	// What belongs to the reading goroutine.
	head    h2answerHead
	settled bool            // the upstream's first SETTINGS have come
	news    []chan struct{} // to be told before the next wait

	// With mu.
	open     int  // streams, and exchanges that are about to open one
	used     bool // it has had one
	leaving  bool // no more streams are opened
	owed     int  // frames that may still come on streams we have reset
	idleFrom time.Time

	heard atomic.Int64 // when something came last, Unix nanoseconds
}

var (
	errUpstreamGone = errors.New("the upstream has reset the stream, or closed the connection")
	errLeaving      = errors.New("the upstream's connection takes no more requests")
	errNotH2        = errors.New("the upstream does not speak HTTP/2")
	errNoStreams    = errors.New("the upstream allows no streams")
)

// dialH2 makes a connection and reads the upstream's SETTINGS, so that the first request
// knows what it may. Connecting may take that long, and so may the SETTINGS.
func (p *Pool) dialH2(timeout time.Duration) (*h2client, *UpstreamError) {
	conn, failed := p.connect(nil, p.cfg.TLS, timeout)
	if failed != nil {
		return nil, failed
	}
	c := &h2client{pool: p, idleFrom: time.Now()}
	c.wire.init(conn)
	c.link(&c.wire, c.more, &c.head, p.cfg.WriteTimeout, 0, h2ClientWindow)
	c.cutOff = errUpstreamGone
	c.head.start(c)
	p.open.Add(1)
	c.greet()
	c.flush()
	for !c.settled {
		if err := c.frame(); err != nil {
			c.finish(err)
			if isTimeout(err) {
				return nil, &UpstreamError{Cause: CauseTimeout, Unsent: true, Err: fmt.Errorf("%w: no SETTINGS: %w", errNotH2, err)}
			}
			return nil, &UpstreamError{Cause: CauseProtocol, Unsent: true, Err: fmt.Errorf("%w: %w", errNotH2, err)}
		}
	}
	go c.run()
	return c, nil
}

// greet writes our preface (RFC 9113 section 3.4).
func (c *h2client) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.out.Write(h2Preface) // this and what follows goes to a buffer
	_ = c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2StreamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.pool.cfg.MaxHead)},
	)
	c.writeWindowUpdate(0, h2ClientWindow-h2DefaultWindow)
}

// reserve takes a place for one stream, if there is one.
func (c *h2client) reserve() (ok, reused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving || c.dead != nil || c.open >= c.places() {
		return false, false
	}
	c.open++
	reused, c.used = c.used, true
	return true, reused
}

// places is how many streams there may be. It is called with mu.
func (c *h2client) places() int { return int(min(c.peerMax, h2MaxStreams)) }

// free gives a place back. It is called with mu.
func (c *h2client) free() {
	c.open--
	if c.open > 0 {
		return
	}
	c.idleFrom = time.Now()
	if c.leaving {
		c.stopReading()
	}
}

// leave opens no more streams, and ends the connection with the last one.
func (c *h2client) leave() {
	c.mu.Lock()
	c.leaving = true // first, or it could be put back after it was taken out
	if c.open == 0 {
		c.stopReading()
	}
	c.mu.Unlock()
	c.pool.h2.drop(c)
}

// run reads and handles frames until there can be no more.
func (c *h2client) run() {
	for {
		err := c.frame()
		if stream, ok := errors.AsType[http2.StreamError](err); ok {
			err = c.reject(stream.StreamID, stream.Code)
		}
		if err != nil {
			c.finish(err)
			return
		}
	}
}

// finish ends the connection, with a last word to the upstream where that helps it.
func (c *h2client) finish(err error) {
	code, tell := http2.ErrCodeNo, true
	var fault http2.ConnectionError
	switch {
	case errors.As(err, &fault):
		code = http2.ErrCode(fault)
	case errors.Is(err, errH2Idle), errors.Is(err, errH2Over):
	default:
		tell = false
	}
	c.mu.Lock()
	c.leaving, c.over = true, true
	if tell && c.dead == nil {
		c.writeGoAway(0, code)
	}
	c.mu.Unlock()
	c.pool.h2.drop(c)
	t := time.AfterFunc(time.Second, func() { _ = c.wire.conn.Close() }) // it has had its time
	defer t.Stop()
	if tell {
		c.flush()
	}
	c.mu.Lock()
	for tell && c.out.flushing {
		c.changed.Wait()
	}
	c.abandonAll(err)
	c.changed.Broadcast()
	c.mu.Unlock()
	_ = c.wire.conn.Close() // nothing can be done about it
	c.mu.Lock()
	for c.out.flushing {
		c.changed.Wait()
	}
	c.out.release()
	c.mu.Unlock()
	c.tell()
	c.in.release()
	c.pool.open.Add(-1)
}

// tell wakes those for whom something has come. What came with it is there by now, too.
func (c *h2client) tell() {
	for i, ch := range c.news {
		wake(ch)
		c.news[i] = nil
	}
	c.news = c.news[:0]
}

// more reads from the wire, after all that came before has been handled.
func (c *h2client) more() error {
	c.tell()
	c.flushSoon()
	c.widen()
	for {
		c.wire.armRead(time.Now(), c.patience())
		if c.isOver() { // after arming: the deadline of the one who ends it may have come first
			return errH2Over
		}
		n, err := c.refill()
		switch {
		case n > 0:
			c.heard.Store(time.Now().UnixNano())
			return nil
		case err == nil:
			continue
		case !isTimeout(err) || !c.settled && !c.isOver():
			return err
		}
		c.wire.readBy = time.Time{} // what is armed is past
		if err := c.quietly(); err != nil || len(c.in.unread()) > 0 {
			return err
		}
	}
}

// patience is how long the reading goroutine waits before it looks around.
func (c *h2client) patience() time.Duration {
	if !c.settled {
		return c.pool.cfg.ConnectTimeout
	}
	return min(h2Busy, c.pool.cfg.IdleTimeout)
}

// quietly decides what becomes of a connection on which nothing has come for a while: one
// without streams waits without buffers, as long as it may.
func (c *h2client) quietly() error {
	c.mu.Lock()
	quiet := time.Since(c.idleFrom)
	left := c.pool.cfg.IdleTimeout - quiet
	busy, over := c.open > 0, c.over
	if !busy && left <= 0 {
		c.leaving, over = true, true
	}
	c.mu.Unlock()
	switch {
	case over:
		return errH2Idle
	case busy, quiet < h2Rest && quiet < left:
		return nil
	}
	c.in.release()
	c.wire.armRead(time.Now(), left)
	if c.isOver() {
		return errH2Over
	}
	err := c.wire.await(&c.in)
	if isTimeout(err) {
		c.wire.readBy = time.Time{}
		return nil // looked at again at once
	}
	return err
}

// suspect is told by a stream that has waited in vain. If nothing at all has come since it
// began to, the connection is not used for new ones.
func (c *h2client) suspect(since time.Time) {
	if c.heard.Load() < since.UnixNano() {
		c.leave()
	}
}

var errH2Timeout = fmt.Errorf("no answer: %w", os.ErrDeadlineExceeded)
