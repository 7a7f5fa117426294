package engine

import (
	"errors"
	"strings"
	"time"
)

// Timeouts bounds what one request waits for on its way to an upstream and back. The zero
// value of a member means its default. As all deadlines they are coarse: up to a quarter late.
type Timeouts struct {
	// Connect bounds connecting to an upstream. Default: the ConnectTimeout of its Pool.
	Connect time.Duration
	// Send is the longest wait for the upstream to take something. Default: the WriteTimeout
	// of its Pool.
	Send time.Duration
	// FirstByte is the longest wait for the answer to begin, once the request has been
	// sent. Default: Read.
	FirstByte time.Duration
	// Read is the longest wait between two reads of an answer. Default: the ReadTimeout of
	// the Pool.
	Read time.Duration
	// Total bounds the whole exchange, from the first byte of the request to the last of
	// its answer, all tries included. It ends with the 101 of a tunnel. Default: none.
	Total time.Duration
}

// or gives the members that are not set their defaults.
func (t Timeouts) or(cfg *PoolConfig) Timeouts {
	if t.Connect == 0 {
		t.Connect = cfg.ConnectTimeout
	}
	if t.Send == 0 {
		t.Send = cfg.WriteTimeout
	}
	if t.Read == 0 {
		t.Read = cfg.ReadTimeout
	}
	if t.FirstByte == 0 {
		t.FirstByte = t.Read
	}
	return t
}

// String names those that are set: "connect=5s read=1m0s".
func (t Timeouts) String() string {
	var words []string
	for _, w := range []struct {
		name string
		time time.Duration
	}{{"connect", t.Connect}, {"send", t.Send}, {"first-byte", t.FirstByte}, {"read", t.Read}, {"total", t.Total}} {
		if w.time != 0 {
			words = append(words, w.name+"="+w.time.String())
		}
	}
	return strings.Join(words, " ")
}

// within is how long of d there is before by; by may be zero, for never.
func within(d time.Duration, by, now time.Time) time.Duration {
	if by.IsZero() {
		return d
	}
	return max(min(d, by.Sub(now)), 0)
}

// expired reports whether by, unless it is zero, is over.
func expired(by, now time.Time) bool { return !by.IsZero() && !now.Before(by) }

// asDeadline makes an error of a try that which it is if the time of the whole exchange is over.
func (x *Exchange) asDeadline(err *UpstreamError) *UpstreamError {
	if err.Cause != CauseClientGone && isTimeout(err.Err) && (errors.Is(err.Err, errTotal) || expired(x.by, time.Now())) {
		err.Cause, err.Err = CauseDeadline, errTotal
	}
	return err
}
