package router

import (
	"net/netip"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// AccessLog takes a Record of each request. It is called by many goroutines, must not
// block for long, and must not keep the Record or anything it points to.
type AccessLog interface {
	Log(r *Record)
}

// Record is what an access log says about one request.
type Record struct {
	Time     time.Time     // the first byte of the request
	Duration time.Duration // to the last byte of the answer
	ID       []byte        // X-Request-ID
	Client   netip.AddrPort
	TLS      bool
	// Of the request line; empty where the request could not be read.
	Method, Host, Path, Query []byte
	Proto                     string
	UserAgent                 []byte
	Status                    int
	BytesReceived, BytesSent  int64
	// Route is nil if none matched.
	Route *Route
	// Of the last try: where the request went, how often it was tried, and how long the
	// head of the answer took (0: none came).
	Upstream     string
	Tries        int
	UpstreamTime time.Duration
	// Note says what went wrong, if anything did.
	Note string
}

func (s *passage) fill(x *engine.Exchange, status int, now time.Time) {
	r := &x.Request
	s.record = Record{
		Time: x.Start, Duration: now.Sub(x.Start), ID: s.id[:], Client: x.ClientAddr(), TLS: x.TLS(),
		Method: r.Method, Host: r.Authority, Path: r.Path, Query: r.Query, Proto: r.Version.String(),
		UserAgent: r.Fields.Get(engine.UserAgent), Status: status,
		BytesReceived: x.BytesReceived(), BytesSent: x.BytesSent(),
		Route: s.route, Upstream: x.UpstreamAddr(), Tries: s.tries, UpstreamTime: s.upstreamTime(x),
		Note: s.note,
	}
	if len(r.Path) == 0 {
		s.record.Path = r.Target
	}
}
