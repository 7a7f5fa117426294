package engine

import (
	"fmt"

	"golang.org/x/net/http2"
)

// frame reads one frame of an upstream and does what it says (RFC 9113 section 6).
func (c *h2client) frame() error {
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
		if len(f.HeaderBlockFragment()) < h2TinyFrame {
			if err := c.annoyed(1); err != nil {
				return err
			}
		}
		return c.block(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		return c.onData(f)
	case *http2.SettingsFrame:
		if push, ok := f.Value(http2.SettingEnablePush); ok && push != 0 { // RFC 9113 section 6.5.2
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.settled = true
		return c.onSettings(f)
	case *http2.WindowUpdateFrame:
		return c.onWindowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.onReset(f)
	case *http2.PingFrame:
		return c.onPing(f)
	case *http2.GoAwayFrame:
		return c.onGoAway(f)
	case *http2.PushPromiseFrame: // we have said that we want none
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return c.annoyed(1)
}

// reject resets a stream on which the upstream has broken a rule.
func (c *h2client) reject(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle(id) { // one that is not there cannot be reset
		return http2.ConnectionError(code)
	}
	if st := c.streams[id]; st != nil && !st.gone {
		st.reset, st.code = true, code
		st.lose()
		c.writeReset(id, code)
	}
	return c.annoyedLocked(h2CostError)
}

// onHeaders begins a head: of an answer, or of its trailer section.
func (c *h2client) onHeaders(f *http2.HeadersFrame) error {
	id := f.StreamID
	c.mu.Lock()
	st := c.streams[id]
	kind := h2Nothing
	switch {
	case c.idle(id):
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil || st.gone: // it crossed our RST_STREAM
	case st.ended:
		kind = h2Closed
	case st.call.headed:
		kind = h2Trailer
	default:
		kind = h2Request
	}
	c.mu.Unlock()
	c.head.begin(kind, id, f.StreamEnded())
	return c.block(f.HeaderBlockFragment(), f.HeadersEnded())
}

// onData takes a piece of an answer's body.
func (c *h2client) onData(f *http2.DataFrame) error {
	c.mu.Lock()
	st := c.streams[f.StreamID]
	switch {
	case st != nil && !st.gone && !st.ended && !st.call.headed:
		c.mu.Unlock()
		return streamError(f.StreamID, http2.ErrCodeProtocol)
	case st != nil && !st.gone:
		c.news = append(c.news, st.readable)
	case !c.idle(f.StreamID): // it crossed our RST_STREAM
		defer c.mu.Unlock()
		if c.flow.receive(int(f.Length)) {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.giveBack(int(f.Length))
		if f.Length > h2TinyFrame { // it has cost the upstream as much
			return nil
		}
		return c.crossed()
	}
	c.mu.Unlock()
	return c.h2link.onData(f)
}

// crossed takes a frame on a stream that is over. The upstream has sent it before it knew, if
// we have reset the stream: then it is no fault of its, or clients that cancel their requests
// would end the connection that others use. It is called with mu.
func (c *h2client) crossed() error {
	if c.owed > 0 {
		c.owed--
		return nil
	}
	return c.annoyedLocked(1)
}

// h2Owed is what comes after a reset at most, but for DATA of some size: a head, a trailer
// section, a reset, a small piece of the body, and WINDOW_UPDATEs for what was read of the
// request. h2MaxOwed bounds what adds up.
const (
	h2Owed    = 8
	h2MaxOwed = 64 * h2MaxStreams
)

// onWindowUpdate lets more be sent, unless it crossed our RST_STREAM.
func (c *h2client) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	st := c.streams[f.StreamID]
	if f.StreamID != 0 && !c.idle(f.StreamID) && (st == nil || st.gone) {
		defer c.mu.Unlock()
		return c.crossed()
	}
	c.mu.Unlock()
	return c.h2link.onWindowUpdate(f)
}

// onReset ends a stream that the upstream has given up.
func (c *h2client) onReset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[f.StreamID]
	switch {
	case c.idle(f.StreamID):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil || st.gone:
		return c.crossed()
	}
	st.byPeer, st.code = true, f.ErrCode
	st.call.refused = f.ErrCode == http2.ErrCodeRefusedStream && !st.call.headed
	st.lose()
	return nil
}

// onGoAway opens no more streams. Those above the last one that the upstream has seen can
// be sent elsewhere (RFC 9113 section 6.8).
func (c *h2client) onGoAway(f *http2.GoAwayFrame) error {
	c.mu.Lock()
	for id, st := range c.streams {
		if id > f.LastStreamID && !st.gone {
			st.byPeer, st.code = true, f.ErrCode
			st.call.refused = !st.call.headed
			st.lose()
		}
	}
	c.mu.Unlock()
	c.leave()
	return c.annoyed(1)
}

// whyGone says what became of a stream that is gone. It is called with mu.
func (u *h2call) whyGone() *UpstreamError {
	switch {
	case u.fault != nil:
		return protocolError(u.fault)
	case u.refused:
		return &UpstreamError{Cause: CauseClosed, Reused: true, Err: fmt.Errorf("refused by the upstream: %v", u.code)}
	case u.byPeer:
		return &UpstreamError{Cause: CauseClosed, Err: fmt.Errorf("stream reset by the upstream: %v", u.code)}
	case u.reset:
		return protocolError(fmt.Errorf("stream broke HTTP/2: %v", u.code))
	}
	return &UpstreamError{Cause: CauseClosed, Err: fmt.Errorf("connection lost: %w", u.c.dead)}
}
