package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// open takes what comes before HTTP: the header of the PROXY protocol, and the TLS handshake.
// It reports whether HTTP follows. What has been read of that already is in c.first.
func (c *serverConn) open(conn net.Conn, config *tls.Config) bool {
	proxied := c.srv.fromProxy(c.remote.Addr())
	passing := config != nil && c.srv.streams != nil && c.srv.streams.WantsStreams()
	if config == nil || proxied || passing {
		c.init(conn)
	}
	if proxied && !c.openProxied() {
		return false
	}
	if config == nil {
		return true
	}
	if passing && c.openStream() {
		return false
	}
	if len(c.first.unread()) > 0 {
		conn = &replayConn{Conn: conn, in: &c.first}
	}
	t := tls.Server(conn, config)
	if !c.handshake(t) {
		return false
	}
	c.init(t)
	return true
}

// fromProxy reports whether connections from there begin with a PROXY header.
func (s *Server) fromProxy(from netip.Addr) bool {
	for _, network := range s.ProxyFrom {
		if network.Contains(from) {
			return true
		}
	}
	return false
}

// openProxied reads the PROXY header, and makes its addresses those of the connection.
func (c *serverConn) openProxied() bool {
	h, n, err := c.readProxyHeader(time.Now().Add(c.srv.limits.HeadTimeout))
	if err != nil {
		if !errors.Is(err, errSilent) {
			c.srv.proxyErrors.Add(1)
		}
		return false
	}
	if c.first.take(n); len(c.first.unread()) == 0 {
		c.first.release()
	}
	if h.known {
		c.remote, c.local, c.proxied = h.source, h.destination, true
	}
	c.disarm()
	return true
}

// errSilent is for a client that leaves, or is left, without a word: no mistake of anybody's.
var errSilent = errors.New("nothing has come")

func (c *serverConn) readProxyHeader(deadline time.Time) (h proxyHeader, n int, err error) {
	if c.awaitFirst(c.srv.limits.HeadTimeout) != nil {
		return h, 0, errSilent
	}
	for {
		if h, n, err = parseProxyHeader(c.first.unread()); n > 0 || err != nil {
			return h, n, err
		}
		// It fits in the buffer, whatever it turns out to be.
		if err = c.readMore(&c.first, deadline); err != nil {
			return h, 0, err
		}
	}
}

// readHello reads the client's first message, as far as its name: into c.first, for whoever
// takes part in the handshake. An error says that no name can be read; what there is instead
// is for crypto/tls to judge.
func (c *serverConn) readHello(deadline time.Time) (h clientHello, err error) {
	if len(c.first.unread()) == 0 && c.awaitFirst(c.srv.limits.HandshakeTimeout) != nil {
		return h, errSilent
	}
	for {
		h, complete, err := parseRecords(c.first.unread())
		if complete || err != nil {
			return h, err
		}
		if !c.first.compact(maxClientHello) {
			return h, errHelloSize
		}
		if err := c.readMore(&c.first, deadline); err != nil {
			return h, errSilent
		}
	}
}

// disarm takes the deadline of reads back, for what has deadlines of its own.
func (c *serverConn) disarm() {
	c.readBy = time.Time{}
	_ = c.conn.SetReadDeadline(c.readBy) // fails only on a closed connection, as the read will
}

func (c *serverConn) handshake(t *tls.Conn) bool {
	ctx, cancel := context.WithTimeout(c.srv.handshakes, c.srv.limits.HandshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.srv.handshakeErrors.Add(1)
		tellPlainHTTP(err)
		return false
	}
	state := t.ConnectionState()
	c.secure, c.serverName, c.alpn = true, state.ServerName, state.NegotiatedProtocol
	c.shown = state.PeerCertificates
	return true
}

// tellPlainHTTP tells a client that spoke HTTP where TLS is spoken.
func tellPlainHTTP(err error) {
	record, ok := errors.AsType[tls.RecordHeaderError](err)
	if !ok || record.Conn == nil || !isToken(record.RecordHeader[:3]) {
		return
	}
	_ = record.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // a courtesy, that must not cost much
	_, _ = fmt.Fprintf(record.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		len(speakTLS), speakTLS)
}

const speakTLS = "This port speaks HTTPS. Say https:// in the address.\n"

// replayConn is a connection of which something has been read already: that comes first, and
// then it is out of the way.
type replayConn struct {
	net.Conn
	in *input
}

// Read gives what has been read before, and then reads.
func (r *replayConn) Read(p []byte) (int, error) {
	if r.in == nil {
		return r.Conn.Read(p)
	}
	n := copy(p, r.in.unread())
	if r.in.take(n); len(r.in.unread()) == 0 {
		r.in.release()
		r.in = nil
	}
	return n, nil
}
