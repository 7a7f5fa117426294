package engine

import (
	"errors"
	"net/netip"
	"time"
)

// A StreamHandler is a Handler that takes some TLS connections as they are, by the name that
// the client asks for in its ClientHello, and passes them through without ending their TLS.
type StreamHandler interface {
	Handler
	// WantsStreams reports whether there is any name for which ServeStream may take a
	// connection. While there is none, nobody looks into handshakes.
	WantsStreams() bool
	// ServeStream takes a connection and returns true when it is over; or it leaves it to the
	// Server, at once. Nothing of s may be kept.
	ServeStream(s *Stream) (taken bool)
}

// Stream is a TLS connection of a client that is not ended here. It is for one goroutine.
type Stream struct {
	// ServerName is the name the client asked for, in lower case.
	ServerName []byte
	// Start is when its ClientHello was there.
	Start time.Time

	conn   *serverConn
	up     *clientConn
	upAddr string
	relay  tunnel
	name   [maxServerName]byte // what ServerName points to
}

// maxServerName is the longest name in DNS, as text.
const maxServerName = 253

// openStream reads the client's name, and offers the connection to the handler if it has one.
func (c *serverConn) openStream() (taken bool) {
	h, err := c.readHello(time.Now().Add(c.srv.limits.HandshakeTimeout))
	if errors.Is(err, errSilent) {
		c.srv.handshakeErrors.Add(1)
		return true // there is nobody to shake hands with
	}
	if err == nil && len(h.serverName) > 0 && len(h.serverName) <= maxServerName {
		s := &Stream{conn: c, Start: time.Now()}
		s.ServerName = s.name[:copy(s.name[:], h.serverName)]
		lowerASCII(s.ServerName)
		if c.srv.streams.ServeStream(s) {
			s.end()
			return true
		}
	}
	c.disarm()
	return false
}

func lowerASCII(b []byte) {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
}

// ClientAddr is the client's end of the connection.
func (s *Stream) ClientAddr() netip.AddrPort { return s.conn.remote }

// Shard is a small number that differs between connections.
func (s *Stream) Shard() uint32 { return s.conn.shard }

// UpstreamAddr is the address that was tried last, or "".
func (s *Stream) UpstreamAddr() string { return s.upAddr }

// BytesReceived counts what the upstream got of the client's bytes, and BytesSent what the
// client got of the upstream's.
func (s *Stream) BytesReceived() int64 { return s.relay.received }

// BytesSent is as above.
func (s *Stream) BytesSent() int64 { return s.relay.sent }

// Connect makes a connection to the upstream, in the pool's way but for TLS, and never one
// that has been used. If it fails, another one may be tried. It begins with a header of the
// PROXY protocol in that version, if it is not 0.
func (s *Stream) Connect(p *Pool, v ProxyVersion) *UpstreamError {
	s.upAddr = p.address
	conn, failed := p.connect(s.conn.proxyHeader(v), nil, p.cfg.ConnectTimeout)
	if failed == nil {
		s.up = p.adopt(conn)
	}
	return failed
}

// Relay passes bytes both ways, from the ClientHello on, until both sides have ended or
// nothing has moved for Limits.TunnelTimeout. It needs a Connect that has succeeded.
func (s *Stream) Relay() error {
	c := s.conn
	c.srv.streamed.Add(1)
	c.state.Store(connTunnel)
	s.relay.limit = c.srv.limits.TunnelTimeout
	err := s.relay.run(c.srv, &c.wire, &s.up.wire, c.first.unread(), nil)
	c.first.release()
	return err
}

func (s *Stream) end() {
	if s.up != nil {
		s.up.close()
		s.up = nil
	}
}
