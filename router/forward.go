package router

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// forward sends the request to an endpoint of its route, and to others while that can do
// no harm, until one answers.
func (p *Proxy) forward(x *engine.Exchange, s *passage) {
	s.aim(x)
	setForwarded(x, s)
	x.SendProxyHeader(s.route.ProxyProtocol)
	x.Timeouts, x.MaxBody, x.BufferBody = s.route.Timeouts, s.route.MaxBody, s.route.BufferBody
	if err := x.TakeBody(); err != nil { // before it has a place at the backend
		p.giveUp(x, s, err)
		return
	}
	for {
		e, why := s.enter(x)
		if e == nil {
			p.keptOut(x, s, why)
			return
		}
		err := p.try(x, s, e)
		switch {
		case err == nil && p.unwanted(x, s):
		case err == nil:
			s.accept(x)
			s.bind(x, e)
			return
		case !p.retries(x, s, failureOf(err)):
			p.giveUp(x, s, err)
			return
		}
	}
}

// aim reads from the request what its policy goes by, while that is as the client sent it.
func (s *passage) aim(x *engine.Exchange) {
	if s.route.Policy == nil {
		return
	}
	s.policy = s.route.Policy
	if s.policy.Balance == ConsistentHash {
		s.key, s.keyed, s.scratch = s.policy.HashBy.key(x, s.addr, s.scratch)
	}
	if s.policy.Sticky.Mode != StickyOff {
		b := s.route.Backend
		s.session = b.list.Load().session(b.name, &s.policy.Sticky, &x.Request.Fields)
	}
}

// keptOut answers a request for which there is no endpoint.
func (p *Proxy) keptOut(x *engine.Exchange, s *passage, why Rejection) {
	switch why {
	case Rejections:
		s.note = "no endpoint"
	case RejectedGone:
		s.note, s.status = rejectionNotes[why], engine.StatusClientGone
		return
	default:
		s.note = rejectionNotes[why]
	}
	if by := x.Deadline(); !by.IsZero() && !time.Now().Before(by) {
		p.replyError(x, s, 504)
		return
	}
	p.replyError(x, s, 503)
}

// unwanted decides about an answer whether another endpoint is asked in its place. The
// answer and its connection are dropped then.
func (p *Proxy) unwanted(x *engine.Exchange, s *passage) bool {
	on := onStatus(x.Response.Status)
	return on != 0 && s.policy.Retry.On.has(on) && p.retries(x, s, failure{on: on, reason: RetriedStatus})
}

// bind gives the client the cookie that leads it to the endpoint that answered, unless it
// has one.
func (s *passage) bind(x *engine.Exchange, e *Endpoint) {
	sticky := &s.policy.Sticky
	switch {
	case sticky.Mode == StickyOff:
		return
	case s.session.known && (e == s.session.home || !sticky.ChangeOnFailure):
		return
	}
	b := s.route.Backend
	id := b.list.Load().sessionFor(b.name, sticky.Mode, e)
	s.scratch = sticky.appendCookie(s.scratch[:0], &id, s.route.Path, x.Secure(), x.Start)
	x.Response.Fields.AddName(setCookie, s.scratch)
}

var setCookie = []byte("Set-Cookie")

// try sends the request to one endpoint.
func (p *Proxy) try(x *engine.Exchange, s *passage, e *Endpoint) *engine.UpstreamError {
	s.tried.Add(e)
	s.tries++
	err := x.Forward(e.Pool())
	s.tryStart = x.TriedAt()
	if s.tries == 1 {
		s.firstTry = s.tryStart
	}
	switch {
	case err == nil:
		e.Succeed()
	case outOfDescriptors(err): // no endpoint's fault
	case err.Cause == engine.CauseConnect, err.Cause == engine.CauseTLS:
		e.Fail(time.Now())
	}
	if err != nil {
		s.countFault(err.Cause)
	}
	if s.policy != &noPolicy {
		s.learn(x, e, err)
	}
	return err
}

// outOfDescriptors tells whether it is this process that cannot connect to anything.
func outOfDescriptors(err *engine.UpstreamError) bool {
	return errors.Is(err.Err, syscall.EMFILE) || errors.Is(err.Err, syscall.ENFILE)
}

// learn notes what a try says about the endpoint, where the policy goes by it.
func (s *passage) learn(x *engine.Exchange, e *Endpoint, err *engine.UpstreamError) {
	measured, judged := s.policy.Balance == PeakEWMA, s.policy.Ejection.Consecutive > 0
	if !measured && !judged {
		return
	}
	bad := err == nil && x.Response.Status >= 500
	now := x.UpstreamHeadAt()
	if err != nil {
		f := failureOf(err)
		if f.on == 0 || f.stale {
			return // not the endpoint's
		}
		bad, now = true, time.Now()
		judged = judged && err.Cause != engine.CauseConnect
	}
	if took := now.Sub(s.tryStart); measured && bad {
		e.latency.worsen(took, now)
	} else if measured {
		e.latency.observe(took, now)
	}
	if judged {
		s.route.Backend.judge(e, &s.policy.Ejection, bad, now)
	}
}

func (s *passage) countFault(c engine.Cause) {
	var f Fault
	switch c {
	case engine.CauseConnect, engine.CauseTLS:
		f = FaultConnect
	case engine.CauseTimeout, engine.CauseDeadline:
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

// giveUp answers a request that no endpoint has.
func (p *Proxy) giveUp(x *engine.Exchange, s *passage, err *engine.UpstreamError) {
	s.note = err.Error()
	if s.overBudget {
		s.note += " (not sent again: the retry budget is exhausted)"
	}
	switch {
	case err.Cause == engine.CauseClientGone:
		s.status = engine.StatusClientGone
	case errors.Is(err.Err, engine.ErrBodyTooLarge):
		x.CloseAfter()
		p.replyError(x, s, 413)
	case err.Cause == engine.CauseClientBody && errors.Is(err.Err, os.ErrDeadlineExceeded):
		x.CloseAfter()
		p.replyError(x, s, 408)
	case err.Cause == engine.CauseClientBody:
		x.CloseAfter()
		p.replyError(x, s, 400)
	case err.Cause == engine.CauseTimeout, errors.Is(err.Err, os.ErrDeadlineExceeded):
		p.replyError(x, s, 504)
	case outOfDescriptors(err):
		p.replyError(x, s, 503)
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
	proto := "http"
	if x.Secure() {
		proto = "https"
	}
	f := &x.Request.Fields
	f.DelSet(forwardedFields)
	f.Add(engine.XRequestID, s.id[:])
	f.Add(engine.XRealIP, s.addr)
	f.Add(engine.XForwardedFor, s.addr)
	if len(x.Request.Authority) > 0 {
		f.Add(engine.XForwardedHost, x.Request.Authority)
	}
	addPort(f, x)
	f.AddString(engine.XForwardedProto, proto)
	if id := x.Identity(); id != nil {
		addIdentity(f, id)
	}
}

// addPort tells the upstream which port the client has connected to, as ingress-nginx does with its
// $pass_port: 80 or 443, which stand for the listener whatever it is mapped from, or what a PROXY
// header says. The port in Host is what the client says.
func addPort(f *engine.Fields, x *engine.Exchange) {
	switch {
	case x.Proxied():
		var digits [5]byte
		f.Add(engine.XForwardedPort, strconv.AppendUint(digits[:0], uint64(x.LocalAddr().Port()), 10))
	case x.TLS():
		f.AddString(engine.XForwardedPort, "443")
	default:
		f.AddString(engine.XForwardedPort, "80")
	}
}

// addIdentity tells the upstream whom the client's certificate is of, as ingress-nginx does.
func addIdentity(f *engine.Fields, id *engine.ClientIdentity) {
	add := func(name engine.FieldID, value []byte) {
		if len(value) > 0 {
			f.Add(name, value)
		}
	}
	add(engine.SSLClientVerify, id.Verdict)
	add(engine.SSLClientSubjectDN, id.Subject)
	add(engine.SSLClientIssuerDN, id.Issuer)
	add(engine.SSLClientCert, id.Certificate)
}
