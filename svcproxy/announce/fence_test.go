package announce

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// world is a cluster in which everything can go wrong, simulated a millisecond at a time: the
// network between the nodes, the API server and the way to it, the nodes and their clocks.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Duration
	nodes  []*simNode
	claims map[netip.Addr]Claim
	events eventQueue
	count  int

	// The API server.
	body    []byte
	version int
	apiDown bool

	loss    float64
	cut     map[[2]string]bool // from, to
	answers map[netip.Addr]string
	// switched counts how often another node began to answer for an address.
	switched int
}

type simNode struct {
	name   string
	fence  *Fence
	offset time.Duration
	rate   float64
	// paused nodes do nothing until then, dead ones never.
	paused   time.Duration
	dead     bool
	noAPI    bool
	excluded bool
	gone     bool
	tick     time.Duration
	nextTick time.Duration
	nextBeat time.Duration
	runs     uint64
}

func (n *simNode) clock(now time.Duration) time.Duration {
	return n.offset + time.Duration(float64(now)*n.rate)
}

type simEvent struct {
	at  time.Duration
	seq int
	do  func()
}

type eventQueue []simEvent

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func newWorld(t *testing.T, seed uint64, nodes, addresses int) *world {
	t.Helper()
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]string]bool{},
		claims: map[netip.Addr]Claim{}, answers: map[netip.Addr]string{}, version: 1,
	}
	for i := range addresses {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		w.claims[addr] = Claim{Key: addr, Serving: []string{"n0"}}
	}
	for i := range nodes {
		n := &simNode{
			name: "n" + strconv.Itoa(i), offset: time.Duration(w.rng.Int64N(int64(time.Hour))),
			rate: 0.95 + 0.1*w.rng.Float64(), tick: time.Duration(3+w.rng.IntN(8)) * time.Millisecond,
		}
		w.nodes = append(w.nodes, n)
	}
	for _, n := range w.nodes {
		w.start(n)
	}
	return w
}

func (w *world) start(n *simNode) {
	n.runs++
	n.dead, n.fence = false, NewFence(n.name, n.runs<<32|uint64(w.rng.Uint32()|1))
	w.configure()
}

// configure tells every node what there is.
func (w *world) configure() {
	for _, n := range w.nodes {
		var nodes []Node
		for _, m := range w.nodes {
			nodes = append(nodes, Node{Name: m.name, Excluded: m.excluded, Gone: m.gone})
		}
		if n.fence != nil {
			n.fence.Set(w.claims, nodes)
		}
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.count++
	heap.Push(&w.events, simEvent{w.now + d, w.count, do})
}

func (w *world) ms(n int) time.Duration {
	return time.Duration(w.rng.IntN(n*1000)+100) * time.Microsecond
}

// step is one millisecond.
func (w *world) step() {
	w.now += time.Millisecond
	for len(w.events) > 0 && w.events[0].at <= w.now {
		heap.Pop(&w.events).(simEvent).do()
	}
	for _, n := range w.nodes {
		if w.awake(n) && w.now >= n.nextTick {
			n.nextTick = w.now + n.tick
			w.work(n)
		}
	}
	w.check()
}

func (w *world) awake(n *simNode) bool { return !n.dead && w.now >= n.paused }

func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.step()
	}
}

// work is what the shell around a Fence does.
func (w *world) work(n *simNode) {
	local := n.clock(w.now)
	n.fence.Tick(local)
	if q, ok := n.fence.Ask(local); ok {
		w.ask(n, n.fence, q)
	}
	if n.fence.Urgent() || local >= n.nextBeat {
		n.nextBeat = local + beatEvery
		for _, b := range n.fence.Beats(local) {
			w.send(b)
		}
	}
}

func (w *world) node(name string) *simNode {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// send delivers a heartbeat late, never, or twice.
func (w *world) send(b beat) {
	parsed, err := parseBeat(b.marshal([]byte("key")), []byte("key"))
	if err != nil {
		w.t.Fatalf("%+v: %v", b, err)
	}
	for range 1 + w.rng.IntN(20)/19 {
		if w.cut[[2]string{b.from, b.to}] || w.rng.Float64() < w.loss {
			continue
		}
		delay := w.ms(2)
		if w.rng.IntN(100) == 0 {
			delay = w.ms(3000)
		}
		w.after(delay, func() { w.deliver(parsed) })
	}
}

func (w *world) deliver(b beat) {
	n := w.node(b.to)
	if n.dead {
		return
	}
	if !w.awake(n) { // it waits in the socket
		w.after(n.paused-w.now+w.ms(1), func() { w.deliver(b) })
		return
	}
	if n.fence.Hear(b, n.clock(w.now)) {
		n.fence.urgent = true
	}
}

// ask puts a question to the API server. The question and the answer can be late or lost.
func (w *world) ask(n *simNode, f *Fence, q Question) {
	respond := func(o Outcome, d time.Duration) {
		var deliver func()
		deliver = func() {
			switch {
			case n.fence != f || n.dead:
			case !w.awake(n):
				w.after(n.paused-w.now+w.ms(1), deliver)
			default:
				if err := f.Answer(q, o); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		w.after(d, deliver)
	}
	if w.apiDown || n.noAPI {
		respond(Outcome{}, w.ms(1000))
		return
	}
	there, back := w.ms(15), w.ms(15)
	lost := w.rng.Float64() < w.loss/2
	if lost && w.rng.IntN(2) == 0 {
		there = w.ms(4000) // it arrives long after it was given up
	}
	w.after(there, func() {
		o := w.serve(q)
		if !lost {
			respond(o, back)
		}
	})
	if lost {
		respond(Outcome{}, 1000*time.Millisecond)
	}
}

func (w *world) serve(q Question) Outcome {
	if q.Put == nil {
		return Outcome{Known: true, Body: w.body, Version: strconv.Itoa(w.version)}
	}
	if q.Version != strconv.Itoa(w.version) {
		return Outcome{Refused: true}
	}
	w.version++
	w.body = q.Put
	return Outcome{Known: true, Version: strconv.Itoa(w.version)}
}

// check is the promise: never two.
func (w *world) check() {
	for addr := range w.claims {
		var all []string
		for _, n := range w.nodes {
			if w.awake(n) && n.fence.May(addr, n.clock(w.now)) {
				all = append(all, n.name)
			}
		}
		if len(all) > 1 {
			w.t.Fatalf("%v: %s is answered by %v; the record is %s", w.now, addr, all, w.body)
		}
		if len(all) == 1 && all[0] != w.answers[addr] {
			w.switched++
			w.answers[addr] = all[0]
		}
		if len(all) == 0 {
			delete(w.answers, addr)
		}
	}
}

// settled runs until every address is answered by its owner.
func (w *world) settled(within time.Duration) time.Duration {
	w.t.Helper()
	begin := w.now
	for w.now-begin < within {
		w.step()
		if w.misplaced() == "" {
			return w.now - begin
		}
	}
	w.t.Fatalf("after %v: %s; the record is %s", within, w.misplaced(), w.body)
	return 0
}

func (w *world) misplaced() string {
	var nodes []Node
	for _, n := range w.nodes {
		nodes = append(nodes, Node{Name: n.name, Alive: w.awake(n), Excluded: n.excluded, Gone: n.gone})
	}
	for addr, c := range w.claims {
		if owner, _ := c.Owner(nodes); w.answers[addr] != owner {
			return fmt.Sprintf("%s belongs to %q and is answered by %q", addr, owner, w.answers[addr])
		}
	}
	return ""
}

// Whatever happens, no two nodes answer for an address; and once nothing happens any more,
// each address is answered by its owner.
func TestFenceNeverTwo(t *testing.T) {
	seeds := 12
	if v := os.Getenv("FENCE_SEEDS"); v != "" { // for a long look
		seeds, _ = strconv.Atoi(v)
	}
	for _, size := range []int{1, 2, 3, 4, 5} {
		t.Run(strconv.Itoa(size)+" nodes", func(t *testing.T) {
			t.Parallel()
			moves := 0
			for seed := range seeds {
				w := newWorld(t, uint64(seed)<<8|uint64(size), size, 3)
				w.chaos(20)
				w.heal()
				w.settled(40 * time.Second)
				moves += w.switched
			}
			if size > 1 && moves < seeds*3*2 {
				t.Errorf("%d moves in %d runs: too little happened to say anything", moves, seeds)
			}
		})
	}
}

// chaos does this many bad things, one after the other or at the same time.
func (w *world) chaos(things int) {
	w.run(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
	for range things {
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		m := w.nodes[w.rng.IntN(len(w.nodes))]
		switch w.rng.IntN(17) {
		case 0:
			n.paused = w.now + w.ms(5000)
		case 1:
			n.dead = true
		case 2, 3:
			if n.dead {
				w.start(n)
			}
		case 4:
			n.noAPI = !n.noAPI
		case 5:
			w.apiDown = !w.apiDown
		case 6:
			w.loss = w.rng.Float64() * 0.5
		case 7, 8:
			w.cut[[2]string{n.name, m.name}] = true
		case 9:
			w.partition()
		case 10:
			clear(w.cut)
		case 11:
			n.excluded = !n.excluded
			w.configure()
		case 12:
			w.loss, w.apiDown, n.noAPI = 0, false, false
		case 13:
			w.start(n) // killed and started again, at once
		default:
			w.relapse(n)
		}
		w.run(time.Duration(w.rng.IntN(2500)) * time.Millisecond)
	}
}

// relapse cuts a node off from everything, and gives it single peers back just when it is
// about to be followed, which is when their word must not help it any more.
func (w *world) relapse(n *simNode) {
	clear(w.cut)
	w.loss, w.apiDown = 0, false
	w.run(2 * time.Second)
	for _, m := range w.nodes {
		m.noAPI = m == n
		w.cut[[2]string{m.name, n.name}], w.cut[[2]string{n.name, m.name}] = true, true
	}
	if w.rng.IntN(2) == 0 {
		n.paused = w.now + silence + w.ms(200)
	}
	w.run(silence + w.ms(400))
	for _, m := range w.nodes {
		if w.rng.IntN(2) == 0 {
			delete(w.cut, [2]string{m.name, n.name})
			delete(w.cut, [2]string{n.name, m.name})
		}
	}
}

func (w *world) partition() {
	clear(w.cut)
	side := map[string]bool{}
	for _, n := range w.nodes {
		side[n.name] = w.rng.IntN(2) == 0
	}
	for _, n := range w.nodes {
		for _, m := range w.nodes {
			if side[n.name] != side[m.name] {
				w.cut[[2]string{n.name, m.name}] = true
			}
		}
	}
}

func (w *world) heal() {
	clear(w.cut)
	w.loss, w.apiDown = 0, false
	for _, n := range w.nodes {
		n.noAPI, n.excluded = false, false
		if n.dead {
			w.start(n)
		}
	}
	w.configure()
}

// A node that dies is followed within the time that README.md promises.
func TestFenceFailover(t *testing.T) {
	for _, size := range []int{2, 3, 5} {
		t.Run(strconv.Itoa(size)+" nodes", func(t *testing.T) {
			var all []time.Duration
			for seed := range 40 {
				w := newWorld(t, uint64(seed), size, 8)
				w.settled(10 * time.Second)
				w.run(2 * time.Second)
				w.nodes[0].dead = true
				all = append(all, w.settled(5*time.Second))
			}
			slices.Sort(all)
			t.Logf("takeover p50 %v, max %v", all[len(all)/2], all[len(all)-1])
			if most := all[len(all)-1]; most > 1300*time.Millisecond {
				t.Errorf("took %v", most)
			}
		})
	}
}

// What is planned is not noticed: from one answer to the next only the way of one message
// through the API server and one heartbeat goes by.
func TestFencePlannedMove(t *testing.T) {
	w := newWorld(t, 7, 3, 8)
	w.settled(10 * time.Second)
	w.run(2 * time.Second)
	gap := func(what string, within time.Duration) {
		t.Helper()
		quiet, most := map[netip.Addr]time.Duration{}, time.Duration(0)
		for end := w.now + 3*time.Second; w.now < end; {
			w.step()
			for addr := range w.claims {
				if w.answers[addr] != "" {
					quiet[addr] = 0
				} else {
					quiet[addr] += time.Millisecond
				}
				most = max(most, quiet[addr])
			}
		}
		t.Logf("%s: nobody answered for %v at most", what, most)
		if most > within {
			t.Errorf("%s: nobody answered for %v", what, most)
		}
		if m := w.misplaced(); m != "" {
			t.Error(m)
		}
	}
	w.nodes[1].excluded = true
	w.configure()
	gap("a node is excluded", 250*time.Millisecond)
	w.nodes[1].excluded = false
	w.configure()
	gap("and is back", 250*time.Millisecond)
}

// Without the API server, owners go on, and what a node had when it died is missing until the
// API server is back. Without both peers and API server a node stops.
func TestFenceWithoutAPI(t *testing.T) {
	w := newWorld(t, 3, 3, 8)
	w.settled(10 * time.Second)
	w.apiDown = true
	w.run(time.Minute)
	if m := w.misplaced(); m != "" {
		t.Error("after a minute without the API server:", m)
	}
	w.nodes[0].dead = true
	w.run(5 * time.Second)
	for addr := range w.claims {
		owner, _ := w.claims[addr].Owner([]Node{{Name: "n0", Alive: true}, {Name: "n1", Alive: true}, {Name: "n2", Alive: true}})
		if want := map[string]string{"n1": "n1", "n2": "n2"}[owner]; w.answers[addr] != want {
			t.Errorf("%s of %s is answered by %q without %s, want %q", addr, owner, w.answers[addr], "n0", want)
		}
	}
	w.apiDown = false
	w.settled(3 * time.Second)
	w.nodes[1].noAPI = true
	for _, n := range w.nodes {
		w.cut[[2]string{n.name, "n1"}], w.cut[[2]string{"n1", n.name}] = true, true
	}
	w.run(evidenceFor + evidenceFor/10 + time.Millisecond)
	for addr, by := range w.answers {
		if by == "n1" {
			t.Errorf("%s is answered by a node that is cut off from everything", addr)
		}
	}
}

// Two of three die: the last one cannot know that, until somebody says so.
func TestFenceOutOfService(t *testing.T) {
	w := newWorld(t, 5, 3, 8)
	w.settled(10 * time.Second)
	w.run(time.Second)
	w.nodes[0].dead, w.nodes[1].dead = true, true
	w.run(20 * time.Second)
	if w.misplaced() == "" {
		t.Error("one node of three took everything, with nobody's word for it")
	}
	w.nodes[0].gone, w.nodes[1].gone = true, true
	w.configure()
	w.settled(3 * time.Second)
}

// isolate cuts a node's heartbeats off, or a pair's.
func (w *world) isolate(a string, from ...string) {
	for _, b := range from {
		w.cut[[2]string{a, b}], w.cut[[2]string{b, a}] = true, true
	}
}

// untilTaken runs until the record gives something that n0 had to another, and returns that one.
func (w *world) untilTaken() string {
	w.t.Helper()
	before, _ := parseRecord(w.body)
	for end := w.now + 10*time.Second; w.now < end; {
		w.step()
		after, _ := parseRecord(w.body)
		for addr, g := range before.grants {
			if now := after.grants[addr].holder; g.holder == "n0" && now != "n0" {
				return now
			}
		}
	}
	w.t.Fatal("nothing is taken from a node that nobody hears")
	return ""
}

// The wait for the API server's word: a node was told that all is well a moment before
// something was taken from it, and hears nothing more. The successor has to sit that out.
func TestFenceOutlivesTheLastConfirmation(t *testing.T) {
	for seed := range 10 {
		w := newWorld(t, uint64(seed), 2+seed%3, 8)
		w.settled(10 * time.Second)
		w.run(2 * time.Second)
		for _, n := range w.nodes[1:] {
			w.isolate("n0", n.name)
		}
		w.untilTaken()
		w.nodes[0].noAPI = true
		w.run(3 * time.Second)
		if m := w.answers; len(m) != 8 {
			t.Errorf("seed %d: %d of 8 addresses are answered in the end", seed, len(m))
		}
	}
}

// The wait for the voters: the one that the old owner and its successor have in common hears
// the old owner again, and does not hear of the successor. The old owner goes on, and so the
// successor must not begin.
func TestFenceWaitsForVoters(t *testing.T) {
	for seed := range 10 {
		w := newWorld(t, uint64(seed), 3, 8)
		w.settled(10 * time.Second)
		w.run(2 * time.Second)
		w.nodes[0].noAPI = true
		w.isolate("n0", "n1", "n2")
		successor := w.untilTaken()
		voter := map[string]string{"n1": "n2", "n2": "n1"}[successor]
		clear(w.cut)
		w.isolate(successor, "n0", voter)
		w.node(voter).noAPI = true
		w.run(3 * time.Second)
		w.heal()
		w.settled(20 * time.Second)
	}
}

// A node that has started, and was not told yet what addresses and nodes there are, keeps what it had.
func TestFenceKeepsUntilTold(t *testing.T) {
	f := NewFence("a", 1)
	f.Tick(0)
	f.take(record{grants: map[netip.Addr]grant{vip4: {holder: "a"}}}, "1", 0)
	for now := time.Duration(0); now < 2*time.Second; now += 10 * time.Millisecond {
		f.Tick(now)
		if q, ok := f.Ask(now); ok && q.Put != nil {
			t.Fatalf("%v after the start: %s", now, q.Put)
		} else if ok {
			_ = f.Answer(q, Outcome{})
		}
	}
}
