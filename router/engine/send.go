package engine

import (
	"io"
	"time"

	"golang.org/x/net/http2"
)

// Send writes the answer: the head as Response has it by now, and the body that belongs
// to it. An error means that the client did not get all of it; the connection ends then.
func (x *Exchange) Send() error {
	x.sent = true
	if x.up != nil {
		x.out.by = x.by
	}
	if x.up != nil && x.Response.Status == 101 {
		return x.aborts(x.down.tunnel(x))
	}
	err := x.down.beginAnswer(x)
	switch {
	case err != nil:
		x.dropUpstream()
	case x.up != nil:
		if err = x.relay(); err != nil && x.lastWords != nil && x.cutCode == http2.ErrCodeNo && x.Request.Version == HTTP20 {
			_ = x.down.endAnswer(x, x.lastWords) // nothing is lost if the client is gone, too
		}
	default:
		err = x.sendReply()
	}
	return x.aborts(err)
}

func (x *Exchange) aborts(err error) error {
	if err != nil {
		x.aborted, x.closing = true, true
	}
	return err
}

// lengthUnknown reports an answer whose end has to be marked in some way.
func (x *Exchange) lengthUnknown() bool {
	return x.Response.framing == byChunks || x.Response.framing == untilClose
}

func (x *Exchange) sendReply() error {
	if x.Response.framing == byLength && !x.Request.IsMethod("HEAD") {
		if err := x.down.writeBody(x, x.reply, true); err != nil {
			return err
		}
	}
	return x.down.endAnswer(x, nil)
}

// spliceFrom is the size from which on letting the kernel move a body is worth its price.
// minSplice and maxSplice bound how much it is told to move at a time. Within a step nobody
// can see whether the client takes anything, so a step has to fit in the write time-out of
// a slow one: the first is small, and they grow only while they take next to no time.
const (
	spliceFrom = 256 << 10
	minSplice  = 64 << 10
	maxSplice  = 256 << 10
	spliceFast = 50 * time.Millisecond
	spliceSlow = time.Second
)

// relay streams the body of the upstream's answer to the client, and then lets go of the
// upstream. What has been read is written before more is waited for.
func (x *Exchange) relay() error {
	if x.BufferAnswer > 0 && !x.upBody.ended {
		return x.relayAhead()
	}
	u := x.up
	for {
		piece, err := x.upBody.buffered()
		switch {
		case err != nil:
			_ = x.down.flush(x) // a client that sees no beginning cannot see the cut
			return x.breakOff(err)
		case len(piece) > 0:
			if err := x.down.writeBody(x, piece, x.upBody.ended && len(x.upBody.trailer) == 0); err != nil {
				return x.breakOff(err)
			}
		case x.upBody.ended:
			return x.endRelay()
		default:
			if err := x.down.flush(x); err != nil {
				return x.breakOff(err)
			}
			if err := x.more(u); err != nil {
				return x.breakOff(err)
			}
		}
	}
}

// more gets more of the body, once the client has room for it: into the input, or straight
// to the client.
func (x *Exchange) more(u upstream) error {
	n, err := x.down.room(x)
	if err != nil {
		return err
	}
	if x.upBody.framing == byLength && x.upBody.left >= spliceFrom && !x.slow {
		from, ok := u.(*clientConn)
		if to := x.down.socket(); ok && to != nil && from.splices() {
			return x.splice(from, to)
		}
	}
	return x.upBody.filled(u.fill(x, n))
}

// splice lets the kernel move one step of the body from socket to socket. Where one of the
// two is slow the rest is copied, which can be looked at while it goes.
func (x *Exchange) splice(u *clientConn, to *wire) error {
	start := time.Now()
	u.armRead(start, min(blindGlance, x.waits.Read, x.out.timeout/4))
	to.armWrite(start, x.out.timeout)
	surely := to.writeBy.Add(-x.out.timeout / 4) // before the client can have timed out
	step := min(x.upBody.left, x.spliceStep)
	x.limited = io.LimitedReader{R: u.tcp, N: step}
	n, err := to.tcp.ReadFrom(&x.limited)
	x.limited.R = nil
	x.upBody.left -= n
	x.upBody.bytes += n
	x.out.bytes += n
	x.upBody.ended = x.upBody.left == 0
	now := time.Now()
	switch took := now.Sub(start); {
	case isTimeout(err) && now.Before(surely):
		// It was the upstream that was waited for, and all it had sent has been moved. (Had
		// the client timed out, what is on its way between the two would be lost.)
		err = nil
		x.slow = true
	case err == nil && n < step:
		err = errCutShort
	case took > spliceSlow:
		x.slow = true
	case took > spliceFast:
		x.spliceStep = minSplice
	default:
		x.spliceStep = min(2*x.spliceStep, maxSplice)
	}
	return err
}

// breakOff ends an answer that cannot be completed, so that the client can tell.
func (x *Exchange) breakOff(err error) error {
	x.dropUpstream()
	return err
}

// lateBody is how long a request body may go on after its answer has ended. An upstream
// that answers early often reads on for a moment.
const lateBody = time.Second

// endRelay finishes the answer, and settles whether another request can be sent on the
// upstream's connection.
func (x *Exchange) endRelay() error {
	trailer, err := x.responseTrailer()
	if err != nil {
		_ = x.down.flush(x)
		return x.breakOff(err)
	}
	err = x.down.endAnswer(x, trailer)
	sent := x.pump.finished(0)
	if !sent && err == nil && !x.closing {
		sent = x.pump.finished(lateBody)
	}
	x.pump.stop(x)
	x.upReusable = err == nil && sent && x.Response.keepAlive &&
		x.upBody.framing != untilClose
	return err
}

// letGo gives the upstream's connection back, or ends it. Until then the head of its
// answer lies in its buffer.
func (x *Exchange) letGo() {
	x.forgetGathered()
	x.letGoUpstream(x.ended)
	x.left.release()
}

func (x *Exchange) letGoUpstream(now time.Time) {
	if x.up != nil && x.upReusable && x.proxyOut == 0 {
		x.up.rest(now)
		x.up = nil
	}
	x.dropUpstream()
}
