package announce

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
)

// How an address is made known. A client asks by itself once a minute or so; the burst is for
// those that have asked already, and is repeated because nobody confirms it.
var burst = []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 1100 * time.Millisecond, 2 * time.Second, 3 * time.Second, 5 * time.Second}

const (
	// repeatEvery is the slow repeat after the burst: it mends what a switch or a router forgot.
	repeatEvery = 60 * time.Second
	// Probing before the first announcement (RFC 5227 section 2.1 has seconds where these have
	// tenths: nobody waits seven seconds for an address any more).
	probes     = 3
	probeEvery = 100 * time.Millisecond
	probeWait  = 200 * time.Millisecond
	// probeAgain is when an address that somebody else has is asked for again, tellAgain when that is
	// reported again.
	probeAgain = 10 * time.Second
	tellAgain  = 10 * time.Minute
	// defendEvery bounds how often an address is defended (DEFEND_INTERVAL, RFC 5227 section
	// 1.1), and how often the same conflict is reported.
	defendEvery = 10 * time.Second
	// lateAnswers is how long after a gain answers of the node that had the address before are
	// no conflict.
	lateAnswers = time.Second
	// relist is how often interfaces are read again though nothing was heard about them.
	relist = time.Minute
)

// ResponderConfig is how a Responder works.
type ResponderConfig struct {
	// Interfaces are patterns (path.Match) of the interfaces to announce on. Without any it is
	// every interface that leads to a LAN.
	Interfaces []string
	// May says whether this node may answer for an address at this very moment. It is asked
	// before each frame. Without it the answer is yes.
	May func(netip.Addr) bool
	// Conflict is told that somebody else uses an address. It must not block.
	Conflict func(Conflict)
	// Announced is told that an address was made known for the first time: frames were sent. It must not block.
	Announced func(netip.Addr)
	// NoInterface is told, once, that there is no interface to announce an address on; have are those that lead to a LAN.
	// It must not block.
	NoInterface func(addr netip.Addr, have []string)
	Log         *zap.Logger
}

// Conflict is another machine that uses an address of ours.
type Conflict struct {
	Address   netip.Addr
	Interface string
	// MAC is the machine's.
	MAC net.HardwareAddr
	// Announcing says that this node answers for the address, and goes on doing so. Otherwise
	// the address was only probed, is not announced, and is probed again later.
	Announcing bool
}

// Duty is one address that a Responder answers for.
type Duty struct {
	// Probe asks first whether somebody else has the address.
	Probe bool
	// Interfaces are patterns as in ResponderConfig, which must match as well. Without any,
	// every interface of the Responder will do.
	Interfaces []string
}

// Responder answers ARP and NDP for addresses that are on no interface. Its Run does the work.
type Responder struct {
	cfg  ResponderConfig
	log  *zap.Logger
	poke chan struct{}

	mu     sync.Mutex
	duties map[netip.Addr]*duty
	ports  map[int]*port
	// lans are the interfaces that lead to a LAN, those too that are not among cfg.Interfaces.
	lans []string
	// seen counts verdicts.
	seen [verdictConflictAnswered + 1]uint64
}

// duty is an address and where it stands.
type duty struct {
	Duty
	probing bool
	// missing: it was told that there is no interface.
	missing bool
	// step is the number of probes or announcements sent, next when the next one is due.
	step     int
	next     time.Time
	gained   time.Time
	reported time.Time
}

// NewResponder gives a Responder that answers for nothing yet.
func NewResponder(cfg ResponderConfig) *Responder {
	log := cfg.Log
	if log == nil {
		log = zap.NewNop()
	}
	return &Responder{cfg: cfg, log: log, poke: make(chan struct{}, 1), duties: map[netip.Addr]*duty{}, ports: map[int]*port{}}
}

// Set says what to answer for from now on. What is not in it any more is not answered once Set
// has returned. It does not block on the network.
func (r *Responder) Set(duties map[netip.Addr]Duty) {
	r.mu.Lock()
	now := time.Now()
	for addr := range r.duties {
		if _, still := duties[addr]; !still {
			delete(r.duties, addr)
		}
	}
	for addr, want := range duties {
		if d := r.duties[addr]; d != nil {
			if !slices.Equal(d.Interfaces, want.Interfaces) {
				d.Interfaces, d.missing, d.step, d.next = want.Interfaces, false, 0, now
			}
			continue
		}
		r.duties[addr] = &duty{Duty: want, probing: want.Probe, next: now, gained: now}
	}
	r.joinLocked()
	r.mu.Unlock()
	r.wake()
}

// Again makes everything known again, with the whole burst.
func (r *Responder) Again() {
	r.mu.Lock()
	for _, d := range r.duties {
		if !d.probing {
			d.step, d.next = 0, time.Now()
		}
	}
	r.mu.Unlock()
	r.wake()
}

func (r *Responder) wake() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Run works until ctx ends. It fails only if it cannot begin.
func (r *Responder) Run(ctx context.Context) error {
	var readers sync.WaitGroup
	defer readers.Wait()
	defer r.closePorts()
	for begun := false; ctx.Err() == nil; begun = true {
		err := r.follow(ctx, &readers)
		if err != nil && !begun {
			return err
		}
		if ctx.Err() == nil {
			r.log.Warn("the kernel tells no more about interfaces; asking again", zap.Error(err))
			wait(ctx, time.Second)
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// follow does the work for as long as the kernel tells about interfaces: it stops when there
// were more changes than its socket could hold.
func (r *Responder) follow(ctx context.Context, readers *sync.WaitGroup) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		close(done)
		return err
	}
	defer func() {
		close(done)
		for range updates { // its sender ends only when it is heard
		}
	}()
	r.refreshLinks(readers)
	r.loop(ctx, updates, readers)
	return nil
}

func (r *Responder) loop(ctx context.Context, updates <-chan netlink.LinkUpdate, readers *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	list := time.NewTicker(relist)
	defer list.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-updates:
			if !open || !drain(updates) {
				return
			}
			r.refreshLinks(readers)
		case <-list.C:
			r.refreshLinks(readers)
		case <-r.poke:
		case <-timer.C:
		}
		timer.Reset(time.Until(r.sendDue()))
	}
}

// drain takes what is there, because one look at the interfaces answers all of it.
func drain(updates <-chan netlink.LinkUpdate) (open bool) {
	for {
		select {
		case _, open := <-updates:
			if !open {
				return false
			}
		default:
			return true
		}
	}
}

// refreshLinks opens and closes ports until they are those that there should be. A link that
// cannot be opened is tried again, and does not stop the others.
func (r *Responder) refreshLinks(readers *sync.WaitGroup) {
	used, skipped, err := usableLinks(r.cfg.Interfaces)
	if err != nil {
		r.log.Warn("interfaces cannot be listed", zap.Error(err))
		return
	}
	want := map[int]link{}
	var lans []string
	for _, l := range used {
		want[l.index] = l
		lans = append(lans, l.name)
	}
	for name, why := range skipped {
		if why == linkFiltered {
			lans = append(lans, name)
		}
	}
	slices.Sort(lans)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lans = lans
	for index, p := range r.ports {
		if want[index] != p.link {
			r.log.Info("no more announcements on interface", zap.String("interface", p.name))
			p.close()
			delete(r.ports, index)
		}
	}
	fresh := false
	for index, l := range want {
		if r.ports[index] != nil {
			continue
		}
		p, err := openPort(l)
		if err != nil {
			r.log.Warn("interface cannot be used", zap.String("interface", l.name), zap.Error(err))
			continue
		}
		r.log.Info("announcing on interface", zap.String("interface", l.name))
		r.ports[index] = p
		fresh = true
		readers.Go(func() { r.readARP(p) })
		readers.Go(func() { r.readNDP(p) })
	}
	if fresh {
		r.joinLocked()
		for _, d := range r.duties {
			d.step, d.next = 0, time.Now()
		}
	}
}

func (r *Responder) closePorts() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for index, p := range r.ports {
		p.close()
		delete(r.ports, index)
	}
}

// joinLocked makes the groups of each port those of the addresses that are announced there.
func (r *Responder) joinLocked() {
	for _, p := range r.ports {
		want := map[netip.Addr]bool{}
		for addr, d := range r.duties {
			if addr.Is6() && d.on(p) {
				want[solicitedNode(addr)] = true
			}
		}
		if err := p.groups.set(want); err != nil {
			r.log.Warn("multicast groups", zap.Error(err))
		}
	}
}

func (d *duty) on(p *port) bool { return len(d.Interfaces) == 0 || matchesAny(p.name, d.Interfaces) }

// sendDue sends what is due and says when to come back.
func (r *Responder) sendDue() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	next := now.Add(time.Hour)
	for addr, d := range r.duties {
		if !d.next.After(now) {
			r.sendLocked(addr, d, now)
		}
		if d.next.Before(next) {
			next = d.next
		}
	}
	return next
}

func (r *Responder) sendLocked(addr netip.Addr, d *duty, now time.Time) {
	if !r.reachesLocked(d) { // a port that comes begins afresh, with the probes
		d.step, d.next = 0, now.Add(repeatEvery)
		if !d.missing && r.cfg.NoInterface != nil {
			r.cfg.NoInterface(addr, r.lans)
		}
		d.missing = true
		return
	}
	d.missing = false
	if d.probing && d.step < probes {
		r.eachLocked(d, func(p *port) error { return p.probe(addr) })
		d.step++
		d.next = now.Add(probeEvery)
		if d.step == probes {
			d.next = now.Add(probeWait)
		}
		return
	}
	if d.probing {
		d.probing, d.step, d.gained = false, 0, now
	}
	if r.cfg.May != nil && !r.cfg.May(addr) {
		d.next = now.Add(burst[1]) // fenced; whoever lifts that has it announced afresh
		return
	}
	if sent := r.eachLocked(d, func(p *port) error { return p.gratuitous(addr) }); !sent && d.step == 0 {
		d.next = now.Add(burst[1])
		return
	}
	if d.step == 0 && r.cfg.Announced != nil {
		r.cfg.Announced(addr)
	}
	d.step++
	d.next = now.Add(repeatEvery)
	if d.step < len(burst) {
		d.next = now.Add(burst[d.step] - burst[d.step-1])
	}
}

// eachLocked sends on each port that the duty is for, and says whether that worked on any.
func (r *Responder) eachLocked(d *duty, send func(*port) error) (sent bool) {
	for _, p := range r.ports {
		if !d.on(p) {
			continue
		}
		if err := send(p); err != nil {
			r.log.Debug("frame not sent", zap.String("interface", p.name), zap.Error(err))
			continue
		}
		sent = true
	}
	return sent
}

func (r *Responder) reachesLocked(d *duty) bool {
	for _, p := range r.ports {
		if d.on(p) {
			return true
		}
	}
	return false
}

func (r *Responder) readARP(p *port) {
	p.read(p.arp, func(frame []byte) {
		a, err := parseARP(frame)
		if err != nil {
			r.count(verdictMalformed)
			return
		}
		addr, v := judgeARP(a, p.mac, func(addr netip.Addr) standing { return r.standing(addr, p) })
		r.settle(p, addr, v, a.senderMAC, func() error { return p.sendARP(arpAnswer(a, p.mac)) })
	})
}

func (r *Responder) readNDP(p *port) {
	p.read(p.ndp, func(frame []byte) {
		n, err := parseNDP(frame)
		if err != nil {
			r.count(verdictMalformed)
			return
		}
		addr, v := judgeNDP(n, p.mac, func(addr netip.Addr) standing { return r.standing(addr, p) })
		r.settle(p, addr, v, n.source, func() error { return p.sendNDP(ndpAnswer(n, addr, p.mac)) })
	})
}

// standing is what the Responder does about addr on one link.
func (r *Responder) standing(addr netip.Addr, p *port) standing {
	r.mu.Lock()
	d := r.duties[addr]
	probing := d != nil && d.probing
	none := d == nil || !d.on(p)
	r.mu.Unlock()
	switch {
	case none:
		return standingNone
	case probing:
		return standingProbing
	case r.cfg.May != nil && !r.cfg.May(addr):
		return standingFenced
	}
	return standingAnswering
}

// settle acts on a verdict.
func (r *Responder) settle(p *port, addr netip.Addr, v verdict, from mac, answer func() error) {
	r.count(v)
	var err error
	switch v {
	case verdictAnswered:
		err = answer()
	case verdictConflictAnswered:
		err = answer()
		r.conflict(p, addr, from, false)
	case verdictConflict:
		r.conflict(p, addr, from, true)
	default:
	}
	if err != nil {
		r.log.Debug("answer not sent", zap.String("interface", p.name), zap.Error(err))
	}
}

func (r *Responder) count(v verdict) {
	r.mu.Lock()
	r.seen[v]++
	r.mu.Unlock()
}

// conflict takes note that from uses addr. If we were only asking, it has it. If we answer for
// it, the address is defended, but not fought for (RFC 5227 section 2.4, case c): whoever can
// send one false frame would otherwise take any address from us. spoke says that from claimed
// the address, as the node does that had it a moment ago.
func (r *Responder) conflict(p *port, addr netip.Addr, from mac, spoke bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.duties[addr]
	now := time.Now()
	if d == nil || spoke && !d.probing && now.Sub(d.gained) < lateAnswers {
		return
	}
	pause := defendEvery
	if d.probing {
		pause, d.step, d.next = tellAgain, 0, now.Add(probeAgain)
	}
	if !d.reported.IsZero() && now.Sub(d.reported) < pause {
		return
	}
	d.reported = now
	if !d.probing && (r.cfg.May == nil || r.cfg.May(addr)) {
		if err := p.gratuitous(addr); err != nil {
			r.log.Debug("address not defended", zap.Error(err))
		}
	}
	if r.cfg.Conflict != nil {
		r.cfg.Conflict(Conflict{Address: addr, Interface: p.name, MAC: net.HardwareAddr(from[:]), Announcing: !d.probing})
	}
}
