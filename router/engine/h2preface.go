package engine

import (
	"bytes"
	"time"

	"golang.org/x/net/http2"
)

var h2Preface = []byte(http2.ClientPreface)

// isPreface reports whether the client begins with the preface of HTTP/2. It reads more
// only as long as what has come could become one.
func (c *serverConn) isPreface(x *Exchange) bool {
	deadline := time.Now().Add(c.srv.limits.HeadTimeout)
	for isPrefaceStart(x.in.unread()) {
		if len(x.in.unread()) >= len(h2Preface) {
			return true
		}
		if c.readMore(&x.in, deadline) != nil {
			return false // the next read fails too
		}
	}
	return false
}

// isPrefaceStart reports whether b is the beginning of HTTP/2's preface, or more.
func isPrefaceStart(b []byte) bool {
	n := min(len(b), len(h2Preface))
	return bytes.Equal(b[:n], h2Preface[:n])
}

// greet reads the client's preface and sends ours (RFC 9113 section 3.4).
func (c *h2conn) greet() error {
	c.mu.Lock()
	c.writeSettings()
	c.mu.Unlock()
	c.flush()
	for i := range h2Preface {
		for len(c.in.unread()) == 0 {
			if err := c.more(); err != nil {
				return err
			}
		}
		if c.in.unread()[0] != h2Preface[i] {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.in.take(1)
	}
	return nil
}
