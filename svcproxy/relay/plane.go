// Package relay is the data plane in userspace, for hosts without privileges or without nftables:
// it listens where clients come to and carries their bytes to endpoints. README.md has the picture.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Config of a Plane. The zero value works.
type Config struct {
	// MaxConnections are TCP connections at once, MaxSessions UDP sessions; zero: as many as the
	// limit of open files has room for, 65536 at most.
	MaxConnections, MaxSessions int
	// MaxPerService is how many of either one Service may have; zero: a quarter of all.
	MaxPerService int
	// ConnectTimeout is how long an endpoint has to take a connection before another is tried;
	// zero: 3 s.
	ConnectTimeout time.Duration
	// UDPTimeout is how long a UDP session is kept without a datagram; zero: 2 min. One that was
	// never answered is kept for a quarter of it.
	UDPTimeout time.Duration
	// Drain is how long connections may go on when Run ends; zero: 3 s.
	Drain time.Duration
	// Retry is how often ports that could not be had are tried again, and new addresses of this
	// host are looked for; zero: 5 s.
	Retry time.Duration
	// MaxEndpoints is how many endpoints are counted, each for itself; zero: none.
	MaxEndpoints int
	// ConnectFailed is called when an endpoint of the Service of that name did not take a TCP
	// connection; nil: nobody is. It must not block.
	ConnectFailed func(service string, endpoint netip.AddrPort)
	// Log may be nil.
	Log *zap.Logger
	// Within runs what makes sockets, in another network namespace; nil: just runs it. For tests.
	Within func(func())
}

// Validate reports what makes no sense.
func (c *Config) Validate() error {
	for name, n := range map[string]int64{
		"MaxConnections": int64(c.MaxConnections), "MaxSessions": int64(c.MaxSessions), "MaxPerService": int64(c.MaxPerService), "MaxEndpoints": int64(c.MaxEndpoints),
		"ConnectTimeout": int64(c.ConnectTimeout), "UDPTimeout": int64(c.UDPTimeout), "Drain": int64(c.Drain), "Retry": int64(c.Retry),
	} {
		if n < 0 {
			return fmt.Errorf("relay: Config.%s is negative", name)
		}
	}
	return nil
}

// withDefaults fills in. A TCP connection has two sockets and, while bytes move, two pipes; a UDP
// session has one socket.
func (c Config) withDefaults() Config {
	room := func(files int) int { return min(max(openFiles()/files, 16), 65536) }
	c.MaxConnections = cmp.Or(c.MaxConnections, room(10))
	c.MaxSessions = cmp.Or(c.MaxSessions, room(5))
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 3*time.Second)
	c.UDPTimeout = cmp.Or(c.UDPTimeout, 2*time.Minute)
	c.Drain = cmp.Or(c.Drain, 3*time.Second)
	c.Retry = cmp.Or(c.Retry, 5*time.Second)
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.ConnectFailed == nil {
		c.ConnectFailed = func(string, netip.AddrPort) {}
	}
	if c.Within == nil {
		c.Within = func(f func()) { f() }
	}
	return c
}

// Plane serves what it was told. Its methods may be called from everywhere. What it serves ends
// with the process.
type Plane struct {
	cfg                   Config
	connections, sessions limit
	// life ends when connections must; loops are the goroutines of sockets, flows those of connections.
	life        context.Context
	end         context.CancelFunc
	loops, flow sync.WaitGroup
	endpoints   endpointCounts

	mu      sync.Mutex
	closed  bool
	node    Node
	own     []netip.Addr
	entries map[string]*entry
	kept    KeptOut
}

// entry is what there is of one Service.
type entry struct {
	service    *Service
	affinities affinities
	// flows are its connections or sessions.
	flows     atomic.Int64
	frontends map[netip.AddrPort]*frontend
	// kept are those of this Service, all those of the Plane.
	kept KeptOut
	all  *KeptOut
}

// frontend is what there is of one Frontend: its sockets by where they are bound, and why others
// could not be.
type frontend struct {
	Frontend
	counters counters
	sockets  map[netip.AddrPort]socket
	failed   map[netip.AddrPort]error
	kept     KeptOut
	denied   uint64 // of counters.denied, those that are in kept
}

// socket is one that clients come to.
type socket interface {
	// use replaces what new connections go by.
	use(r *route)
	// dropped is how many packets the kernel has dropped before it since the last time.
	dropped() uint32
	close()
}

// New returns a Plane that serves nothing yet.
func New(cfg Config) (*Plane, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Plane{cfg: cfg.withDefaults(), entries: map[string]*entry{}}
	perService := func(all int) int64 { return int64(cmp.Or(p.cfg.MaxPerService, max(all/4, 1))) }
	p.connections.max, p.connections.perService = int64(p.cfg.MaxConnections), perService(p.cfg.MaxConnections)
	p.sessions.max, p.sessions.perService = int64(p.cfg.MaxSessions), perService(p.cfg.MaxSessions)
	p.endpoints.max = p.cfg.MaxEndpoints
	p.life, p.end = context.WithCancel(context.Background())
	return p, nil
}

// Changes are what Apply makes at once.
type Changes struct {
	Put    []*Service
	Delete []string
	// Node replaces what all Services share, if it is not nil.
	Node *Node
	// Complete says that Put is all there is.
	Complete bool
}

// Apply makes changes live. A Service that Validate refuses is left out and its name stays what it
// was, which is the error; what cannot be served on this host is no error but a Problem.
func (p *Plane) Apply(c Changes) error {
	invalid := c.leaveOut()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("relay: it has ended")
	}
	moved := p.look()
	if c.Node != nil {
		p.node, moved = *c.Node, true
	}
	changed := p.note(c)
	if moved {
		changed = p.names()
	}
	p.settle(changed)
	return invalid
}

// leaveOut takes out what Validate refuses, and gives why.
func (c *Changes) leaveOut() error {
	var all []error
	put := make([]*Service, 0, len(c.Put))
	for _, s := range c.Put {
		if err := s.Validate(); err != nil {
			all = append(all, err)
			continue
		}
		put = append(put, s)
	}
	c.Put = put
	return errors.Join(all...)
}

// Repair tries again what could not be served.
func (p *Plane) Repair() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.again()
	return nil
}

// note takes what is wanted, and closes what is not any more, so that others can have it.
func (p *Plane) note(c Changes) (changed []string) {
	gone := c.Delete
	if c.Complete {
		gone = p.names()
	}
	put := make(map[string]struct{}, len(c.Put))
	for _, s := range c.Put {
		put[s.Name] = struct{}{}
		if e := p.entries[s.Name]; e != nil && (s.Protocol != e.service.Protocol || s.IPv6 != e.service.IPv6) {
			e.keep(nil)
			delete(p.entries, s.Name)
		}
	}
	for _, name := range gone {
		if e := p.entries[name]; e != nil {
			if _, ok := put[name]; !ok {
				e.keep(nil)
				delete(p.entries, name)
			}
		}
	}
	for _, s := range c.Put {
		e := p.entries[s.Name]
		if e == nil {
			e = &entry{frontends: map[netip.AddrPort]*frontend{}, all: &p.kept}
			p.entries[s.Name] = e
		}
		e.service = s
		if s.Affinity == 0 {
			e.affinities.clear()
		}
		e.keep(s.Frontends)
		changed = append(changed, s.Name)
	}
	return changed
}

// keep closes all that is not of one of these.
func (e *entry) keep(all []Frontend) {
	old := e.frontends
	e.frontends = make(map[netip.AddrPort]*frontend, len(all))
	for _, f := range all {
		key := netip.AddrPortFrom(f.Addr, f.Port)
		kept := old[key]
		if kept == nil {
			kept = &frontend{sockets: map[netip.AddrPort]socket{}}
		}
		e.tally(kept)
		kept.Frontend = f
		e.frontends[key] = kept
		delete(old, key)
		if f.Kind == Reject {
			kept.close()
		}
	}
	for _, f := range old {
		e.tally(f)
		f.close()
	}
}

func (f *frontend) close() {
	for at, s := range f.sockets {
		s.close()
		delete(f.sockets, at)
	}
}

// settle makes the sockets of Services what is wanted.
func (p *Plane) settle(names []string) {
	for _, name := range names {
		e := p.entries[name]
		for _, f := range e.frontends {
			p.settleFrontend(e, f)
		}
	}
}

func (p *Plane) settleFrontend(e *entry, f *frontend) {
	before := f.failed
	f.failed = map[netip.AddrPort]error{}
	if f.Kind == Reject {
		return
	}
	r := &route{service: e.service, frontend: f.Frontend, pods: p.node.Pods, own: p.own}
	wanted := p.bound(e.service, f.Frontend)
	e.tally(f)
	for at, s := range f.sockets {
		if !slices.Contains(wanted, at) {
			s.close()
			delete(f.sockets, at)
		}
	}
	for _, at := range wanted {
		if s := f.sockets[at]; s != nil {
			s.use(r)
			continue
		}
		s, err := p.open(e, f, at, r)
		if err == nil {
			f.sockets[at] = s
			continue
		}
		f.failed[at] = err
		if before[at] == nil {
			p.cfg.Log.Warn("a frontend cannot be served", zap.String("service", e.service.Name), zap.Stringer("frontend", f.Frontend), zap.Error(err))
		}
	}
}

// bound is where the sockets of a frontend are to be.
func (p *Plane) bound(s *Service, f Frontend) []netip.AddrPort {
	if f.Addr.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(f.Addr, f.Port)}
	}
	all, some := netip.IPv4Unspecified(), false
	if s.IPv6 {
		all = netip.IPv6Unspecified()
	}
	var at []netip.AddrPort
	for _, r := range p.node.NodePorts {
		if r.Addr().Is6() != s.IPv6 {
			continue
		}
		if some = true; r.Bits() == 0 {
			some = false
			break
		}
	}
	if !some {
		return []netip.AddrPort{netip.AddrPortFrom(all, f.Port)}
	}
	for _, a := range p.own {
		if a.Is6() == s.IPv6 && contain(p.node.NodePorts, a) {
			at = append(at, netip.AddrPortFrom(a, f.Port))
		}
	}
	return at
}

// look tells whether this host has other addresses than it had.
func (p *Plane) look() bool {
	var all []netip.Addr
	p.cfg.Within(func() {
		found, err := net.InterfaceAddrs()
		if err != nil {
			p.cfg.Log.Warn("the addresses of this host cannot be read", zap.Error(err))
			all = p.own
			return
		}
		for _, a := range found {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, prefix.Addr().Unmap())
			}
		}
	})
	slices.SortFunc(all, netip.Addr.Compare)
	if slices.Equal(all, p.own) {
		return false
	}
	p.own = all
	return true
}

func (p *Plane) names() []string {
	all := make([]string, 0, len(p.entries))
	for name := range p.entries {
		all = append(all, name)
	}
	return all
}

// again settles everything if this host has other addresses, or else what was not served because
// somebody else had the port.
func (p *Plane) again() {
	if p.closed {
		return
	}
	if p.look() {
		p.settle(p.names())
		return
	}
	for _, e := range p.entries {
		e.affinities.forget(time.Now())
		for _, f := range e.frontends {
			for _, err := range f.failed {
				if !errors.Is(err, ErrNotHere) {
					p.settleFrontend(e, f)
					break
				}
			}
		}
	}
}

// Run keeps serving until ctx ends. Then nobody new comes in, and those who are there have
// Config.Drain to finish. After it a Plane cannot be used again.
func (p *Plane) Run(ctx context.Context) {
	timer := time.NewTicker(p.cfg.Retry)
	defer timer.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-timer.C:
			_ = p.Repair()
		}
	}
	p.Close()
}

// Close is what Run does in the end.
func (p *Plane) Close() {
	p.mu.Lock()
	p.closed = true
	for _, e := range p.entries {
		e.keep(nil)
	}
	p.mu.Unlock()
	p.loops.Wait()
	drain := time.AfterFunc(p.cfg.Drain, p.end)
	defer drain.Stop()
	p.flow.Wait()
	p.end()
}

// Problem is a Frontend that cannot be served, and why.
type Problem struct {
	// Service is the name of a Service.
	Service  string
	Frontend Frontend
	Err      error
}

// Problems are those that there are now, by Service and Frontend.
func (p *Plane) Problems() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Problem
	for name, e := range p.entries {
		for _, f := range e.frontends {
			for at, err := range f.failed {
				if !f.Addr.IsValid() && !at.Addr().IsUnspecified() {
					err = fmt.Errorf("at %v: %w", at.Addr(), err)
				}
				all = append(all, Problem{name, f.Frontend, err})
			}
		}
	}
	slices.SortFunc(all, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Frontend.String(), b.Frontend.String()), strings.Compare(a.Err.Error(), b.Err.Error()))
	})
	return all
}

// Counters are those of all Frontends, by Service and Frontend.
func (p *Plane) Counters() []Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Count
	for name, e := range p.entries {
		for _, f := range e.frontends {
			e.tally(f)
			c := f.counters.read()
			c.Service, c.Frontend, c.Protocol, c.IPv6, c.KeptOut = name, f.Frontend, e.service.Protocol, e.service.IPv6, f.kept
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Frontend.String(), b.Frontend.String()))
	})
	return all
}

// KeptOut is what source ranges and traffic policies have kept out, in all and of each Service by its name: of
// those that there are, with Frontends that have gone.
func (p *Plane) KeptOut() (all KeptOut, services map[string]KeptOut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	services = make(map[string]KeptOut, len(p.entries))
	for name, e := range p.entries {
		for _, f := range e.frontends {
			e.tally(f)
		}
		services[name] = e.kept
	}
	return p.kept, services
}

// Trace is what would become of a new connection.
type Trace struct {
	// Service is "" if nobody listens there; then the host itself answers, if it does.
	Service  string
	Frontend Frontend
	Outcome  Outcome
	// Endpoints are those that it may go to; Stays the one that affinity sends it to, if any.
	Endpoints []netip.AddrPort
	Stays     netip.AddrPort
	// Affinity is how long a client stays; 0: not at all.
	Affinity time.Duration
}

// Trace looks up what would become of a new connection, and does nothing.
func (p *Plane) Trace(protocol uint8, from netip.Addr, to netip.AddrPort) Trace {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		if protocol != TCP && protocol != UDP || e.service.Protocol != protocol || e.service.IPv6 != to.Addr().Is6() {
			continue
		}
		for _, f := range e.frontends {
			if f.answers(to, p.own) {
				return p.trace(e, f.Frontend, from)
			}
		}
	}
	return Trace{Outcome: Refused}
}

// answers tells whether a frontend is, or would be if it had endpoints, what answers at an address.
func (f *frontend) answers(to netip.AddrPort, own []netip.Addr) bool {
	switch {
	case f.Port != to.Port():
		return false
	case f.Kind == Reject:
		return f.Addr == to.Addr() || !f.Addr.IsValid() && slices.Contains(own, to.Addr())
	case f.sockets[to] != nil:
		return true
	}
	for at := range f.sockets {
		if at.Addr().IsUnspecified() {
			return to.Addr().IsLoopback() || slices.Contains(own, to.Addr())
		}
	}
	return false
}

func (p *Plane) trace(e *entry, f Frontend, from netip.Addr) Trace {
	r := &route{service: e.service, frontend: f, pods: p.node.Pods, own: p.own}
	t := Trace{Service: e.service.Name, Frontend: f, Affinity: e.service.Affinity}
	if t.Endpoints, t.Outcome = r.decide(from); f.Kind == Reject {
		t.Outcome = Refused // by the host: nobody listens, whoever comes
	}
	if stays, ok := e.affinities.get(from, time.Now()); ok && t.Affinity > 0 && slices.Contains(t.Endpoints, stays) {
		t.Stays = stays
	}
	return t
}
