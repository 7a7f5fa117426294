package announce

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

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
