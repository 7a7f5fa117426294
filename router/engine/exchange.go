// Package engine speaks HTTP: listeners, the connections of clients and to upstreams, and
// the one Exchange in which a request and its answer pass from one to the other. It knows
// no routes, and it is strict: what two parsers could read differently is refused. The
// README has the life of a connection, its buffers and its deadlines.
package engine

import (
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Handler answers requests. Its methods are called by many goroutines, for one exchange
// in this order: Serve or Refuse, then Done.
type Handler interface {
	// Serve answers one request: it calls Forward or Reply, and then Send.
	Serve(x *Exchange)
	// Refuse answers a request that is not served, because of what it is or when it came.
	// x.Request holds as much of it as could be read. The connection closes afterwards.
	Refuse(x *Exchange, why *Refusal)
	// Done is called when the last byte has been written, for logs and counters. Nothing of
	// x may be kept.
	Done(x *Exchange)
}

// Exchange is one request and its answer, whatever protocol carries them. It is for one
// goroutine, and it is used again for another request as soon as Done has returned.
//
// The handler sees the request's head, changes it as it likes, and then either has the
// exchange Forward it, after which Response is the head of the upstream's answer, or
// makes the answer itself with Reply. Either way it may change Response, and Send writes
// it with the body that belongs to it.
type Exchange struct {
	Request  Request
	Response Response
	// Start is when the first byte of the request was there.
	Start time.Time
	// Timeouts may be set by the handler, before Forward.
	Timeouts Timeouts
	// MaxBody is the largest request body in bytes that Forward sends on; 0: any. Above it
	// Forward fails with ErrBodyTooLarge.
	MaxBody int64
	// BufferBody is how many bytes of a request body Forward takes before an upstream has
	// anything to do with it; 0: none, it is streamed. What is beyond is streamed.
	BufferBody int64
	// BufferAnswer is how many bytes of the answer may be held for a client that takes it more
	// slowly than the upstream sends it; 0: none. UpstreamDone, if set, is called where the
	// upstream has been let go before the client has all of it. Both may be set before Send.
	BufferAnswer int64
	UpstreamDone func(x *Exchange)
	// State is the handler's own. The engine keeps it from one exchange to the next, so
	// that what it points to can be used again.
	State any

	identity *ClientIdentity
	proxyOut ProxyVersion

	down downstream
	peer *peer
	in   input  // from the client
	out  output // to the client
	body body   // of the request

	gathered  []byte // the body's beginning, with BufferBody
	borrowed  int64  // of the server's budget for that
	bodyStart int    // where the request's body begins in the input
	interims  int    // 1xx answers passed on
	answered  bool
	continued bool // a 100 has been passed on
	sent      bool // the head of the final answer has been written or collected
	closing   bool // the connection ends with this exchange
	aborted   bool // the answer was cut: the client must see that
	reply     []byte
	lastWords []byte        // field lines
	cutCode   http2.ErrCode // with which the upstream has reset its stream, in the middle of the answer

	up         upstream  // while there is one
	waits      Timeouts  // for it, with its defaults
	by         time.Time // Timeouts.Total as a time
	upBody     body      // of the upstream's answer
	upAddr     string
	upReusable bool // the answer was taken whole, and the connection stays open
	pump       pump
	pace       pace      // of the request's body
	tried      time.Time // when the last try began
	arrived    time.Time // of the upstream's head
	ended      time.Time // of the answer
	limited    io.LimitedReader
	spliceStep int64    // how much the kernel moves next
	slow       bool     // one of the two ends is: the kernel moves no more
	step       int      // how much is copied next
	backlog    *backlog // with BufferAnswer
	left       leftHead // of an upstream that was let go early
}

var exchanges = sync.Pool{New: func() any { return new(Exchange) }}

// begin makes x ready for the next request.
func (x *Exchange) begin(down downstream, p *peer, now time.Time) {
	x.down, x.peer = down, p
	x.Request.reset()
	x.Response.reset()
	x.Start, x.tried, x.arrived, x.by, x.identity = now, time.Time{}, time.Time{}, time.Time{}, nil
	x.Timeouts, x.MaxBody, x.BufferBody = Timeouts{}, 0, 0
	x.BufferAnswer, x.UpstreamDone = 0, nil
	x.proxyOut = 0
	x.answered, x.continued, x.sent, x.closing, x.aborted = false, false, false, false, false
	x.interims, x.reply, x.lastWords, x.upAddr, x.upReusable = 0, nil, nil, "", false
	x.cutCode = http2.ErrCodeNo
	x.body.start(&x.in, noBody, 0)
}

// ClientAddr is the other end of the connection the request came on.
func (x *Exchange) ClientAddr() netip.AddrPort { return x.peer.remote }

// LocalAddr is our end of it.
func (x *Exchange) LocalAddr() netip.AddrPort { return x.peer.local }

// Proxied reports that ClientAddr and LocalAddr are as a PROXY header has them: LocalAddr is then
// what the client has connected to.
func (x *Exchange) Proxied() bool { return x.peer.proxied }

// TLS reports whether the request came over TLS.
func (x *Exchange) TLS() bool { return x.peer.secure }

// Secure reports whether the client spoke TLS, with us or with a load balancer before us that says in its PROXY
// header that the client has connected to port 443, as ingress-nginx takes it.
func (x *Exchange) Secure() bool {
	return x.peer.secure || x.peer.proxied && x.peer.local.Port() == 443
}

// ServerName is the name that the client asked for in its TLS handshake, or "".
func (x *Exchange) ServerName() string { return x.peer.serverName }

// Shard is a small number that differs between connections, for choosing among the
// shards of a counter.
func (x *Exchange) Shard() uint32 { return x.peer.shard }

// UpstreamAddr is the address of the upstream that was tried last, or "".
func (x *Exchange) UpstreamAddr() string { return x.upAddr }

// TriedAt is when the last Forward began with an upstream; zero if none did.
func (x *Exchange) TriedAt() time.Time { return x.tried }

// EndedAt is when the answer had been written, for Handler.Done.
func (x *Exchange) EndedAt() time.Time { return x.ended }

// UpstreamHeadAt is when the head of the upstream's answer was there; zero if it never was.
func (x *Exchange) UpstreamHeadAt() time.Time { return x.arrived }

// BytesSent counts the content of the answer, without heads and framing.
func (x *Exchange) BytesSent() int64 { return x.out.bytes }

// BytesReceived counts the content of the request that was read.
func (x *Exchange) BytesReceived() int64 { return x.body.bytes }

// Aborted reports that the client did not get the whole answer: it went away, or the
// upstream broke off.
func (x *Exchange) Aborted() bool { return x.aborted }

// CloseAfter ends the connection with this exchange.
func (x *Exchange) CloseAfter() { x.closing = true }

// Reply makes the answer, instead of an upstream. Content must stay as it is until the
// exchange is done; it is not sent where an answer has no body. Header fields can be
// added to Response.Fields.
func (x *Exchange) Reply(status int, contentType string, content []byte) {
	x.dropUpstream()
	x.Response.reset()
	x.Response.Status = status
	x.Response.framing, x.Response.ContentLength = byLength, int64(len(content))
	if bodiless(status) {
		x.Response.framing = noBody
	} else {
		if len(content) > 0 && contentType != "" {
			x.Response.Fields.AddString(ContentType, contentType)
		}
		var digits [20]byte
		x.Response.Fields.Add(ContentLength, strconv.AppendInt(digits[:0], int64(len(content)), 10))
	}
	x.reply = content
	x.answered = true
}

// Redirect is Reply with a Location.
func (x *Exchange) Redirect(status int, location []byte) {
	x.Reply(status, "", nil)
	x.Response.Fields.Add(Location, location)
}

// SendProxyHeader has Forward begin its connection to the upstream with a header of the PROXY
// protocol: with the addresses of this client. Such a connection serves this request alone.
func (x *Exchange) SendProxyHeader(v ProxyVersion) { x.proxyOut = v }

// LastWords says how an answer ends that its upstream has broken off, where the client's
// protocol has a place for it (HTTP/2 alone: after chunks it would make the cut look whole).
// trailer holds field lines, each with its CRLF, and must stay as it is.
func (x *Exchange) LastWords(trailer []byte) { x.lastWords = trailer }

// Deadline is when Timeouts.Total is over; zero: never.
func (x *Exchange) Deadline() time.Time {
	if x.Timeouts.Total <= 0 {
		return time.Time{}
	}
	return x.Start.Add(x.Timeouts.Total)
}

// Answered reports whether there is an answer to Send.
func (x *Exchange) Answered() bool { return x.answered }

// ClientGone reports whether the client has closed its connection, as far as can be seen.
func (x *Exchange) ClientGone() bool { return x.down.hasLeft(x) }

// Replayable reports whether the request could be sent a second time: all of its body,
// if it has one, is still here.
func (x *Exchange) Replayable() bool {
	switch {
	case x.Request.framing == noBody:
		return true
	case x.gathered != nil:
		return x.body.ended && !x.pump.started
	}
	return !x.pump.started && x.in.pinned == nil
}

// Idempotent reports whether sending the request twice does no more than once (RFC 9110
// section 9.2.2), and an upstream that broke off may have seen it.
func (x *Exchange) Idempotent() bool { return x.Request.isIdempotent() && !x.Request.upgrade }

// dropUpstream ends the connection to an upstream whose answer is not wanted.
func (x *Exchange) dropUpstream() {
	if x.up == nil {
		return
	}
	x.pump.stop(x)
	x.up.close()
	x.up = nil
}
