package router

import (
	"errors"
	"os"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// forward sends the request to an endpoint of its route, and to others while that can do
// no harm, until one answers.
func (p *Proxy) forward(x *engine.Exchange, s *passage) {
	setForwarded(x, s)
	for {
		e := s.route.Backend.Pick(&s.tried)
		if e == nil {
			s.note = "no endpoint"
			p.replyError(x, s, 503)
			return
		}
		err := p.try(x, s, e)
		if err == nil {
			return
		}
		if !p.again(x, s, err) {
			p.giveUp(x, s, err)
			return
		}
	}
}

// try sends the request to one endpoint.
func (p *Proxy) try(x *engine.Exchange, s *passage, e *Endpoint) *engine.UpstreamError {
	if s.endpoint != nil {
		s.endpoint.End()
	}
	s.endpoint = e
	e.Begin()
	s.tried.Add(e)
	s.tries++
	s.tryStart = time.Now()
	err := x.Forward(e.Pool())
	switch {
	case err == nil:
		e.Succeed()
	case err.Cause == engine.CauseConnect, err.Cause == engine.CauseTLS:
		e.Fail(time.Now())
	}
	if err != nil {
		s.countFault(err.Cause)
	}
	return err
}

func (s *passage) countFault(c engine.Cause) {
	var f Fault
	switch c {
	case engine.CauseConnect, engine.CauseTLS:
		f = FaultConnect
	case engine.CauseTimeout:
		f = FaultTimeout
	case engine.CauseWrite, engine.CauseClosed:
		f = FaultReset
	case engine.CauseProtocol:
		f = FaultProtocol
	default:
		return // not the upstream's
	}
	s.faults[f]++
}

// again decides whether a failed request is sent once more: never if that could do
// something twice (RFC 9110 section 9.2.2), never if part of an answer has come.
func (p *Proxy) again(x *engine.Exchange, s *passage, err *engine.UpstreamError) bool {
	if s.tries >= p.cfg.MaxTries || !x.Replayable() {
		return false
	}
	switch err.Cause {
	case engine.CauseConnect, engine.CauseTLS:
	case engine.CauseClosed, engine.CauseWrite, engine.CauseTimeout:
		if !err.Unsent && !x.Idempotent() {
			return false
		}
	default:
		return false
	}
	// A kept connection that the upstream has closed meanwhile says nothing about it: the
	// same endpoint is as good as any. Otherwise there has to be another one.
	return err.Reused && err.Cause != engine.CauseTimeout || s.othersLeft()
}

func (s *passage) othersLeft() bool {
	for _, e := range s.route.Backend.Endpoints() {
		if !s.tried.Has(e) {
			return true
		}
	}
	return false
}

// giveUp answers a request that no endpoint has.
func (p *Proxy) giveUp(x *engine.Exchange, s *passage, err *engine.UpstreamError) {
	s.note = err.Error()
	switch {
	case err.Cause == engine.CauseClientGone:
		s.status = engine.StatusClientGone
	case err.Cause == engine.CauseClientBody && errors.Is(err.Err, os.ErrDeadlineExceeded):
		x.CloseAfter()
		p.replyError(x, s, 408)
	case err.Cause == engine.CauseClientBody:
		x.CloseAfter()
		p.replyError(x, s, 400)
	case err.Cause == engine.CauseTimeout, errors.Is(err.Err, os.ErrDeadlineExceeded):
		p.replyError(x, s, 504)
	default:
		p.replyError(x, s, 502)
	}
}

// forwardedFields are those in which proxies tell what they know of a request. What a
// client writes there is not true, so they are replaced.
var forwardedFields = engine.SetOf(
	engine.Forwarded, engine.XForwardedFor, engine.XForwardedHost, engine.XForwardedPort,
	engine.XForwardedPrefix, engine.XForwardedProto, engine.XForwardedScheme,
	engine.XForwardedServer, engine.XForwardedSSL, engine.XOriginalForwardedFor,
	engine.XRealIP, engine.XRequestID, engine.XScheme,
	// Who the client is, by a certificate that nobody has seen.
	engine.SSLClientCert, engine.SSLClientIssuerDN, engine.SSLClientSubjectDN, engine.SSLClientVerify,
	engine.XForwardedClientCert,
	// Another path than the one that was matched, which some frameworks believe.
	engine.XOriginalURL, engine.XRewriteURL,
)

// setForwarded tells the upstream where the request came from.
func setForwarded(x *engine.Exchange, s *passage) {
	proto, port := "http", "80"
	if x.TLS() {
		proto, port = "https", "443"
	}
	f := &x.Request.Fields
	f.DelSet(forwardedFields)
	f.Add(engine.XRequestID, s.id[:])
	f.Add(engine.XRealIP, s.addr)
	f.Add(engine.XForwardedFor, s.addr)
	if len(x.Request.Authority) > 0 {
		f.Add(engine.XForwardedHost, x.Request.Authority)
	}
	if len(x.Request.Port) > 0 {
		f.Add(engine.XForwardedPort, x.Request.Port)
	} else {
		f.AddString(engine.XForwardedPort, port)
	}
	f.AddString(engine.XForwardedProto, proto)
}
