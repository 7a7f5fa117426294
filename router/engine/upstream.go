package engine

import "time"

// upstream is the upstream's side of one exchange: a connection of HTTP/1.1 that it has for
// itself, or a stream of HTTP/2. While a pump runs, the pump has the three methods that send
// the body.
type upstream interface {
	// sendHead collects the request's head. It leaves with the first of the body. whole: all of
	// that is here, and what is left of it may leave as late as with readHead.
	sendHead(x *Exchange, whole bool) error
	// writeBody takes one piece of the request's content. last: nothing follows, no trailer
	// either.
	writeBody(piece []byte, last bool) error
	flush() error
	// endBody ends it and flushes, or leaves that to readHead. trailer holds field lines, each with its CRLF.
	endBody(trailer []byte) error
	// bodySent lets go of what only sending needs, whether that has come to its end or not.
	bodySent()

	// readHead reads the next head of the answer into x.Response, interim or final.
	readHead(x *Exchange) *UpstreamError
	// beginBody makes x.upBody the body of the final head.
	beginBody(x *Exchange)
	// fill gets more of it, if it can no more than n bytes. All that was there has been used.
	fill(x *Exchange, n int) error
	// interrupt makes the readHead or read that waits, or the next one, look at the pump.
	interrupt()
	// unsent: not a byte of the request can have been looked at.
	unsent() bool

	// leaveHead leaves to x the memory that x.Response lies in. The answer's body has ended.
	leaveHead(x *Exchange)
	// cut makes all that waits fail, from whichever goroutine.
	cut()
	// close gives up the exchange, wherever it is.
	close()
	// rest ends one that has come to its end.
	rest(now time.Time)
}

var _, _ upstream = (*clientConn)(nil), (*h2call)(nil)
