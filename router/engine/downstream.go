package engine

import (
	"crypto/x509"
	"net/netip"
	"sync/atomic"
	"time"
)

// peer is what an exchange tells of the connection that its request came on.
type peer struct {
	srv        *Server
	remote     netip.AddrPort
	local      netip.AddrPort
	proxied    bool // both are as a PROXY header has them
	secure     bool // over TLS
	serverName string
	shard      uint32
	shown      []*x509.Certificate // by the client, in its handshake
	identity   atomic.Pointer[ClientIdentity]
}

// downstream is the client's side of one exchange: a connection of HTTP/1.1, or a stream
// of HTTP/2. While a pump runs, the pump has the three methods that read the body.
type downstream interface {
	// hasLeft reports whether the client has gone, as far as can be seen.
	hasLeft(x *Exchange) bool
	// watch has s interrupted when it may have; unwatch ends that. It reports false where
	// nobody can tell, so that s has to look now and then.
	watch(s sleeper) bool
	unwatch(s sleeper)

	// fillBody gets more of the request's body, at the latest so long after armBody. All that
	// in holds has been used.
	fillBody(in *input) error
	armBody(now time.Time, wait time.Duration)
	// cutBody makes the Read that waits, or the next one, fail; mendBody takes that back.
	cutBody()
	mendBody()

	// passInterim sends the 1xx answer that x.Response is.
	passInterim(x *Exchange) error
	// tunnel is the answer 101 and all that follows it.
	tunnel(x *Exchange) error
	// mayWrite waits until the client takes something, for as long as it takes enough of what is on
	// its way. It is for the one who writes, and disturbs nobody who reads.
	mayWrite(x *Exchange) error
	// room waits until the client takes something, without a buffer, and returns how many
	// bytes are worth reading for it.
	room(x *Exchange) (int, error)
	// beginAnswer takes the head of the final answer. It may wait for the body to leave
	// with it, until flush.
	beginAnswer(x *Exchange) error
	// writeBody takes one piece of its content. last: nothing follows, no trailer either.
	writeBody(x *Exchange, piece []byte, last bool) error
	flush(x *Exchange) error
	// endAnswer ends it and flushes. trailer holds field lines, each with its CRLF.
	endAnswer(x *Exchange, trailer []byte) error
	// socket is where the kernel may write a body of known length by itself, or nil.
	socket() *wire
}
