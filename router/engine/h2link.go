package engine

import (
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// h2link is what both ends of a connection of HTTP/2 have in common: the lock that its
// streams share, what waits to be written, the windows and the purse. One goroutine reads
// frames; whoever has something to say puts it in out, and one at a time writes that.
type h2link struct {
	h2source
	framer *http2.Framer // reads; control frames are written by it too, under mu

	mu      sync.Mutex
	changed sync.Cond // of mu: room to write, streams ended, an end in sight
	streams map[uint32]*h2half
	seenID  uint32 // the highest stream that was opened
	resets  h2resets
	over    bool   // nothing more is to be read
	dead    error  // nothing more can be written
	peerMax uint32 // streams that the other side allows at once
	guard   h2guard
	flow    h2connFlow
	out     h2out
	cutOff  error // what a stream's writer is told once the stream is gone
}

// link makes it ready. more reads what comes next, with refill; blocks takes header blocks.
func (c *h2link) link(under *wire, more func() error, blocks h2blocks, writeTimeout time.Duration, minRate int, window int64) {
	c.under, c.more, c.blocks = under, more, blocks
	c.streams, c.peerMax = map[uint32]*h2half{}, math.MaxUint32
	c.changed.L = &c.mu
	c.guard.start(time.Now())
	c.flow.start(window)
	c.out.start(c, writeTimeout, minRate)
	c.framer = http2.NewFramer(&c.out, &c.h2source)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(h2MaxFrame)
}

// h2half is a stream as both ends have it. All is used with the connection's mu.
type h2half struct {
	link *h2link
	id   uint32

	body     bodyQueue // what has come of the other side's message and was not taken
	trailer  []byte    // field lines; complete once ended
	received int64
	declared int64 // Content-Length; -1: none
	flow     h2window
	ended    bool // the other side has sent all (half-closed, RFC 9113 section 5.1)
	endSent  bool // and so have we
	gone     bool // it was reset, or the connection is lost: nothing more may be sent
	byPeer   bool // it was the other side that reset it
	reset    bool // it was us
	code     http2.ErrCode
	call     *h2call  // whose stream it is, of a client
	connect  bool     // it becomes a tunnel, if the upstream takes it
	upstream net.Conn // of the tunnel that it is: it ends with the stream
	sleeper  sleeper  // waits for the upstream

	// Of the goroutine that sends, without mu.
	limit  time.Duration // the longest wait for a window
	by     time.Time     // and the end of all of them; zero: none
	paced  bool          // enough has to be taken on the whole
	waited time.Duration // for windows
	taken  int64         // when that began to count

	readable, writable chan struct{} // capacity 1: look again
}

func newH2Half() h2half {
	return h2half{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

// begin makes a stream of it that has been used before.
func (st *h2half) begin(l *h2link, id uint32) {
	*st = h2half{
		link: l, id: id, declared: -1, readable: st.readable, writable: st.writable,
		trailer: st.trailer[:0], body: bodyQueue{buffers: st.body.buffers[:0]},
		flow: h2window{send: l.flow.initial, recv: h2StreamWindow},
	}
}

// end makes it ready to be used again. Nobody knows the stream any more; a wake that came too
// late waits in its channels, and whoever waits looks again.
func (st *h2half) end() {
	if cap(st.trailer) > maxScratch {
		st.trailer = nil
	}
	st.link = nil
}

// idle reports a stream that nobody has opened (RFC 9113 section 5.1.1): clients open those with
// odd numbers, and as nothing is pushed, there are no others. It is called with mu.
func (c *h2link) idle(id uint32) bool { return id > c.seenID || id%2 == 0 }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told
	}
}

func (st *h2half) wakeReader() { wake(st.readable) }

func (st *h2half) wakeWriter() { wake(st.writable) }

// lose notes that nothing more may be sent, and tells all who wait. It is called with mu.
func (st *h2half) lose() {
	st.gone = true
	if st.sleeper != nil {
		st.sleeper.interrupt()
	}
	st.wakeReader()
	st.wakeWriter()
	if st.upstream != nil {
		_ = st.upstream.Close() // nothing can be done about it
	}
}

// lost ends a connection that cannot be written to. It is called with mu.
func (c *h2link) lost(err error) {
	c.abandonAll(err)
	c.stopReading()
}

// abandonAll ends all streams, wherever they are. It is called with mu.
func (c *h2link) abandonAll(err error) {
	if c.dead == nil {
		c.dead = err
	}
	for _, st := range c.streams {
		st.lose()
	}
}

// stopReading wakes the reading goroutine, to end. It is called with mu.
func (c *h2link) stopReading() {
	c.over = true
	_ = c.under.conn.SetReadDeadline(past) // fails only if it has closed
}

func (c *h2link) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}
