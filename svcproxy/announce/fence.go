package announce

import (
	"net/netip"
	"slices"
	"time"
)

// The times of the protocol. README.md says why these are enough for each other.
const (
	beatEvery = 100 * time.Millisecond
	// silence is how long nothing is heard of a node until it counts as dead.
	silence = 400 * time.Millisecond
	// evidenceFor is how long a node answers after somebody confirmed that it may.
	evidenceFor = 400 * time.Millisecond
	// fenceFor is how long a successor waits after the last confirmation that can have been
	// given to its predecessor: evidenceFor, and room for clocks that do not run alike.
	fenceFor = 480 * time.Millisecond
	// proofFor is how old an echo may be that proves a heartbeat fresh.
	proofFor = time.Second
	// grace is how long a node that has just started believes that the others are alive.
	grace = 1500 * time.Millisecond
	// settle is how long a node waits until it gives an address to another, or changes its voters.
	settle = 300 * time.Millisecond
	// askAgain is the pause between two questions to the API server while they are needed.
	askAgain = 100 * time.Millisecond
	// askAnyway is the pause while they are not.
	askAnyway = 10 * time.Second
	// regret is how long a node that something was taken from, while it was alive, takes
	// nothing itself: whatever was the matter between the nodes may still be.
	regret = 10 * time.Second
)

// Fence decides, for one node, what it may answer for, and is the whole protocol between the
// nodes: it is told the time, what arrives, and what the API server says, and tells what to
// send. It does nothing by itself, and its only clock is the argument now: the time since
// some moment on a clock that never jumps and counts while the machine sleeps.
type Fence struct {
	self        string
	incarnation uint64

	claims map[netip.Addr]Claim
	nodes  []Node
	// started is when the Fence was first told the time.
	started time.Duration
	running bool
	stopped bool

	record  record
	version string
	known   bool
	// confirmed is when the last question began to which the API server answered with record.
	confirmed time.Duration
	believed  bool // confirmed is a time
	asked     time.Duration
	hurry     bool // ask at once: a peer knows more
	busy      bool // a question is on its way
	// undecided is what was sent to the API server without an answer, as a change of version
	// base. It may still come to be for as long as the version is that one.
	undecided *record
	base      string
	// lost says that undecided was sent and not answered, so that it may still arrive.
	lost bool
	// problem is why the last change could not even be sent.
	problem error

	peers map[string]*peer
	seq   uint64
	sent  map[uint64]time.Duration
	terms map[nodeID]uint64
	// acks has when each fence was confirmed by whom, learned when we knew that it was ours.
	acks    map[fenceKey]map[string]time.Duration
	learned map[fenceKey]time.Duration
	// misplaced has since when the owner of an address of ours is another.
	misplaced map[netip.Addr]misplacement
	voters    []string
	votersAt  time.Duration
	regretted time.Duration
	regrets   bool
	urgent    bool // send heartbeats at once

	// owners are those of the claims, for these nodes; changed says that they, the claims or the
	// record are others than at the last Tick.
	owners    map[netip.Addr]string
	ownersFor []Node
	changed   bool
}

type fenceKey struct {
	node string
	term uint64
}

type misplacement struct {
	owner string
	since time.Duration
}

// peer is what is known about another node.
type peer struct {
	incarnation, seq uint64
	// heard is when the last heartbeat arrived that proved itself fresh, seen when the last
	// one did at all.
	heard, seen     time.Duration
	proven, arrived bool
	// echoed is when we sent what the peer echoed last, knowing us by our term.
	echoed    time.Duration
	confirmed bool
	draining  bool
	silent    []nodeID
	fencing   []nodeID // what it asked about
	answer    []nodeTerm
}

// NewFence gives the Fence of a node. incarnation must be another in each run, and not 0.
func NewFence(self string, incarnation uint64) *Fence {
	return &Fence{
		self: self, incarnation: incarnation,
		peers: map[string]*peer{}, sent: map[uint64]time.Duration{}, terms: map[nodeID]uint64{},
		acks: map[fenceKey]map[string]time.Duration{}, learned: map[fenceKey]time.Duration{},
		misplaced: map[netip.Addr]misplacement{},
	}
}

// Set says which addresses want an owner, and which nodes there are. Alive is not looked at.
func (f *Fence) Set(claims map[netip.Addr]Claim, nodes []Node) {
	f.claims, f.nodes, f.owners = claims, nodes, nil
}

// Stop makes the node give away what it has.
func (f *Fence) Stop() { f.stopped, f.urgent = true, true }

// idle says that there is no address whose time could come: nothing is wanted, given out or being asked.
func (f *Fence) idle() bool {
	return f.known && !f.stopped && f.undecided == nil && len(f.claims) == 0 && len(f.record.grants) == 0
}

// Tick is to be called every few milliseconds, before May; while the Fence is idle, with each heartbeat.
func (f *Fence) Tick(now time.Duration) {
	if !f.running {
		f.running, f.started, f.asked, f.votersAt = true, now, now-askAnyway, now
	}
	for seq, at := range f.sent {
		if now-at > proofFor {
			delete(f.sent, seq)
		}
	}
	f.chooseOwners(now)
	if f.changed {
		f.changed = false
		f.noteFences(now)
		f.noteMisplaced(now)
	}
}

// chooseOwners finds the owner of each claim, if there are other claims or nodes than before.
func (f *Fence) chooseOwners(now time.Duration) {
	nodes := f.Nodes(now)
	if f.owners != nil && slices.Equal(nodes, f.ownersFor) {
		return
	}
	f.owners, f.ownersFor, f.changed = make(map[netip.Addr]string, len(f.claims)), nodes, true
	for addr, c := range f.claims {
		f.owners[addr], _ = c.Owner(nodes)
	}
}

// May says whether the node may answer for an address now.
func (f *Fence) May(addr netip.Addr, now time.Duration) bool {
	return f.Holds(addr, now) && f.standing(now)
}

// Holds says whether an address is in this node's hands, whether or not it may answer now.
func (f *Fence) Holds(addr netip.Addr, now time.Duration) bool {
	g, ok := f.record.grants[addr]
	if !f.known || !ok || g.holder != f.self || f.givingAway(addr) {
		return false
	}
	for _, past := range g.fences {
		if !f.passed(past, now) {
			return false
		}
	}
	return true
}

// givingAway: a change that takes the address away from us may be on its way.
func (f *Fence) givingAway(addr netip.Addr) bool {
	return f.undecided != nil && f.undecided.grants[addr].holder != f.self
}

// standing says whether somebody confirmed lately that nothing was taken from this node: the
// API server, or enough of its voters.
func (f *Fence) standing(now time.Duration) bool {
	if f.term() < f.terms[idOf(f.self)] {
		return false
	}
	if f.believed && now-f.confirmed <= evidenceFor {
		return true
	}
	return f.elected(f.record.nodes[f.self].Voters, now, evidenceFor) &&
		(f.undecided == nil || f.elected(f.undecided.nodes[f.self].Voters, now, evidenceFor))
}

func (f *Fence) term() uint64 { return f.record.nodes[f.self].Term }

func (f *Fence) elected(voters []string, now, within time.Duration) bool {
	if !slices.Contains(voters, f.self) {
		return false
	}
	count := 1
	for _, v := range voters {
		if p := f.peers[v]; v != f.self && p != nil && p.confirmed && now-p.echoed <= within {
			count++
		}
	}
	return count >= majority(voters)
}

// passed says whether a node that an address was taken from has certainly stopped.
func (f *Fence) passed(past fence, now time.Duration) bool {
	if past.Node == f.self {
		return f.term() >= past.Term
	}
	key := fenceKey{past.Node, past.Term}
	acks := f.acks[key]
	if _, itself := acks[past.Node]; itself {
		return true
	}
	learned, ok := f.learned[key]
	if !ok || now-learned < fenceFor {
		return false
	}
	if f.gone(past.Node) {
		return true
	}
	count := 0
	for _, v := range past.Voters {
		at, acked := acks[v]
		if v == past.Node {
			continue
		}
		if v == f.self || f.gone(v) || acked && now-at >= fenceFor {
			count++
		}
	}
	return count >= blocking(past.Voters)
}

func (f *Fence) gone(name string) bool {
	return slices.ContainsFunc(f.nodes, func(n Node) bool { return n.Name == name && n.Gone })
}

// noteFences begins the wait for each fence of ours, and forgets those that are no more.
func (f *Fence) noteFences(now time.Duration) {
	current := map[fenceKey]bool{}
	for _, g := range f.record.grants {
		if g.holder != f.self {
			continue
		}
		for _, past := range g.fences {
			key := fenceKey{past.Node, past.Term}
			current[key] = true
			if _, ok := f.learned[key]; !ok {
				f.learned[key] = now
				f.acks[key] = map[string]time.Duration{}
				f.urgent = true
			}
		}
	}
	for key := range f.learned {
		if !current[key] {
			delete(f.learned, key)
			delete(f.acks, key)
		}
	}
}

// alive says whether a node is heard.
func (f *Fence) alive(name string, now time.Duration) bool {
	if name == f.self {
		return true
	}
	p := f.peers[name]
	return p != nil && p.proven && now-p.heard <= silence
}

// Nodes gives the nodes with what the heartbeats say about them.
func (f *Fence) Nodes(now time.Duration) []Node {
	nodes := slices.Clone(f.nodes)
	for i := range nodes {
		n := &nodes[i]
		n.Alive = f.alive(n.Name, now)
		if n.Name == f.self {
			n.Draining = n.Draining || f.stopped
		} else if p := f.peers[n.Name]; p != nil {
			n.Draining = n.Draining || p.draining
		}
	}
	return nodes
}

// noteMisplaced notes since when addresses of ours have another owner.
func (f *Fence) noteMisplaced(now time.Duration) {
	for addr := range f.misplaced {
		if f.record.grants[addr].holder != f.self {
			delete(f.misplaced, addr)
		}
	}
	for addr, g := range f.record.grants {
		if g.holder != f.self {
			continue
		}
		owner := f.owners[addr]
		switch was, ok := f.misplaced[addr]; {
		case owner == f.self:
			delete(f.misplaced, addr)
		case !ok || was.owner != owner:
			f.misplaced[addr] = misplacement{owner, now}
		}
	}
}

// Question is something to ask the API server: to store Put if the version is still Version,
// or, without a Put, what the record is. Began goes back to Answer.
type Question struct {
	Put     []byte
	Version string
	Began   time.Duration

	record *record
}

// Ask gives the next question, if there is one. There is one at a time.
func (f *Fence) Ask(now time.Duration) (Question, bool) {
	if f.busy || !f.running {
		return Question{}, false
	}
	since := now - f.asked
	if f.known && since >= askAgain/2 {
		if next, ok := f.nextPut(now); ok {
			fits, body, err := next.marshalToFit()
			f.problem = err
			if err == nil {
				f.busy, f.asked = true, now
				f.undecided, f.base = &fits, f.version
				return Question{Put: body, Version: f.version, Began: now, record: &fits}, true
			}
		}
	}
	if f.hurry || since >= f.pause(now) {
		f.busy, f.asked, f.hurry = true, now, false
		return Question{Began: now}, true
	}
	return Question{}, false
}

// nextPut is what to store. As long as it is not known what became of the last one, that is
// the same again: two different ones on their way could both be the one that arrives.
func (f *Fence) nextPut(now time.Duration) (*record, bool) {
	if f.undecided != nil {
		return f.undecided, f.version == f.base
	}
	next, ok := f.next(now)
	return &next, ok
}

// pause is how long to wait between two readings of the record.
func (f *Fence) pause(now time.Duration) time.Duration {
	if !f.known || f.undecided != nil {
		return askAgain
	}
	if f.holdsAny() && !f.elected(f.record.nodes[f.self].Voters, now, evidenceFor/2) {
		return askAgain
	}
	return askAnyway
}

func (f *Fence) holdsAny() bool {
	for _, g := range f.record.grants {
		if g.holder == f.self {
			return true
		}
	}
	return false
}

// Outcome is what became of a Question.
type Outcome struct {
	// Body and Version are the record as it is now, as far as Known.
	Body    []byte
	Version string
	Known   bool
	// Refused says that a Put was not made, and never will be, because Version was another.
	Refused bool
}

// Answer tells what the API server answered. Without an answer it is an empty Outcome.
func (f *Fence) Answer(q Question, o Outcome) error {
	f.busy = false
	switch {
	case o.Refused:
		f.hurry = true
		if !f.lost {
			f.undecided = nil
		}
		return nil
	case !o.Known:
		f.lost = f.lost || q.record != nil
		return nil
	}
	if q.record != nil {
		f.take(*q.record, o.Version, q.Began)
		return nil
	}
	r, err := parseRecord(o.Body)
	if err != nil {
		return err
	}
	f.take(r, o.Version, q.Began)
	return nil
}

// take makes r the record. It is what the API server had at some time after began.
func (f *Fence) take(r record, version string, began time.Duration) {
	if version != f.base { // what we sent has arrived, or never will
		f.undecided, f.lost = nil, false
	}
	if r.nodes[f.self].Term > f.term() && f.known && f.holdsAny() {
		f.regretted, f.regrets = began, true
	}
	f.urgent = f.urgent || version != f.version
	f.changed = true
	f.record, f.version, f.known = r, version, true
	f.confirmed, f.believed = began, true
	for name, n := range r.nodes {
		id := idOf(name)
		f.terms[id] = max(f.terms[id], n.Term)
	}
}

// next is the record as this node would have it, if that is another.
func (f *Fence) next(now time.Duration) (record, bool) {
	if len(f.nodes) == 0 {
		return record{}, false // nobody has said yet what there is: what this node has is still wanted
	}
	c := change{Fence: f, now: now, nodes: f.Nodes(now)}
	c.vote()
	for addr, owner := range f.owners {
		if owner == f.self && f.record.grants[addr].holder != f.self && !f.stopped {
			c.acquire(addr)
		}
	}
	for addr, g := range f.record.grants {
		if g.holder == f.self {
			c.yield(addr, g)
		} else if _, wanted := f.claims[addr]; !wanted && (g.holder == "" || f.gone(g.holder)) {
			c.edit(func(r *record) { delete(r.grants, addr) })
		}
	}
	if c.record == nil {
		return record{}, false
	}
	c.record.keepPast(f.remembered(*c.record))
	return *c.record, true
}

// remembered tells which nodes may know connections: those that there are, and those that hold something.
func (f *Fence) remembered(r record) func(node string) bool {
	there := make(map[string]bool, len(f.nodes))
	for _, n := range f.nodes {
		there[n.Name] = true
	}
	for _, g := range r.grants {
		there[g.holder] = true
	}
	return func(node string) bool { return there[node] }
}

// change is a record in the making.
type change struct {
	*Fence
	now    time.Duration
	nodes  []Node
	record *record
}

func (c *change) edit(how func(*record)) {
	if c.record == nil {
		r := c.Fence.record.clone()
		c.record = &r
	}
	how(c.record)
}

// vote makes the voters of this node all nodes there are.
func (c *change) vote() {
	var want []string
	for _, n := range c.nodes {
		if !n.Gone {
			want = append(want, n.Name)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if !slices.Equal(want, c.voters) {
		c.voters, c.votersAt = want, c.now
	}
	entry, exists := c.Fence.record.nodes[c.self]
	if !slices.Contains(want, c.self) || slices.Equal(entry.Voters, want) || exists && c.now-c.votersAt < settle {
		return
	}
	c.edit(func(r *record) { r.nodes[c.self] = nodeEntry{Term: entry.Term, Voters: want} })
}

// acquire claims an address that nobody has, whoever had it before, and takes it from a node that is dead.
func (c *change) acquire(addr netip.Addr) {
	g, held := c.Fence.record.grants[addr]
	if !held {
		c.edit(func(r *record) { r.grants[addr] = grant{holder: c.self} })
		return
	}
	if g.holder == "" {
		c.edit(func(r *record) { r.grants[addr] = g.to(c.self, nil) })
		return
	}
	if !c.dead(g.holder) {
		return
	}
	entry := c.Fence.record.nodes[g.holder]
	term := entry.Term + 1
	past := fence{Node: g.holder, Term: term, Voters: entry.Voters}
	c.edit(func(r *record) {
		r.nodes[g.holder] = nodeEntry{Term: term, Voters: entry.Voters}
		r.grants[addr] = g.to(c.self, c.fencesOf(g, past))
	})
}

// fencesOf are those that a grant brings with it, as far as they are not passed, and one more.
func (c *change) fencesOf(g grant, more ...fence) []fence {
	var all []fence
	for _, past := range g.fences {
		if g.holder == c.self && c.passed(past, c.now) {
			continue
		}
		if !slices.ContainsFunc(more, func(m fence) bool { return m.Node == past.Node }) {
			all = append(all, past)
		}
	}
	return append(all, more...)
}

// dead says whether nobody who is heard hears a node either. It needs the word of as many as
// the wait for its silence would, so that a node which is itself cut off takes nothing.
func (c *change) dead(name string) bool {
	if c.gone(name) {
		return true
	}
	if c.alive(name, c.now) || c.now-c.started < grace || c.regrets && c.now-c.regretted < regret {
		return false
	}
	voters := c.Fence.record.nodes[name].Voters
	agree := 0
	for _, v := range voters {
		p := c.peers[v]
		switch {
		case v == name:
		case v == c.self:
			agree++
		case c.gone(v):
			agree++
		case !c.alive(v, c.now):
		case !slices.Contains(p.silent, idOf(name)):
			return false
		default:
			agree++
		}
	}
	return agree >= blocking(voters)
}

// yield gives an address to its owner, lets go of one that nobody can have or wants, and forgets fences that are passed.
// Nobody can have it also where the others are not heard for a moment: this node's connections are remembered.
func (c *change) yield(addr netip.Addr, g grant) {
	kept := c.fencesOf(g)
	if was, ok := c.misplaced[addr]; ok && (c.stopped || c.now-was.since >= settle) {
		_, wanted := c.claims[addr]
		c.edit(func(r *record) {
			switch {
			case was.owner == "" && len(kept) > 0:
			case was.owner == "" && !wanted:
				delete(r.grants, addr)
			default:
				r.grants[addr] = g.to(was.owner, kept)
			}
		})
		return
	}
	if len(kept) < len(g.fences) {
		c.edit(func(r *record) { r.grants[addr] = grant{holder: c.self, fences: kept, past: g.past} })
	}
}
