package engine

import "time"

// Limits bounds what one connection may cost. The zero value of a member means its
// default, which is nginx's where nginx has one.
type Limits struct {
	// MaxHead is the largest head in bytes, request line and fields together; above it the
	// answer is 431. Default 32 KiB.
	MaxHead int
	// MaxTarget is the longest request target in bytes; above it the answer is 414.
	// Default 16 KiB. RFC 9112 section 3 recommends 8000 at least.
	MaxTarget int
	// MaxFields is the largest number of fields in a head; above it the answer is 431.
	// Default 200.
	MaxFields int
	// MaxRequests ends a connection after so many requests. Default 10000.
	MaxRequests int
	// HeadTimeout is the time from the first byte of a head to its last. Default 60 s.
	HeadTimeout time.Duration
	// BodyTimeout is the longest wait between two reads of a request body. Default 60 s.
	BodyTimeout time.Duration
	// MinRate is how many bytes a second of a request body a client has to send, on average
	// while it is waited for, and to take of an answer that cannot be written at once.
	// Bodies of gRPC are not held to it. Default 240; below 0: there is none.
	MinRate int
	// MinRateGrace is how long a body may be waited for in all before MinRate counts.
	// Default 10 s.
	MinRateGrace time.Duration
	// WriteTimeout is the longest wait for a client to take what is written. Default 60 s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection may stay without a request. Default 75 s.
	IdleTimeout time.Duration
	// HandshakeTimeout bounds a TLS handshake. Default 10 s.
	HandshakeTimeout time.Duration
	// TunnelTimeout ends an upgraded connection on which nothing moves. Default 1 h.
	TunnelTimeout time.Duration
	// MaxConnections is how many client connections there may be; above it new ones are
	// closed at once. Default 65536.
	MaxConnections int
	// BufferedBodies is how many bytes all exchanges together hold of request bodies
	// (Exchange.BufferBody), and BufferedAnswers of answers (Exchange.BufferAnswer). Above that
	// they are streamed. Defaults 64 MiB each: slow readers cannot use up what slow senders need.
	BufferedBodies, BufferedAnswers int64
}

func (l Limits) withDefaults() Limits {
	setInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	setTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	setSize := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	setSize(&l.BufferedBodies, 64<<20)
	setSize(&l.BufferedAnswers, 64<<20)
	setInt(&l.MaxHead, 32<<10)
	setInt(&l.MaxTarget, 16<<10)
	setInt(&l.MaxFields, 200)
	setInt(&l.MaxRequests, 10000)
	setInt(&l.MaxConnections, 65536)
	setInt(&l.MinRate, 240)
	setTime(&l.HeadTimeout, 60*time.Second)
	setTime(&l.BodyTimeout, 60*time.Second)
	setTime(&l.WriteTimeout, 60*time.Second)
	setTime(&l.MinRateGrace, 10*time.Second)
	setTime(&l.IdleTimeout, 75*time.Second)
	setTime(&l.HandshakeTimeout, 10*time.Second)
	setTime(&l.TunnelTimeout, time.Hour)
	return l
}
