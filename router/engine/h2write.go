package engine

import (
	"encoding/binary"
	"os"
	"runtime"
	"time"

	"golang.org/x/net/http2"
)

// h2out collects the frames of all streams, and gives them to the wire, many in one write.
// It is used with the connection's mu; only the write itself is not.
type h2out struct {
	c        *h2link
	to       output // for its write
	pending  []byte // borrowed; what waits
	flushing bool   // one is at it
	encoder  h2encoder
}

// How much may wait. Above h2HighWater streams wait for room; h2MaxPending is only ever
// reached by answers to control frames, of a client that reads nothing.
const (
	h2HighWater  = 48 << 10
	h2MaxPending = 256 << 10
)

func (o *h2out) start(c *h2link, timeout time.Duration, minRate int) {
	o.c = c
	o.to = output{to: c.under, timeout: timeout, minRate: minRate}
	o.encoder.start()
}

func (o *h2out) release() {
	if o.pending != nil {
		putBuffer(o.pending)
		o.pending = nil
	}
}

// room makes room for n bytes.
func (o *h2out) room(n int) {
	switch have := cap(o.pending) - len(o.pending); {
	case have >= n && o.pending != nil:
	case o.pending == nil && n <= headBufferSize:
		o.pending = getHeadBuffer()[:0]
	case len(o.pending)+n <= bodyBufferSize:
		o.move(getBodyBuffer()[:0])
	default:
		o.move(make([]byte, 0, 2*(len(o.pending)+n)))
	}
}

func (o *h2out) move(to []byte) {
	to = append(to, o.pending...)
	o.release()
	o.pending = to
}

// Write takes the control frames that the framer writes.
func (o *h2out) Write(p []byte) (int, error) {
	if o.c.dead != nil {
		return 0, o.c.dead
	}
	o.room(len(p))
	o.pending = append(o.pending, p...)
	return len(p), nil
}

// frame adds the head of a frame (RFC 9113 section 4.1), for which there is room.
func (o *h2out) frame(t http2.FrameType, flags http2.Flags, id uint32, length int) {
	o.pending = append(o.pending, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags))
	o.pending = binary.BigEndian.AppendUint32(o.pending, id)
}

const h2FrameHead = 9

// flush writes what waits, unless another goroutine is at it, which then does.
func (c *h2link) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
}

// flushLocked is flush for those who have mu; it lets go of it meanwhile.
func (c *h2link) flushLocked() {
	if c.out.flushing || len(c.out.pending) == 0 || c.dead != nil {
		return
	}
	c.out.flushing = true
	if len(c.streams) > 1 { // others may be about to have something to say
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.writeOut(h2Rounds)
}

// flushSoon is flush for those who must not wait for the client: the reading goroutine
// above all, or two that wait for each other to read would wait for ever.
func (c *h2link) flushSoon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.flushing || len(c.out.pending) == 0 || c.dead != nil {
		return
	}
	c.out.flushing = true
	go c.writeLater()
}

func (c *h2link) writeLater() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeOut(0)
}

// h2Rounds is how often a stream's goroutine writes for others, before it has one made
// that does nothing else.
const h2Rounds = 4

// writeOut writes until nothing waits. It is called with mu, and lets go of it to write.
func (c *h2link) writeOut(rounds int) {
	for n := 1; len(c.out.pending) > 0 && c.dead == nil; n++ {
		if n == rounds {
			go c.writeLater()
			return
		}
		buf := c.out.pending
		c.out.pending = nil
		to := c.out.to
		c.mu.Unlock()
		err := to.write(buf)
		putBuffer(buf)
		c.mu.Lock()
		if err != nil {
			c.lost(err)
		}
		c.changed.Broadcast()
	}
	c.out.flushing = false
	c.changed.Broadcast()
}

// awaitRoom waits until there is room for a stream's frames. It is called with mu, and
// lets go of it meanwhile.
func (st *h2half) awaitRoom() error {
	c := st.link
	for {
		switch {
		case st.gone, c.dead != nil:
			return c.cutOff
		case len(c.out.pending) <= h2HighWater:
			return nil
		case c.out.flushing:
			c.changed.Wait()
		default:
			c.mu.Unlock()
			c.flush()
			c.mu.Lock()
		}
	}
}

// flush brings what waits on its way.
func (st *h2stream) flush(*Exchange) error {
	st.c.flush()
	return nil
}

// writeBody sends one piece of the answer's content. While it waits for the client, nobody
// reads from the upstream.
func (st *h2stream) writeBody(x *Exchange, piece []byte, last bool) error {
	st.limit, st.by, st.paced = st.c.srv.limits.WriteTimeout, x.out.by, true
	return st.send(piece, last, &x.out.bytes)
}

// send sends one piece of content, as the windows of the other side allow (RFC 9113 section
// 6.9). sent counts it.
func (st *h2half) send(piece []byte, last bool, sent *int64) error {
	c := st.link
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(piece) > 0 {
		if err := st.awaitRoom(); err != nil {
			return err
		}
		n := int(min(int64(min(len(piece), h2MaxFrame)), st.flow.send, c.flow.send))
		if n <= 0 {
			if err := st.awaitWindow(*sent); err != nil {
				return err
			}
			continue
		}
		st.appendData(piece[:n], last && n == len(piece))
		*sent += int64(n)
		piece = piece[n:]
	}
	return nil
}

// appendData adds one DATA frame. It is called with mu.
func (st *h2half) appendData(p []byte, end bool) {
	c := st.link
	st.flow.send -= int64(len(p))
	c.flow.send -= int64(len(p))
	c.out.room(h2FrameHead + len(p))
	c.out.frame(http2.FrameData, st.endFlag(end), st.id, len(p))
	c.out.pending = append(c.out.pending, p...)
	c.guard.earn(h2EarnData)
}

func (st *h2half) endFlag(end bool) http2.Flags {
	if end {
		st.endSent = true
		return http2.FlagDataEndStream
	}
	return 0
}

// awaitWindow waits until the other side takes more: at most limit at a time, not past by, and
// if it is paced only while it takes enough on the whole. It is called with mu, and lets go of
// it meanwhile.
func (st *h2half) awaitWindow(sent int64) error {
	c := st.link
	c.mu.Unlock()
	c.flush()
	now := time.Now()
	err := await(st.writable, within(st.limit, st.by, now))
	if err == nil && st.paced {
		err = st.keepsUp(sent, time.Since(now))
	}
	c.mu.Lock()
	return err
}

// keepsUp notes a wait, and fails once the other side has taken too little in too long.
func (st *h2half) keepsUp(sent int64, waited time.Duration) error {
	if st.waited += waited; st.waited <= st.limit {
		return nil
	}
	slow := tooSlow(int(sent-st.taken), st.link.out.to.minRate, st.waited)
	st.waited, st.taken = 0, sent
	if slow {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// endAnswer ends the answer, perhaps with a trailer section.
func (st *h2stream) endAnswer(_ *Exchange, trailer []byte) error { return st.finish(trailer) }

// finish ends our half of the stream.
func (st *h2half) finish(trailer []byte) error {
	c := st.link
	c.mu.Lock()
	defer c.mu.Unlock()
	if !st.endSent {
		if err := st.awaitRoom(); err != nil {
			return err
		}
		if len(trailer) > 0 {
			st.appendTrailer(trailer)
		} else {
			st.appendData(nil, true)
		}
	}
	c.flushLocked()
	return nil
}

// The control frames. All are called with mu; writing to a buffer does not fail, and on a
// connection that is lost nobody cares.

func (c *h2conn) writeSettings() {
	_ = c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: h2MaxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2StreamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.srv.limits.MaxHead)},
		http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}, // RFC 8441 section 3
		http2.Setting{ID: h2NoOldPriorities, Val: 1},                  // RFC 9218 section 2.1
	)
	c.writeWindowUpdate(0, h2ConnWindow-h2DefaultWindow)
}

func (c *h2link) writeSettingsAck() { _ = c.framer.WriteSettingsAck() }

func (c *h2link) writePing(data [8]byte) { _ = c.framer.WritePing(true, data) }

func (c *h2link) writeWindowUpdate(id, n uint32) { _ = c.framer.WriteWindowUpdate(id, n) }

func (c *h2link) writeGoAway(last uint32, code http2.ErrCode) {
	_ = c.framer.WriteGoAway(last, code, nil)
}

func (c *h2link) writeReset(id uint32, code http2.ErrCode) {
	c.resets.add(id)
	_ = c.framer.WriteRSTStream(id, code)
}
