package router

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// rawH2Upstream is an upstream of HTTP/2 that sends what it likes.
func rawH2Upstream(t *testing.T, serve func(c *rawH2)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				io.CopyN(io.Discard, conn, int64(len(http2.ClientPreface)))
				c := newRawH2(t, conn)
				c.fr.WriteSettings()
				serve(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// A client that goes while the head of its answer is on its way takes nobody with it: what
// had come of that head is no part of the next one.
func TestHalfAHeadOfAnAnswerIsForgotten(t *testing.T) {
	half, gone := make(chan struct{}), make(chan struct{})
	f := setup{h2c: true}.toH2(false).start(t, rawH2Upstream(t, func(c *rawH2) {
		for {
			fr, err := c.fr.ReadFrame()
			if err != nil {
				return
			}
			switch fr := fr.(type) {
			case *http2.SettingsFrame:
				if !fr.IsAck() {
					c.fr.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				if fr.StreamID == 1 {
					block := c.encode(":status", "200", "x-of", "another")
					c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, BlockFragment: block})
					close(half)
					continue
				}
				c.head(fr.StreamID, true, ":status", "204")
			case *http2.RSTStreamFrame:
				if fr.StreamID != 1 {
					return
				}
				c.fr.WriteContinuation(fr.StreamID, true, nil)
				close(gone)
			}
		}
	}))
	c := f.rawH2(t)
	c.request(1, "/")
	<-half
	c.fr.WriteRSTStream(1, http2.ErrCodeCancel)
	<-gone
	c.request(3, "/")
	if head := c.answerHead(3); head[":status"] != "204" || head["x-of"] != "" {
		t.Errorf("the next answer: %v, %+v", head, f.log.await(t, 2))
	}
}

// What an upstream had sent before it knew of a reset is no fault of its: clients that
// cancel big answers end no connection that others use.
func TestCancelledAnswersDoNotEndTheConnection(t *testing.T) {
	const all = 800
	asked := make(chan struct{})
	piece := make([]byte, 16<<10)
	f := setup{h2c: true}.toH2(false).start(t, rawH2Upstream(t, func(c *rawH2) {
		for {
			fr, err := c.fr.ReadFrame()
			if err != nil {
				return
			}
			switch fr := fr.(type) {
			case *http2.SettingsFrame:
				if !fr.IsAck() {
					c.fr.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				if c.decode(fr); c.fields[":path"] == "/wait" {
					c.head(fr.StreamID, false, ":status", "200")
					continue
				}
				asked <- struct{}{}
			case *http2.RSTStreamFrame: // it crosses the whole of an answer
				for range 4 { // for what it has read of the request
					c.fr.WriteWindowUpdate(fr.StreamID, 16<<10)
				}
				c.head(fr.StreamID, false, ":status", "200")
				for range 7 {
					c.fr.WriteData(fr.StreamID, false, piece)
				}
				c.fr.WriteRSTStream(fr.StreamID, http2.ErrCodeNo)
			}
		}
	}))
	victim := f.rawH2(t)
	victim.request(1, "/wait")
	if head := victim.answerHead(1); head[":status"] != "200" {
		t.Fatal(head)
	}
	for range all / 50 {
		c := f.rawH2(t) // of which 50 resets are nothing to be minded
		for i := range 50 {
			c.request(uint32(2*i+1), "/big")
			select {
			case <-asked:
			case <-time.After(patience):
				t.Fatalf("request %d does not come: %+v", i, f.log.await(t, i)[max(0, i-2):])
			}
			c.fr.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		}
	}
	victim.ping()
	for _, e := range f.log.await(t, all) {
		if e.Path == "/wait" {
			t.Fatalf("the other client's answer was cut: %+v", e)
		}
	}
}
