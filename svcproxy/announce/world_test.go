package announce

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
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
