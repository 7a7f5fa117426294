package announce

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// ErrRefused is the answer of a Store to a Put of an older version.
var ErrRefused = errors.New("announce: the record has changed in between")

const (
	// tickEvery is how often the protocol looks at its clock while there are addresses.
	tickEvery = 10 * time.Millisecond
	// storeTimeout is when a question to the Store counts as unanswered.
	storeTimeout = time.Second
	// minKey is the least that a key of heartbeats may have, in bytes.
	minKey = 16
	// stopFor bounds how long a node that stops tries to give away what it has.
	stopFor = 3 * time.Second
)

// Config is how an Announcer works.
type Config struct {
	// Node is the name of this node.
	Node string
	// Listen is where heartbeats arrive; the port is that of the other nodes, too.
	Listen netip.AddrPort
	// Key authenticates heartbeats. All nodes have the same; at least 16 bytes.
	Key []byte
	// Store keeps the record.
	Store Store
	// Interfaces are patterns as in ResponderConfig.
	Interfaces []string
	// Handover keeps connections alive when an address moves. Without it they are for the data plane to
	// refuse.
	Handover Handover
	// Events is told what happens. It must not block.
	Events func(Event)
	Log    *zap.Logger
}

// Validate says what is wrong, naming the field.
func (c *Config) Validate() error {
	switch {
	case c.Node == "":
		return errors.New("announce: Node: the name of this node is missing")
	case len(c.Key) < minKey:
		return fmt.Errorf("announce: Key: %d bytes; at least %d are needed", len(c.Key), minKey)
	case c.Store == nil:
		return errors.New("announce: Store: there is none")
	case !c.Listen.IsValid() || c.Listen.Port() == 0:
		return errors.New("announce: Listen: an address and a port are needed")
	}
	return nil
}

// EventKind is what an Event tells.
type EventKind string

// What happens to an address on this node.
const (
	// Announced: this node answers for the address, and has told the LAN.
	Announced EventKind = "Announced"
	// Withdrawn: it was this node's, and is not any more.
	Withdrawn EventKind = "Withdrawn"
	// Fenced: it is this node's, but nobody confirms that; it is not answered for the moment.
	Fenced EventKind = "Fenced"
	// NoInterface: it is this node's, which has no interface to announce it on.
	NoInterface EventKind = "NoInterface"
	// Conflicted: another machine, not of this cluster, uses the address.
	Conflicted EventKind = "Conflicted"
)

// Event tells what happened to an address on this node.
type Event struct {
	Kind    EventKind
	Address netip.Addr
	// Conflict is set for Conflicted.
	Conflict *Conflict `json:",omitempty"`
	// Interfaces are those of this node that lead to a LAN, for NoInterface.
	Interfaces []string `json:",omitempty"`
}

// Desired is what an Announcer is to do.
type Desired struct {
	Claims map[netip.Addr]Claim
	// Nodes are all nodes of the cluster that run an Announcer. One that is declared dead stays in
	// it, with Gone.
	Nodes []Node
	// Addresses has where the heartbeats of each node go to.
	Addresses map[string]netip.Addr
	// NextHops are the addresses of each node at which it takes packets of others, for Config.Handover.
	NextHops map[string][]netip.Addr
}

// Announcer answers for the addresses that this node owns. Its Run does the work.
type Announcer struct {
	cfg       Config
	log       *zap.Logger
	responder *Responder
	desired   chan Desired
	heard     chan beat
	answered  chan answer

	// may is read by the Responder for each frame.
	mu    sync.RWMutex
	fence *Fence

	addresses map[string]netip.Addr
	nextHops  map[string][]netip.Addr
	handing   handing
	holding   map[netip.Addr]Duty
	// seen are addresses that some node has had.
	seen map[netip.Addr]bool
	// sets counts the calls of Set that were heeded; was is what holding was made from.
	sets int
	was  position
	// waiting: an address is not answered for yet, because handing is not done.
	waiting bool
}

type answer struct {
	question Question
	outcome  Outcome
}

// New gives an Announcer that does nothing yet.
func New(cfg Config) (*Announcer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var run [8]byte
	rand.Read(run[:])
	a := &Announcer{
		cfg: cfg, log: cfg.Log,
		desired: make(chan Desired, 1), heard: make(chan beat, 256), answered: make(chan answer, 1),
		fence:   NewFence(cfg.Node, binary.BigEndian.Uint64(run[:])|1),
		holding: map[netip.Addr]Duty{}, seen: map[netip.Addr]bool{},
		handing: handing{done: make(chan error, 1)},
	}
	if a.log == nil {
		a.log = zap.NewNop()
	}
	a.responder = NewResponder(ResponderConfig{
		Interfaces: cfg.Interfaces, Log: a.log, May: a.May,
		Conflict:  func(c Conflict) { a.tell(Event{Kind: Conflicted, Address: c.Address, Conflict: &c}) },
		Announced: func(addr netip.Addr) { a.tell(Event{Kind: Announced, Address: addr}) },
		NoInterface: func(addr netip.Addr, have []string) {
			a.tell(Event{Kind: NoInterface, Address: addr, Interfaces: have})
		},
	})
	return a, nil
}

// May says whether this node answers for an address at this moment.
func (a *Announcer) May(addr netip.Addr) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.fence.May(addr, boottime())
}

// Set replaces what there is to do. Only the last one counts.
func (a *Announcer) Set(d Desired) {
	for {
		select {
		case a.desired <- d:
			return
		default:
		}
		select {
		case <-a.desired:
		default:
		}
	}
}

func (a *Announcer) tell(e Event) {
	if a.cfg.Events != nil {
		a.cfg.Events(e)
	}
}

// Run works until ctx ends, gives away what this node has, and returns.
func (a *Announcer) Run(ctx context.Context) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a.cfg.Listen))
	if err != nil {
		return fmt.Errorf("announce: heartbeats: %w", err)
	}
	// What outlives ctx, to give addresses away in order.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, working := errgroup.WithContext(working)
	group.Go(func() error { return a.responder.Run(working) })
	group.Go(func() error { a.receive(working, conn); return nil })
	group.Go(func() error {
		defer stop()
		defer conn.Close()
		a.loop(ctx, working, conn)
		return nil
	})
	return group.Wait()
}

func (a *Announcer) receive(ctx context.Context, conn *net.UDPConn) {
	buf := make([]byte, maxBeat+1)
	for {
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			wait(ctx, tickEvery)
			continue
		}
		b, err := parseBeat(buf[:n], a.cfg.Key)
		if err != nil {
			continue // a stranger's, or of a node with another key: that one is simply not heard
		}
		select {
		case a.heard <- b:
		case <-ctx.Done():
			return
		}
	}
}

// loop is the one goroutine that changes the Fence.
func (a *Announcer) loop(ctx, working context.Context, conn *net.UDPConn) {
	var asking sync.WaitGroup
	defer asking.Wait()
	defer a.endHandOver()
	tick := time.NewTimer(tickEvery)
	defer tick.Stop()
	var last, until time.Duration
	for done := ctx.Done(); ; {
		answerNow := false
		select {
		case <-working.Done():
			return
		case <-done:
			done, until = nil, boottime()+stopFor
			a.locked(a.fence.Stop)
		case d := <-a.desired:
			a.addresses, a.nextHops = d.Addresses, d.NextHops
			a.sets++
			a.locked(func() { a.fence.Set(d.Claims, d.Nodes) })
		case b := <-a.heard:
			a.locked(func() { answerNow = a.fence.Hear(b, boottime()) })
		case r := <-a.answered:
			a.locked(func() { a.take(r) })
		case err := <-a.handing.done:
			a.handedOver(err)
		case <-tick.C:
		}
		now := boottime()
		a.work(working, now, &asking)
		if a.fence.Urgent() || answerNow || now-last >= beatEvery {
			last = now
			a.sendBeats(conn, now)
		}
		if done == nil && (!a.fence.holdsAny() || now > until) {
			a.sendBeats(conn, now)
			return
		}
		tick.Reset(a.nextTick(now - last))
	}
}

// nextTick is when to look at the clock again if nothing happens before; sent is how long ago heartbeats were. Most
// nodes of most clusters have nothing to announce, and need not wake up for it.
func (a *Announcer) nextTick(sent time.Duration) time.Duration {
	if a.fence.idle() {
		return max(tickEvery, beatEvery-sent)
	}
	return tickEvery
}

func (a *Announcer) locked(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *Announcer) take(r answer) {
	if err := a.fence.Answer(r.question, r.outcome); err != nil {
		a.log.Error("who answers for what cannot be read", zap.Error(err))
	}
}

// work lets the protocol look at the clock, asks what it wants to know, and has the Responder
// answer for what this node holds.
func (a *Announcer) work(ctx context.Context, now time.Duration, asking *sync.WaitGroup) {
	var q Question
	var ask bool
	was := a.fence.problem
	a.locked(func() {
		a.fence.Tick(now)
		q, ask = a.fence.Ask(now)
	})
	if is := a.fence.problem; is != nil && (was == nil || was.Error() != is.Error()) {
		a.log.Error("who answers for what cannot be written: addresses do not move", zap.Error(is))
	}
	a.update(now)
	if ask {
		asking.Go(func() { a.ask(ctx, q) })
	}
}

func (a *Announcer) ask(ctx context.Context, q Question) {
	timed, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var o Outcome
	var err error
	if q.Put == nil {
		o.Body, o.Version, err = a.cfg.Store.Get(timed)
	} else {
		o.Version, err = a.cfg.Store.Put(timed, q.Put, q.Version)
	}
	o.Known, o.Refused = err == nil, errors.Is(err, ErrRefused)
	if err != nil && !o.Refused {
		a.log.Debug("the API server does not say who answers for what", zap.Error(err))
	}
	select {
	case a.answered <- answer{q, o}:
	case <-ctx.Done():
	}
}

// update has the Responder answer for what this node holds, if anything about that can have changed.
func (a *Announcer) update(now time.Duration) {
	is := position{
		version: a.fence.version, undecided: a.fence.undecided != nil,
		standing: a.fence.standing(now), desired: a.sets,
	}
	handed := a.handOver(now, is != a.was)
	if is == a.was && len(a.fence.learned) == 0 && !a.waiting {
		return
	}
	a.turn(a.was.standing, is.standing)
	a.was = is
	next := map[netip.Addr]Duty{}
	a.waiting = false
	for addr, g := range a.fence.record.grants {
		if g.holder != a.cfg.Node || !a.fence.Holds(addr, now) {
			continue
		}
		if _, had := a.holding[addr]; !had && !handed {
			a.waiting = true
			continue
		}
		next[addr] = a.duty(addr)
	}
	for addr := range a.holding {
		if _, still := next[addr]; !still {
			a.tell(Event{Kind: Withdrawn, Address: addr})
		}
	}
	a.holding = next
	a.responder.Set(next)
	for addr := range a.fence.record.grants {
		a.seen[addr] = true
	}
	maps.DeleteFunc(a.seen, func(addr netip.Addr, _ bool) bool {
		_, still := a.fence.record.grants[addr]
		return !still
	})
}

// position is what holding depends on.
type position struct {
	version             string
	undecided, standing bool
	desired             int
}

// turn reports that the node may not answer any more, or may again.
func (a *Announcer) turn(was, is bool) {
	switch {
	case was && !is:
		for addr := range a.holding {
			a.tell(Event{Kind: Fenced, Address: addr})
		}
	case is && !was:
		a.responder.Again()
	}
}

// duty probes an address only if no node of this cluster had it before: the one that had it is
// known to have stopped, and asking would take time.
func (a *Announcer) duty(addr netip.Addr) Duty {
	if d, had := a.holding[addr]; had {
		d.Interfaces = a.fence.claims[addr].Interfaces
		return d
	}
	return Duty{Probe: !a.seen[addr], Interfaces: a.fence.claims[addr].Interfaces}
}

func (a *Announcer) sendBeats(conn *net.UDPConn, now time.Duration) {
	for _, b := range a.fence.Beats(now) {
		to, ok := a.addresses[b.to]
		if !ok {
			continue
		}
		if _, err := conn.WriteToUDPAddrPort(b.marshal(a.cfg.Key), netip.AddrPortFrom(to, a.cfg.Listen.Port())); err != nil {
			a.log.Debug("heartbeat not sent", zap.String("node", b.to), zap.Error(err))
		}
	}
}
