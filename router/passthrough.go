package router

import (
	"errors"
	"os"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

var _ engine.StreamHandler = (*Proxy)(nil)

// WantsStreams reports whether the present Table passes any TLS connection through.
func (p *Proxy) WantsStreams() bool { return p.table.Load().HasStreams() }

// ServeStream passes a TLS connection through, if the host that its client asks for is
// served so. It is logged and counted like a request, with no method and no path, when it
// is over.
func (p *Proxy) ServeStream(x *engine.Stream) (taken bool) {
	route := p.table.Load().MatchStream(x.ServerName)
	if route == nil {
		return false
	}
	inFlight := &p.inFlight[x.Shard()%uint32(len(p.inFlight))].n
	inFlight.Add(1)
	defer inFlight.Add(-1)
	s := &streamPassage{Proxy: p, x: x, route: route}
	status := s.serve()
	s.done(status)
	return true
}

// streamPassage is one TLS connection on its way through.
type streamPassage struct {
	*Proxy
	x      *engine.Stream
	route  *Route
	tried  Tried
	tries  int
	faults [Faults]uint8
	note   string
	// connected is how long the last try took, if it succeeded.
	connected time.Duration
}

// serve connects to an endpoint, relays, and returns the status for the log: what nginx logs
// for streams. A client whose connection cannot be passed on sees it close.
func (s *streamPassage) serve() (status int) {
	if s.route.Backend == nil {
		s.note = s.route.Reason
		return 503
	}
	for {
		e := s.route.Backend.Pick(&s.tried)
		if e == nil {
			s.note = "no endpoint"
			return 503
		}
		err := s.try(e)
		switch {
		case err == nil:
			return 200
		case s.tries < s.cfg.MaxTries && s.othersLeft():
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.note = err.Error()
			return 504
		}
		s.note = err.Error()
		return 502
	}
}

// try connects to one endpoint and, if that succeeds, relays until the end.
func (s *streamPassage) try(e *Endpoint) error {
	e.Begin()
	defer e.End()
	s.tried.Add(e)
	s.tries++
	start := time.Now()
	if err := s.x.Connect(e.Pool(), s.route.ProxyProtocol); err != nil {
		s.faults[FaultConnect]++
		e.Fail(time.Now())
		return err
	}
	e.Succeed()
	s.connected = time.Since(start)
	if err := s.x.Relay(); err != nil {
		s.note = err.Error()
	}
	return nil
}

func (s *streamPassage) othersLeft() bool {
	for _, e := range s.route.Backend.Endpoints() {
		if !s.tried.Has(e) {
			return true
		}
	}
	return false
}

func (s *streamPassage) done(status int) {
	now := time.Now()
	duration := now.Sub(s.x.Start)
	if s.route.Stats != nil {
		s.route.Stats.Observe(s.x.Shard(), Observation{
			Status: status, Duration: duration,
			RequestBytes: s.x.BytesReceived(), ResponseBytes: s.x.BytesSent(),
			Tries: s.tries, Upstream: s.connected, Faults: s.faults,
		})
	}
	if s.cfg.AccessLog == nil {
		return
	}
	s.cfg.AccessLog.Log(&Record{
		Time: s.x.Start, Duration: duration, Client: s.x.ClientAddr(), TLS: true,
		Host: s.x.ServerName, Proto: "TLS", Status: status,
		BytesReceived: s.x.BytesReceived(), BytesSent: s.x.BytesSent(),
		Route: s.route, Upstream: s.x.UpstreamAddr(), Tries: s.tries, UpstreamTime: s.connected,
		Note: s.note,
	})
}
