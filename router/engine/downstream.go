package engine

import (
	"io"
	"net/netip"
	"time"
)

// peer is what an exchange tells of the connection that its request came on.
type peer struct {
	srv        *Server
	remote     netip.AddrPort
	local      netip.AddrPort
	secure     bool // over TLS
	serverName string
	shard      uint32
}

// downstream is the client's side of one exchange: a connection of HTTP/1.1, or a stream
// of HTTP/2. While a pump runs, the pump has the three methods that read the body.
type downstream interface {
	// hungUp reports whether the client has gone, as far as can be seen.
	hungUp() bool
	// departure gets a word when the client leaves, where that can be known; else it is nil.
	departure() <-chan struct{}

	// Read gets more of the request's body, at the latest BodyTimeout after armBody.
	io.Reader
	armBody(now time.Time)
	// cutBody makes the Read that waits, or the next one, fail; mendBody takes that back.
	cutBody()
	mendBody()

	// passInterim sends the 1xx answer that x.Response is.
	passInterim(x *Exchange) error
	// tunnel is the answer 101 and all that follows it.
	tunnel(x *Exchange) error
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
