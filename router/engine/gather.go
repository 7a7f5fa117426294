package engine

import (
	"errors"
	"time"
)

// ErrBodyTooLarge says that a request's body is larger than Exchange.MaxBody.
var ErrBodyTooLarge = errors.New("body larger than the limit")

// TakeBody does what is to be done with the body before an upstream is chosen: it refuses one
// above MaxBody, and takes what BufferBody asks for. Forward does so, too; a handler calls it
// where nothing of an upstream is to be held meanwhile.
func (x *Exchange) TakeBody() *UpstreamError {
	if x.MaxBody == 0 && x.BufferBody == 0 {
		return nil
	}
	x.rewind()
	x.by = x.Deadline()
	err := error(nil)
	switch {
	case x.MaxBody > 0 && x.Request.ContentLength > x.MaxBody:
		err = ErrBodyTooLarge
	case x.BufferBody > 0:
		err = x.gather()
	}
	if err == nil {
		return nil
	}
	cause := CauseClientBody
	if isReset(err) || errors.Is(err, errClientGone) {
		cause = CauseClientGone
	}
	return x.asDeadline(&UpstreamError{Cause: cause, Unsent: true, Err: err})
}

// gather takes the request's body, or its first BufferBody bytes, before an upstream has
// anything to do with it. A body that has come as a whole has a length from then on, and can
// be sent again. Its trailer section, if it has one, ends here.
func (x *Exchange) gather() error {
	if x.Request.framing == noBody || x.gathered != nil {
		return nil
	}
	if whole, err := x.body.complete(); whole || err != nil {
		return err
	}
	if err := x.invite(); err != nil {
		return err
	}
	x.startPace()
	for int64(len(x.gathered)) < x.BufferBody && x.borrowBudget() {
		piece, err := x.body.buffered()
		switch {
		case err != nil:
			return err
		case len(piece) > 0:
			x.gathered = append(x.gathered, piece...)
			if x.bodyTooLarge() {
				return ErrBodyTooLarge
			}
		case x.body.ended:
			x.Request.framing, x.Request.ContentLength = byLength, int64(len(x.gathered))
			x.body.framing = noBody // there is nothing more to be read
			if x.gathered == nil {
				x.gathered = []byte{} // it was taken, and is empty
			}
			return nil
		default:
			if err := x.fillBody(); err != nil {
				return err
			}
		}
	}
	return nil
}

// invite asks for a body that its client keeps until it is told to go on: the upstream, who
// would say so, has not been asked.
func (x *Exchange) invite() error {
	if !x.Request.expects || x.continued {
		return nil
	}
	x.Request.Fields.Del(Expect)
	x.Response.Status = 100
	err := x.passInterim()
	x.Response.reset()
	return err
}

// fillBody waits for more of the request's body, as long as its pace allows.
func (x *Exchange) fillBody() error {
	start := time.Now()
	x.down.armBody(start, within(x.pace.patience(x.body.bytes, x.peer.srv.limits.BodyTimeout), x.by, start))
	if x.pump.stopping.Load() { // after arming: stop's own deadline may have come first
		return errStopped
	}
	err := x.body.filled(x.down.fillBody(&x.in))
	x.pace.waited += time.Since(start)
	return err
}

func (x *Exchange) bodyTooLarge() bool { return x.MaxBody > 0 && x.body.bytes > x.MaxBody }

// borrowBudget accounts for what is gathered next.
func (x *Exchange) borrowBudget() bool {
	for x.borrowed < int64(len(x.gathered))+bodyBufferSize {
		if !x.peer.srv.gathered.borrow(bodyBufferSize) {
			return false
		}
		x.borrowed += bodyBufferSize
	}
	return true
}

// forgetGathered lets go of it.
func (x *Exchange) forgetGathered() {
	x.repayBudget()
	x.gathered = nil
}

// repayBudget leaves to others what was borrowed of the budget, also after a panic.
func (x *Exchange) repayBudget() {
	if x.borrowed > 0 {
		x.peer.srv.gathered.giveBack(x.borrowed)
		x.borrowed = 0
	}
}
