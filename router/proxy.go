package router

import (
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// ProxyConfig says how a Proxy answers. The zero value works.
type ProxyConfig struct {
	// HideServer leaves out the field "Server: portico" on answers that have none of their own.
	HideServer bool
	// MaxTries is how many endpoints one request may be sent to. Default 3, as nginx's
	// proxy_next_upstream_tries in ingress-nginx.
	MaxTries int
	// AccessLog gets a Record for each request; nil: none are made.
	AccessLog AccessLog
	// Coalesces decides whether a TLS connection whose handshake asked for serverName, perhaps
	// "", may carry requests for another host (RFC 9113 section 9.1.1). Those it may not are
	// answered 421, whether the host has a route or not. It is called by many goroutines. nil:
	// a connection may ask for any host.
	Coalesces func(serverName string, host []byte) bool
	// Unmatched counts the requests of unknown hosts and paths; nil: they are not counted.
	Unmatched *Stats
}

// Proxy is the life of a request: it matches it to a route of the present Table, runs the
// route's filters, sends it to an endpoint, and answers. It is an engine.Handler.
type Proxy struct {
	cfg      ProxyConfig
	table    atomic.Pointer[Table]
	inFlight []inFlightShard
}

var _ engine.Handler = (*Proxy)(nil)

// inFlightShard counts on a cache line of its own.
type inFlightShard struct {
	n atomic.Int64
	_ [56]byte
}

// NewProxy returns a Proxy with an empty Table.
func NewProxy(cfg ProxyConfig) *Proxy {
	if cfg.MaxTries == 0 {
		cfg.MaxTries = 3
	}
	p := &Proxy{cfg: cfg, inFlight: make([]inFlightShard, 8)}
	p.table.Store(NewTable())
	return p
}

// Swap makes t the Table of all requests that begin from now on. Those under way keep theirs.
func (p *Proxy) Swap(t *Table) { p.table.Store(t) }

// Table returns the present Table.
func (p *Proxy) Table() *Table { return p.table.Load() }

// InFlight counts the requests that have begun and not ended.
func (p *Proxy) InFlight() int64 {
	n := int64(0)
	for i := range p.inFlight {
		n += p.inFlight[i].n.Load()
	}
	return n
}

// passage is what the Proxy remembers of one exchange. It is used again for the next one.
type passage struct {
	route    *Route
	policy   *Policy   // never nil
	endpoint *Endpoint // that counts it
	running  bool      // its backend counts it, too
	tried    Tried
	tries    int
	faults   [Faults]uint8
	status   int       // to be counted; 0: as answered
	note     string    // for the access log: what went wrong
	tryStart time.Time // of the last try
	firstTry time.Time
	// Of retries: it had a stale connection, it is on the budget, it was over it.
	stale, retrying, overBudget bool
	// What balancing goes by.
	key     uint64
	keyed   bool
	session session
	waiter  waiter
	id      [32]byte
	addr    []byte // of the client, as text
	addrOf  netip.Addr
	page    []byte // an error page
	scratch []byte // a key, or a cookie
	record  Record
}

func passageOf(x *engine.Exchange) *passage {
	p, ok := x.State.(*passage)
	if !ok {
		p = new(passage)
		x.State = p
	}
	return p
}

// begin makes it ready for x.
func (s *passage) begin(x *engine.Exchange) {
	s.route, s.policy, s.endpoint, s.tried, s.tries = nil, &noPolicy, nil, Tried{}, 0
	s.faults, s.status, s.note, s.tryStart = [Faults]uint8{}, 0, "", time.Time{}
	s.stale, s.retrying, s.overBudget = false, false, false
	s.keyed, s.session.known = false, false
	var raw [16]byte
	high, low := rand.Uint64(), rand.Uint64() // names a request in logs; it is no secret
	for i := range 8 {
		raw[i], raw[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
	}
	hex.Encode(s.id[:], raw[:])
	if addr := x.ClientAddr().Addr(); addr != s.addrOf || len(s.addr) == 0 {
		s.addrOf = addr
		s.addr = addr.AppendTo(s.addr[:0])
	}
}

// Serve answers one request.
func (p *Proxy) Serve(x *engine.Exchange) {
	s := passageOf(x)
	s.begin(x)
	p.inFlight[x.Shard()%uint32(len(p.inFlight))].n.Add(1)
	switch {
	case p.misdirected(x):
		s.note = "the connection is for another host"
		p.replyError(x, s, 421)
	case x.Request.ForServer():
		p.answerOptions(x)
	default:
		s.route = p.table.Load().Match(x.Request.Host, x.Request.Path)
		p.follow(x, s)
	}
	if s.status == engine.StatusClientGone {
		x.CloseAfter()
		return
	}
	p.send(x, s)
}

// misdirected reports a request for a host that its connection is not for.
func (p *Proxy) misdirected(x *engine.Exchange) bool {
	return p.cfg.Coalesces != nil && x.TLS() && x.ServerName() != string(x.Request.Host) &&
		!p.cfg.Coalesces(x.ServerName(), x.Request.Host)
}

// Refuse answers a request that the engine would not read.
func (p *Proxy) Refuse(x *engine.Exchange, why *engine.Refusal) {
	s := passageOf(x)
	s.begin(x)
	p.inFlight[x.Shard()%uint32(len(p.inFlight))].n.Add(1)
	s.note = why.Reason
	p.replyError(x, s, why.Status)
	if why.Status == 405 { // CONNECT and TRACE, for which there is no route
		x.Response.Fields.Add(engine.Allow, allMethods)
	}
	p.send(x, s)
}

// follow runs the filters of the request's route and gets its answer.
func (p *Proxy) follow(x *engine.Exchange, s *passage) {
	if s.route == nil {
		p.replyError(x, s, 404)
		return
	}
	for _, f := range s.route.Filters {
		if f.Request(x) {
			return
		}
	}
	if s.route.Backend == nil {
		status := s.route.Status
		if status == 0 {
			status = 404
		}
		s.note = s.route.Reason
		p.replyError(x, s, status)
		return
	}
	p.forward(x, s)
}

var serverField = []byte("portico")

// send writes the answer, whoever made it.
func (p *Proxy) send(x *engine.Exchange, s *passage) {
	if s.route != nil {
		for _, f := range slices.Backward(s.route.Filters) {
			f.Response(x)
		}
	}
	if !p.cfg.HideServer && !x.Response.Fields.Has(engine.ServerField) {
		x.Response.Fields.Add(engine.ServerField, serverField)
	}
	if engine.IsGRPC(x.Response.Fields.Get(engine.ContentType)) {
		x.LastWords(grpcCut)
	}
	if err := x.Send(); err != nil && s.note == "" {
		s.note = err.Error()
	}
}

var allMethods = []byte("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")

// answerOptions answers what asks about the server and not about a resource: "OPTIONS *" (RFC
// 9110 section 9.3.7) and OPTIONS whose Max-Forwards has come to 0.
func (p *Proxy) answerOptions(x *engine.Exchange) {
	x.Reply(200, "", nil)
	x.Response.Fields.Add(engine.Allow, allMethods)
}

// Done counts and logs one exchange.
func (p *Proxy) Done(x *engine.Exchange) {
	s := passageOf(x)
	s.leave()
	p.inFlight[x.Shard()%uint32(len(p.inFlight))].n.Add(-1)
	now := x.EndedAt()
	status := x.Response.Status
	if s.status != 0 {
		status = s.status
	}
	if stats := p.statsOf(s); stats != nil {
		stats.Observe(x.Shard(), Observation{
			Method: MethodOf(x.Request.Method), Status: counted(status), Duration: now.Sub(x.Start),
			RequestBytes: x.BytesReceived(), ResponseBytes: x.BytesSent(),
			Tries: s.tries, Upstream: s.upstreamTime(x), Faults: s.faults,
		})
	}
	if p.cfg.AccessLog != nil {
		s.fill(x, status, now)
		p.cfg.AccessLog.Log(&s.record)
	}
}

// leave gives back what the request held of its backend.
func (s *passage) leave() {
	s.release()
	if s.retrying {
		s.route.Backend.retrying.Add(-1)
	}
}

// counted is the status as counters have it: a client that left had none.
func counted(status int) int {
	if status == engine.StatusClientGone {
		return 0
	}
	return status
}

func (p *Proxy) statsOf(s *passage) *Stats {
	if s.route == nil {
		return p.cfg.Unmatched
	}
	return s.route.Stats
}

// upstreamTime is from the last try to the head of its answer; 0 if none came.
func (s *passage) upstreamTime(x *engine.Exchange) time.Duration {
	if at := x.UpstreamHeadAt(); !at.IsZero() {
		return at.Sub(s.tryStart)
	}
	return 0
}
