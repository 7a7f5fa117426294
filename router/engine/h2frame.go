package engine

import (
	"golang.org/x/net/http2"
)

// Bounds of one connection.
const (
	h2MaxStreams = 128 // as nginx's http2_max_concurrent_streams
	h2MaxFrame   = 16 << 10
	h2MaxID      = 1<<31 - 1
)

// frame reads one frame and does what it says (RFC 9113 section 6).
func (c *h2conn) frame() error {
	fh, err := c.framer.ReadFrameHeader()
	if err != nil {
		return err
	}
	if !c.settled && (fh.Type != http2.FrameSettings || fh.Flags.Has(http2.FlagSettingsAck)) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	f, err := c.framer.ReadFrameForHeader(fh)
	if err != nil {
		return onHead(fh.Type, err)
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return c.onHeaders(f)
	case *http2.ContinuationFrame:
		return c.onContinuation(f)
	case *http2.DataFrame:
		return c.onData(f)
	case *http2.SettingsFrame:
		c.settled = true
		return c.onSettings(f)
	case *http2.WindowUpdateFrame:
		return c.onWindowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.onReset(f)
	case *http2.PingFrame:
		return c.onPing(f)
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return streamError(f.StreamID, http2.ErrCodeProtocol)
		}
		return c.annoyed(1) // priorities are read over (RFC 9113 section 5.3.2)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if f, ok := f.(*http2.UnknownFrame); ok && fh.Type == h2FramePriorityUpdate {
		return c.onPriorityUpdate(f)
	}
	return c.annoyed(1) // GOAWAY and what nobody knows
}

// onHead makes an error in a frame with a part of a header block one of the connection:
// without it the state of HPACK is lost (RFC 9113 section 4.3).
func onHead(t http2.FrameType, err error) error {
	if t == http2.FrameHeaders || t == http2.FrameContinuation || t == http2.FramePushPromise {
		if stream, ok := err.(http2.StreamError); ok { //nolint:errorlint // the framer does not wrap them
			return http2.ConnectionError(stream.Code)
		}
	}
	return err
}

func streamError(id uint32, code http2.ErrCode) error {
	return http2.StreamError{StreamID: id, Code: code}
}

// reject resets a stream that has broken a rule. One that is not there cannot be reset.
func (c *h2conn) reject(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	if c.idle(id) {
		c.mu.Unlock()
		return http2.ConnectionError(code)
	}
	if st := c.streams[id]; st != nil {
		st.reset = true
		st.lose()
	}
	c.writeReset(id, code)
	c.mu.Unlock()
	return c.annoyed(h2CostError)
}

// onHeaders begins a head: of a request, or of the trailer section of one.
func (c *h2conn) onHeaders(f *http2.HeadersFrame) error {
	id := f.StreamID
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if id > c.seenID {
		c.open(id)
	} else if kind, ok := c.again(id); ok {
		c.head.begin(kind, nil, id)
	} else {
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	c.head.ends = f.StreamEnded()
	c.head.selfish = f.HasPriority() && f.Priority.StreamDep == id
	return c.block(f.HeaderBlockFragment(), f.HeadersEnded())
}

// again says what a second header block on a stream is, if it may be there at all (RFC
// 9113 section 5.1).
func (c *h2conn) again(id uint32) (kind h2headKind, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	switch {
	case st != nil && !st.gone && !st.ended:
		return h2Trailer, true
	case st != nil && st.gone && !st.byPeer, c.resets.has(id):
		return h2Nothing, true // it crossed our RST_STREAM
	case st != nil && (st.byPeer || !st.endSent):
		return h2Closed, true
	}
	return 0, false
}

// open begins a stream that the client has opened, if there is room for it.
func (c *h2conn) open(id uint32) {
	c.mu.Lock()
	c.seenID = id
	c.opened++
	switch {
	case c.leaving == h2farewell: // the client learns that it is not served
		c.resets.add(id)
		c.mu.Unlock()
		c.head.begin(h2Nothing, nil, id)
		return
	case len(c.streams) >= h2MaxStreams && c.full(): // the first only saves a walk
		c.mu.Unlock()
		c.head.begin(h2Refused, nil, id)
		return
	}
	c.lastID = id
	st := newH2Stream(c, id)
	c.streams[id] = &st.h2half
	if c.opened >= c.srv.limits.MaxRequests {
		c.partLocked()
	}
	c.mu.Unlock()
	c.state.Store(connBusy)
	c.head.begin(h2Request, st, id)
	if c.srv.draining.Load() {
		c.warn()
	}
}

// full reports whether the client has as many streams open as it may. One whose answer has
// ended is not open, even if its goroutine has a word to say yet; one that it has reset goes
// on costing us for a moment, and counts as long.
func (c *h2conn) full() bool {
	n := 0
	for _, st := range c.streams {
		if !st.ended || !st.endSent {
			n++
		}
	}
	return n >= h2MaxStreams || len(c.streams) >= 4*h2MaxStreams
}

func (c *h2conn) onContinuation(f *http2.ContinuationFrame) error {
	if len(f.HeaderBlockFragment()) < h2TinyFrame {
		if err := c.annoyed(1); err != nil {
			return err
		}
	}
	return c.block(f.HeaderBlockFragment(), f.HeadersEnded())
}

// onData takes a piece of a message's body (RFC 9113 section 6.1).
func (c *h2link) onData(f *http2.DataFrame) error {
	id, size := f.StreamID, int(f.Length) // padding counts
	data := f.Data()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flow.receive(size) {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	st := c.streams[id]
	switch {
	case c.idle(id):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil || st.gone || st.ended:
		c.giveBack(size)
		if c.resets.has(id) || st != nil && st.gone && !st.byPeer {
			return c.annoyedLocked(1) // it crossed our RST_STREAM
		}
		return streamError(id, http2.ErrCodeStreamClosed)
	}
	return c.take(st, data, size, f.StreamEnded())
}

// take gives a piece of body to its stream.
func (c *h2link) take(st *h2half, data []byte, size int, end bool) error {
	if st.flow.receive(size) {
		c.giveBack(size)
		return streamError(st.id, http2.ErrCodeFlowControl)
	}
	st.received += int64(len(data))
	if st.declared >= 0 && (st.received > st.declared || end && st.received < st.declared) {
		c.giveBack(size)
		return streamError(st.id, http2.ErrCodeProtocol) // RFC 9113 section 8.1.1
	}
	st.body.write(data)
	if padding := size - len(data); padding > 0 {
		st.credit(padding)
	}
	st.ended = st.ended || end
	st.wakeReader()
	switch {
	case st.connect && len(data) > 0: // messages may be as small as they like
		return nil
	case len(data) < h2TinyData && !end:
		return c.annoyedLocked(1)
	case len(data) >= h2TinyFrame:
		c.guard.earn(1)
	}
	return nil
}

func (c *h2link) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return c.annoyed(1)
	}
	if f.HasDuplicates() {
		if err := c.annoyed(h2CostError); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := f.ForeachSetting(c.setting); err != nil {
		return err
	}
	c.writeSettingsAck()
	return c.annoyedLocked(1)
}

// setting takes one of the other side's settings (RFC 9113 section 6.5.2).
func (c *h2link) setting(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.out.encoder.limit(s.Val)
	case http2.SettingMaxConcurrentStreams:
		c.peerMax = s.Val
	case http2.SettingInitialWindowSize:
		return c.resizeWindows(int64(s.Val))
	case h2NoOldPriorities:
		if s.Val > 1 { // RFC 9218 section 2.1; a change of it has no meaning here
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
	}
	return nil
}

func (c *h2link) onPing(f *http2.PingFrame) error {
	if f.IsAck() {
		return c.annoyed(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writePing(f.Data)
	return c.annoyedLocked(1)
}

// onReset ends a stream that the client has no use for any more.
func (c *h2conn) onReset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[f.StreamID]
	switch {
	case c.idle(f.StreamID):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil || st.gone:
		c.resets.drop(f.StreamID)
		return c.annoyedLocked(1)
	}
	st.byPeer = true
	st.lose()
	return c.annoyedLocked(h2CostReset)
}
