package engine

import (
	"runtime/debug"
	"sync/atomic"
	"time"
)

// pump sends a request body that was not complete when its head was sent, while the
// exchange's own goroutine waits for the answer: an upstream may answer early.
type pump struct {
	started  bool
	done     chan struct{}
	stopping atomic.Bool
	state    atomic.Uint32 // pumpRunning to one of the others, once
	cause    error         // why it failed; set before state
}

const (
	pumpRunning uint32 = iota
	pumpFinished
	pumpClientFailed   // the client's body is malformed, cut or too slow
	pumpUpstreamFailed // the upstream does not take it
)

// begin starts sending the rest of the request's body to the upstream.
func (p *pump) begin(x *Exchange) {
	p.started = true
	p.cause = nil
	p.stopping.Store(false)
	p.state.Store(pumpRunning)
	p.done = make(chan struct{})
	if x.gathered == nil {
		x.startPace()
	}
	go p.run(x, x.up)
}

func (p *pump) run(x *Exchange, u upstream) {
	defer close(p.done)
	if srv := x.peer.srv; srv.OnPanic != nil {
		defer p.contain(srv, u)
	}
	err, byClient := x.sendBody(u)
	u.bodySent()
	switch {
	case err == nil:
		p.state.Store(pumpFinished)
	case byClient:
		p.cause = err
		p.state.Store(pumpClientFailed)
		// Wake whoever waits for an answer that cannot come.
		u.interrupt()
	default:
		// The upstream may have answered before it stopped taking the body: whoever waits
		// for the answer finds out.
		p.cause = err
		p.state.Store(pumpUpstreamFailed)
	}
}

// contain keeps a panic to this exchange: what was sent of the body is not all, so that
// neither connection goes on.
func (p *pump) contain(srv *Server, u upstream) {
	if reason := recover(); reason != nil {
		srv.OnPanic(reason, debug.Stack())
		p.cause = errPanic
		p.state.Store(pumpUpstreamFailed)
		u.cut() // wakes whoever waits for an answer
	}
}

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// running reports whether the body is still being sent.
func (p *pump) running() bool { return p.started && p.state.Load() == pumpRunning }

// clientFailed returns why the client's body could not be read, or nil.
func (p *pump) clientFailed() error {
	if p.started && p.state.Load() == pumpClientFailed {
		return p.cause
	}
	return nil
}

// upstreamFailed reports that the upstream takes no more of the body.
func (p *pump) upstreamFailed() bool { return p.started && p.state.Load() == pumpUpstreamFailed }

// finished waits until the body has been sent, at most so long, and reports whether it
// has been, wholly.
func (p *pump) finished(wait time.Duration) bool {
	if !p.started {
		return true
	}
	if p.running() && wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
		}
	}
	return p.state.Load() == pumpFinished
}

// stop ends sending, wherever it is, and waits for that: afterwards nobody else reads
// from the client. Neither connection can be used for another request then.
func (p *pump) stop(x *Exchange) {
	if !p.started {
		return
	}
	if p.running() {
		x.closing = true
		p.stopping.Store(true)
		x.down.cutBody()
		x.up.cut() // writing to it fails from here on
	}
	<-p.done
	p.stopping.Store(false)
	x.down.mendBody()
	if p.state.Load() != pumpFinished {
		x.closing = true
	}
	p.started = false
}

// sendBody reads the request's body to its end and sends it. byClient says whose fault
// an error is.
func (x *Exchange) sendBody(u upstream) (err error, byClient bool) {
	if len(x.gathered) > 0 {
		if err := u.writeBody(x.gathered, x.body.ended && len(x.body.trailer) == 0); err != nil {
			return err, false
		}
	}
	for {
		piece, err := x.body.buffered()
		switch {
		case err != nil:
			return err, true
		case len(piece) > 0 && x.bodyTooLarge():
			return ErrBodyTooLarge, true
		case len(piece) > 0:
			if err := u.writeBody(piece, x.body.ended && len(x.body.trailer) == 0); err != nil {
				return err, false
			}
		case x.body.ended:
			trailer, err := x.requestTrailer()
			if err != nil {
				return err, true
			}
			return u.endBody(trailer), false
		default:
			if err := u.flush(); err != nil {
				return err, false
			}
			if err := x.fillBody(); err != nil {
				return err, true
			}
		}
	}
}
