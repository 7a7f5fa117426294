package engine

import (
	"bytes"
	"time"
)

// pace holds a client to the least rate at which it may send a body: the time for which it
// is waited for, and no other, counts.
type pace struct {
	rate   int // bytes a second; 0: any
	grace  time.Duration
	waited time.Duration
}

func (x *Exchange) startPace() {
	limits := &x.peer.srv.limits
	x.pace = pace{rate: max(limits.MinRate, 0), grace: limits.MinRateGrace}
	if bytes.HasPrefix(x.Request.Fields.Get(ContentType), grpcType) {
		x.pace.rate = 0
	}
}

// grpcType begins the type of bodies that are streams of messages, which may rest as long as
// their two ends like.
var grpcType = []byte("application/grpc")

// patience is how long the client may be waited for now, when so many bytes of its body have
// come, at most limit.
func (p *pace) patience(received int64, limit time.Duration) time.Duration {
	if p.rate == 0 {
		return limit
	}
	earned := time.Duration(float64(received) / float64(p.rate) * float64(time.Second))
	return max(min(limit, max(earned, p.grace)-p.waited), 0)
}

// tooSlow reports that n bytes in d are less than rate, in bytes a second, asks for. Nothing
// at all always is.
func tooSlow(n, rate int, d time.Duration) bool {
	return n <= 0 || float64(n) < float64(rate)*d.Seconds()
}
