package engine

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// serverConn is one connection of a client. One goroutine serves it from accept to
// close; a second one exists only while a request body or a tunnel needs it.
type serverConn struct {
	wire
	peer
	alpn   string
	served int   // requests
	first  input // what ends a wait for a request
	state  atomic.Uint32
	h2     atomic.Pointer[h2conn] // while it speaks HTTP/2

	watchedAs int // the descriptor, for lookout
}

// States of a connection. Only an idle one may be woken to be closed, and one that reads a
// head to be quick: what is on its way in another is finished.
const (
	connBusy uint32 = iota
	connIdle
	connReading // a head, of which not all has come
	connWaking  // wake is about to move its deadline
	connWoken
	connTunnel
)

func newServerConn(s *Server, conn net.Conn) *serverConn {
	c := &serverConn{peer: peer{srv: s, shard: s.shards.Add(1)}}
	c.remote, c.local = addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// serve is the life of the connection.
func (c *serverConn) serve(conn net.Conn, config *tls.Config) {
	defer c.srv.forget(c)
	if c.srv.OnPanic != nil {
		defer c.contain()
	}
	if !c.open(conn, config) {
		c.first.release()
		_ = conn.Close() // nothing can be done about it
		return
	}
	if c.alpn == "h2" {
		c.serveH2(input{})
		return
	}
	c.serveH1()
}

// serveH1 serves one request after the other.
func (c *serverConn) serveH1() {
	last := endPlain
	x := (*Exchange)(nil)
	defer func() {
		if x != nil { // a panic
			x.repayBudget()
		}
		c.end(last)
	}()
	for {
		if x == nil {
			if x = c.await(); x == nil {
				return
			}
		}
		if c.srv.H2C && c.served == 0 && !c.secure && c.isPreface(x) {
			in := x.in
			x.in = input{}
			c.retire(x)
			x = nil
			c.serveH2(in)
			return
		}
		again := c.exchange(x)
		if again && x.pipelined() {
			continue
		}
		if !again {
			last = x.ending()
		}
		c.retire(x)
		x = nil
		if !again {
			return
		}
	}
}

// contain keeps a panic to this connection. What its exchange held is left to the garbage
// collector, but for its part of a budget: nobody knows what state it is in.
func (c *serverConn) contain() {
	if reason := recover(); reason != nil {
		c.srv.OnPanic(reason, debug.Stack())
	}
}

// await waits for the first byte of a request, and holds nothing meanwhile. It returns
// nil when the connection is to end.
func (c *serverConn) await() *Exchange {
	idle := c.srv.limits.IdleTimeout
	if c.served == 0 {
		idle = c.srv.limits.HeadTimeout
	}
	if c.srv.draining.Load() && c.served > 0 {
		idle = drainIdle
	}
	if len(c.first.unread()) == 0 && c.awaitFirst(idle) != nil {
		return nil
	}
	x := exchanges.Get().(*Exchange)
	x.in, c.first = c.first, input{}
	return x
}

// awaitFirst waits for the first bytes of whatever comes next, as one who may be woken.
func (c *serverConn) awaitFirst(limit time.Duration) error {
	c.armRead(time.Now(), limit) // before wake may move the deadline
	c.state.Store(connIdle)
	letOthers()
	err := c.wire.await(&c.first)
	if !c.state.CompareAndSwap(connIdle, connBusy) {
		c.settleWake()
		if isTimeout(err) {
			err = c.lastLook(&c.first)
		}
	}
	if err != nil {
		c.first.release()
	}
	return err
}

// drainIdle is how long a connection that is open while the server drains may wait for
// another request. Its client has been told that it closes, or will be.
const drainIdle = time.Second

// wake ends the wait of an idle connection, so that it closes unless a request has come.
func (c *serverConn) wake() {
	if h := c.h2.Load(); h != nil {
		h.farewell()
		return
	}
	if c.state.CompareAndSwap(connIdle, connWaking) {
		_ = c.conn.SetReadDeadline(past) // fails only if it has closed
		c.state.Store(connWoken)
	}
	if c.state.CompareAndSwap(connReading, connWaking) {
		_ = c.conn.SetReadDeadline(c.srv.headsBy(time.Now().Add(drainIdle))) // as above
		c.state.Store(connWoken)
	}
}

// settleWake waits the moment until wake has moved the deadline, and undoes it.
func (c *serverConn) settleWake() {
	for c.state.Load() == connWaking {
		runtime.Gosched()
	}
	c.state.Store(connBusy)
	c.readBy = time.Time{}
}

// lastLook takes a request that came in the moment in which its connection was to close.
func (c *serverConn) lastLook(in *input) error {
	if c.poll(unix.POLLIN)&unix.POLLIN == 0 {
		return errStopped
	}
	c.armRead(time.Now(), drainIdle)
	return c.wire.await(in)
}

// exchange serves one request of which at least a byte is there, and reports whether
// another may follow.
func (c *serverConn) exchange(x *Exchange) bool {
	x.begin(c, &c.peer, time.Now())
	x.out.start(&c.wire, c.srv.limits.WriteTimeout)
	x.out.minRate = c.srv.limits.MinRate
	refusal, alive := c.readRequest(x)
	if !alive || refusal == errNotHTTP && c.srv.H2C && c.served == 0 && !c.secure {
		return false // in the latter case it may have been meant for HTTP/2, whose clients see no sense in an answer
	}
	c.srv.requests.Add(1)
	h := c.srv.Handler
	if refusal != nil {
		x.closing = true
		h.Refuse(x, refusal)
	} else {
		h.Serve(x)
	}
	if x.pump.started { // the handler has left an answer unsent
		x.pump.stop(x)
	}
	x.ended = time.Now()
	h.Done(x)
	c.served++
	return x.end()
}

// end lets go of all that the exchange held, and reports whether the connection may go on.
func (x *Exchange) end() bool {
	x.letGo()
	if !x.sent {
		x.closing = true // the handler has left it unanswered
	}
	if !x.closing && !x.skipBody() {
		x.closing = true
	}
	x.in.unpin()
	return !x.closing
}

// pipelined reports whether the next request has begun to come already. An empty line
// that some old clients send after a body is not one.
func (x *Exchange) pipelined() bool {
	if string(x.in.unread()) == "\r\n" {
		x.in.take(2)
	}
	return len(x.in.unread()) > 0
}

// ending says how the connection is closed after its last exchange.
func (x *Exchange) ending() ending {
	switch {
	case !x.aborted:
		return endLinger
	case x.lengthUnknown() && !x.out.chunked:
		return endReset // or the cut message would look whole
	}
	return endPlain
}

// skipBody reads over a request body that nobody wanted, if it is here.
func (x *Exchange) skipBody() bool {
	for !x.body.ended {
		piece, err := x.body.buffered()
		if err != nil || len(piece) == 0 && !x.body.ended {
			return false
		}
	}
	return true
}

// readRequest reads and parses one head. alive is false when the client left before
// there was one.
func (c *serverConn) readRequest(x *Exchange) (refusal *Refusal, alive bool) {
	limits := &c.srv.limits
	deadline := x.Start.Add(limits.HeadTimeout)
	lineSeen := false
	for scanned, blank := 0, 0; ; {
		for blank < maxBlankLines && len(x.in.unread()) >= 2 && string(x.in.unread()[:2]) == "\r\n" {
			x.in.take(2)
			blank++
			scanned = 0
		}
		unread := x.in.unread()
		if len(unread) > 0 && !isTokenByte[unread[0]] && (unread[0] != '\r' || blank == maxBlankLines) {
			return badRequest("malformed method"), true
		}
		end, next, err := scanHead(unread, scanned)
		switch {
		case err != nil:
			return badRequest(err.Error()), true
		case end > limits.MaxHead, end == 0 && len(unread) >= limits.MaxHead:
			return tooLarge(unread), true
		case end > 0:
			return c.parse(x, unread[:end]), true
		}
		if eol := bytes.IndexByte(unread[scanned:], '\n'); eol >= 0 && !lineSeen {
			lineSeen = true
			if refusal := x.Request.parseLine(unread[:scanned+eol-1], limits); refusal != nil {
				return refusal, true
			}
			x.Request.reset() // the buffer may move yet
		}
		scanned = next
		if !x.in.compact(limits.MaxHead) {
			return tooLarge(unread), true
		}
		if err := c.readMore(&x.in, deadline); isTimeout(err) {
			return &Refusal{Status: 408, Reason: "head not complete in time"}, true
		} else if err != nil {
			return nil, false //nolint:nilerr // it has left: there is nobody to tell
		}
	}
}

// maxBlankLines is how many empty lines before a request line are read over (RFC 9112
// section 2.2): some old clients send one after a body.
const maxBlankLines = 1

// readMore reads what fits behind the unread bytes of in.
func (c *serverConn) readMore(in *input, deadline time.Time) error {
	now := time.Now()
	left := c.srv.headsBy(deadline).Sub(now)
	if left <= 0 {
		return errHeadTimeout
	}
	c.armRead(now, left) // before wake may move the deadline
	c.state.Store(connReading)
	n, err := c.conn.Read(in.buf[in.w:])
	in.w += n
	if !c.state.CompareAndSwap(connReading, connBusy) {
		c.settleWake()
	}
	if n > 0 {
		return nil
	}
	return err
}

// tooLarge tells a target that is too long from a head that is.
func tooLarge(head []byte) *Refusal {
	if bytes.IndexByte(head, '\n') >= 0 {
		return &Refusal{Status: 431, Reason: errHeadTooLarge.Error()}
	}
	return &Refusal{Status: 414, Reason: "target longer than the limit"}
}

func (c *serverConn) parse(x *Exchange, head []byte) *Refusal {
	x.in.take(len(head))
	x.in.pin()
	x.bodyStart = x.in.r
	if refusal := x.Request.parse(head, &c.srv.limits); refusal != nil {
		return refusal
	}
	x.startBody()
	return nil
}

// retire gives back what an exchange holds between requests.
func (c *serverConn) retire(x *Exchange) {
	x.in.release()
	x.out.release()
	x.down, x.peer = nil, nil
	exchanges.Put(x)
}

// end closes the connection. A client that is still sending must not have its answer
// torn away by a reset, so its bytes are read for a moment first (RFC 9112 section 9.6).
func (c *serverConn) end(how ending) {
	switch {
	case how == endReset:
		c.reset()
		return
	case how == endLinger && c.state.Load() != connTunnel && c.closeWrite() == nil:
		c.drain()
	}
	_ = c.conn.Close() // nothing can be done about it
}

// ending is a way to close a connection.
type ending uint8

const (
	endPlain  ending = iota // at once
	endLinger               // once the client has had time to read its answer
	endReset                // so that the client sees it fail
)

// lingering bounds how long and how much is read from a connection that is closing.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 4 << 20
)

func (c *serverConn) drain() {
	buf := getHeadBuffer()
	defer putBuffer(buf)
	until := time.Now().Add(lingerTime)
	if c.tcp == nil {
		return
	}
	_ = c.tcp.SetReadDeadline(until) // fails only if it has closed
	for read := 0; read < lingerBytes; {
		n, err := c.tcp.Read(buf)
		if err != nil {
			return
		}
		read += n
	}
}
