package announce

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Whoever has or had an address asks the next one, and nobody is asked that cannot answer.
func TestPast(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	const now = time.Minute
	for name, c := range map[string]struct {
		self, holder string
		past         []string
		peers        map[string]peer
		want         map[netip.Addr]string
	}{
		"never moved":          {"a", "a", nil, nil, nil},
		"nothing to do with":   {"d", "a", []string{"b"}, nil, nil},
		"the holder":           {"a", "a", []string{"b", "c"}, nil, map[netip.Addr]string{addr: "b"}},
		"one before":           {"b", "a", []string{"b", "c"}, nil, map[netip.Addr]string{addr: "c"}},
		"the first":            {"c", "a", []string{"b", "c"}, nil, map[netip.Addr]string{addr: "a"}},
		"one stands still":     {"a", "a", []string{"b", "c"}, map[string]peer{"b": {proven: true, heard: now - 4*time.Second}}, map[netip.Addr]string{addr: "b"}},
		"for too long":         {"a", "a", []string{"b", "c"}, map[string]peer{"b": {proven: true, heard: now - stallFor - 1}}, map[netip.Addr]string{addr: "c"}},
		"one was never heard":  {"a", "a", []string{"b", "c"}, map[string]peer{"b": {}}, map[netip.Addr]string{addr: "c"}},
		"one is declared dead": {"a", "a", []string{"d", "c"}, nil, map[netip.Addr]string{addr: "c"}},
		"one has stopped":      {"a", "a", []string{"b"}, map[string]peer{"b": {proven: true, draining: true, heard: now - restartFor}}, map[netip.Addr]string{addr: "b"}},
		"and never came back": {
			"a", "a",
			[]string{"b"},
			map[string]peer{"b": {proven: true, draining: true, heard: now - restartFor - 1}},
			map[netip.Addr]string{addr: ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := NewFence(c.self, 1)
			for _, n := range []string{"a", "b", "c", "d"} {
				f.peers[n] = &peer{proven: true, heard: now}
			}
			for n, p := range c.peers {
				f.peers[n] = &p
			}
			f.nodes = []Node{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d", Gone: true}}
			f.record = record{grants: map[netip.Addr]grant{addr: {holder: c.holder, past: c.past}}}
			if diff := cmp.Diff(c.want, f.Past(now), cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// toldHandover keeps what it was told, and says err.
type toldHandover struct {
	told []map[netip.Addr]netip.Addr
	err  error
}

func (h *toldHandover) Set(next map[netip.Addr]netip.Addr) error {
	h.told = append(h.told, next)
	return h.err
}

// notYet fails the test if it is told anything.
func (h *toldHandover) notYet(t *testing.T, a *Announcer, now time.Duration, before string) {
	t.Helper()
	if a.handOver(now, true) || len(h.told) > 0 || a.handing.busy {
		t.Errorf("handed over before %s", before)
		a.endHandOver()
	}
}

// After a restart the Handover is left as the process before left it until it is known who had what and
// where the nodes are; and they count as alive as long as they had no time to be heard.
func TestHandOverAfterRestart(t *testing.T) {
	addr, hop := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.2")
	told := &toldHandover{}
	a := &Announcer{
		cfg: Config{Handover: told}, log: zap.NewNop(), fence: NewFence("a", 1),
		handing: handing{done: make(chan error, 1)},
	}
	const start = time.Hour
	a.fence.Tick(start)
	told.notYet(t, a, start, "anything was known")
	a.fence.Set(nil, []Node{{Name: "a"}, {Name: "b"}})
	told.notYet(t, a, start, "the record was read")
	a.fence.Set(nil, nil)
	a.fence.take(record{grants: map[netip.Addr]grant{addr: {holder: "a", past: []string{"b"}}}}, "1", start)
	told.notYet(t, a, start, "it was known where the nodes are")
	a.fence.Set(nil, []Node{{Name: "a"}, {Name: "b"}})
	a.nextHops = map[string][]netip.Addr{"b": {hop}}
	for _, step := range []struct {
		at   time.Duration
		want map[netip.Addr]netip.Addr
	}{
		{start, map[netip.Addr]netip.Addr{addr: hop}},
		{start + stallFor, map[netip.Addr]netip.Addr{addr: hop}},
		{start + stallFor + lookForSilence, map[netip.Addr]netip.Addr{addr: {}}},
	} {
		a.handOver(step.at, false)
		a.endHandOver()
		if diff := cmp.Diff(step.want, told.told[len(told.told)-1], cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%v after the start: %s", step.at-start, diff)
		}
	}
}

// What a Handover could not do is tried again: after a while, or at once if something moves. Addresses
// do not wait for it, and each error is reported once.
func TestHandOverTriesAgain(t *testing.T) {
	logged, logs := observer.New(zap.WarnLevel)
	told := &toldHandover{err: errors.New("no buffer space")}
	a := &Announcer{
		cfg: Config{Handover: told}, log: zap.New(logged), fence: NewFence("a", 1),
		handing: handing{done: make(chan error, 1)},
	}
	start := boottime()
	a.fence.Set(nil, []Node{{Name: "a"}})
	a.fence.Tick(start)
	a.fence.take(record{}, "1", start)
	for i, step := range []struct {
		after time.Duration
		moved bool
		err   error
		told  int
		logs  int
	}{
		{0, true, told.err, 1, 1},
		{0, false, told.err, 1, 1},
		{0, true, told.err, 2, 1},
		{2 * lookForSilence, false, told.err, 2, 1},
		{time.Hour, false, errors.New("not permitted"), 3, 2},
		{2 * time.Hour, false, nil, 4, 2},
		{2*time.Hour + lookForRoutes - 1, true, nil, 4, 2},
		{2*time.Hour + lookForRoutes + lookForSilence, false, nil, 5, 2}, // the ways to the nodes may be others
	} {
		told.err = step.err
		a.handOver(start+step.after, step.moved)
		a.endHandOver()
		if len(told.told) != step.told || logs.Len() != step.logs {
			t.Errorf("step %d: told %d times, %d warnings; want %d, %d", i, len(told.told), logs.Len(), step.told, step.logs)
		}
		if !a.handOver(start+step.after, false) {
			t.Errorf("step %d: addresses wait", i)
			a.endHandOver()
		}
	}
}

// stuckHandover writes until it is let go.
type stuckHandover struct{ goOn chan error }

func (h stuckHandover) Set(map[netip.Addr]netip.Addr) error { return <-h.goOn }

// Addresses wait until it is written who knows their connections, but not for ever: neither what is new in that, nor
// what has moved since it began, nor the end of the program.
func TestHandOverThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged, logs := observer.New(zap.WarnLevel)
		stuck := stuckHandover{make(chan error)}
		a := &Announcer{
			cfg: Config{Handover: stuck}, log: zap.New(logged), fence: NewFence("a", 1),
			handing: handing{done: make(chan error, 1)},
		}
		const start = time.Hour
		a.fence.Set(nil, []Node{{Name: "a"}})
		a.fence.Tick(start)
		a.fence.take(record{}, "1", start)
		for i, step := range []struct {
			at    time.Duration
			moved bool
			goOn  bool // what is being written is done first
			ready bool
			logs  int
		}{
			{start, true, false, false, 0},
			{start + handOverFor, false, false, false, 0},
			{start + handOverFor + 1, false, false, true, 1},
			{start + handOverFor + 2, true, false, true, 1},
			{start + time.Minute, false, true, true, 1}, // again, without news
			{start + time.Minute + 1, true, false, false, 1},
			{start + time.Minute + handOverFor + 1, false, false, true, 2},
		} {
			if step.goOn {
				stuck.goOn <- nil
				a.handedOver(<-a.handing.done)
			}
			if ready := a.handOver(step.at, step.moved); ready != step.ready || logs.Len() != step.logs || !a.handing.busy {
				t.Errorf("step %d: ready %v, %d warnings, busy %v; want %v and %d", i, ready, logs.Len(), a.handing.busy, step.ready, step.logs)
			}
		}
		began := time.Now()
		if a.endHandOver(); time.Since(began) != handOverFor {
			t.Errorf("the end took %v", time.Since(began))
		}
		stuck.goOn <- nil
	})
}

// A past that makes the record too large is given up, and the record still written; that of nodes which
// are no more goes first.
func TestPastThatDoesNotFit(t *testing.T) {
	const second = time.Second
	name := func(i, j int) string {
		return fmt.Sprintf("node-%d-%d.a-long-domain.of-a-cluster.example.internal", i, j)
	}
	for _, c := range []struct {
		name      string
		addresses int
		nodes     []Node
		want      int // length of past
		err       error
	}{
		{"all are there", 10, []Node{{Name: "a"}, {Name: name(0, 0)}, {Name: name(0, 1)}, {Name: name(0, 2)}}, 3, nil},
		{"one is no more", 10, []Node{{Name: "a"}, {Name: name(0, 0)}, {Name: name(0, 2)}}, 2, nil},
		{"too many of nodes that are no more", 3000, []Node{{Name: "a"}, {Name: name(0, 1)}}, 1, nil},
		{"too many", 3000, nil, 0, nil},
		{"too many without a past", 20_000, nil, 0, errRecordTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, r, nodes := NewFence("a", 1), record{grants: map[netip.Addr]grant{}}, c.nodes
			first := netip.AddrFrom4([4]byte{198, 18})
			for i := range c.addresses {
				past := []string{name(i, 0), name(i, 1), name(i, 2)}
				r.grants[netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})] = grant{holder: "a", past: past}
				if c.nodes == nil {
					nodes = append(nodes, Node{Name: past[0]}, Node{Name: past[1]}, Node{Name: past[2]})
				}
			}
			claims := map[netip.Addr]Claim{}
			for addr := range r.grants {
				claims[addr] = Claim{Key: addr, Serving: []string{"a"}}
			}
			f.claims, f.nodes = claims, nodes
			f.owners, f.ownersFor = map[netip.Addr]string{vip4: "a"}, nodes
			f.running = true
			f.take(r, "1", second)
			q, ok := f.Ask(2 * second)
			if !errors.Is(f.problem, c.err) || ok && (q.Put == nil) != (c.err != nil) {
				t.Fatalf("problem %v, %d bytes", f.problem, len(q.Put))
			}
			if c.err != nil {
				return
			}
			got, err := parseRecord(q.Put)
			if err != nil || got.grants[vip4].holder != "a" {
				t.Fatal("the change is not in the record", err)
			}
			if n := len(got.grants[first].past); n != c.want {
				t.Errorf("%d in the past, want %d", n, c.want)
			}
			if diff := cmp.Diff(got.grants[first], q.record.grants[first], cmp.AllowUnexported(grant{})); diff != "" || f.undecided != q.record {
				t.Error("another record is sent than remembered", diff)
			}
			if len(r.grants[first].past) != 3 {
				t.Error("the record in use was changed")
			}
		})
	}
}

// A grant remembers who had the address, in order and none twice, through the API server and back.
func TestGrantRemembers(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	g := grant{holder: "a"}
	for _, c := range []struct {
		to   string
		past []string
	}{
		{"b", []string{"a"}},
		{"a", []string{"b"}},
		{"c", []string{"a", "b"}},
		{"b", []string{"c", "a"}},
		{"d", []string{"b", "c", "a"}},
		{"e", []string{"d", "b", "c", "a"}},
		{"f", []string{"e", "d", "b", "c"}},
	} {
		g = g.to(c.to, nil)
		if diff := cmp.Diff(c.past, g.past); diff != "" || g.holder != c.to {
			t.Errorf("to %s: %s", c.to, diff)
		}
		b, err := record{grants: map[netip.Addr]grant{addr: g}}.marshal()
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseRecord(b)
		if diff := cmp.Diff(g, r.grants[addr], cmp.AllowUnexported(grant{})); err != nil || diff != "" {
			t.Error(err, diff)
		}
	}
}

// A node that stops while it hears nobody who could have its address gives it to nobody, and whoever takes it then
// knows whom to ask about connections.
func TestAddressOfNobodyRemembers(t *testing.T) {
	const now = time.Hour
	nodes := []Node{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	wanted := map[netip.Addr]Claim{vip4: {Key: vip4, Nodes: []string{"a", "b"}}}
	// changed is the record as a node would have it.
	changed := func(f *Fence, claims map[netip.Addr]Claim, r record) record {
		t.Helper()
		f.Set(claims, nodes)
		f.Tick(now)
		f.take(r, "1", now)
		f.Tick(now)
		q, ok := f.Ask(now + time.Second)
		if !ok || q.Put == nil {
			t.Fatal("nothing to change")
		}
		r, err := parseRecord(q.Put)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b := NewFence("a", 1), NewFence("b", 1)
	a.Stop()
	r := changed(a, wanted, record{grants: map[netip.Addr]grant{vip4: {holder: "a", past: []string{"c"}}}})
	if diff := cmp.Diff(grant{past: []string{"a", "c"}}, r.grants[vip4], cmp.AllowUnexported(grant{})); diff != "" {
		t.Error("given up: ", diff)
	}
	a.take(r, "2", now)
	if got := a.Past(now)[vip4]; got != "c" || a.holdsAny() {
		t.Errorf("the one that gave it up asks %q", got)
	}
	free := r
	r = changed(b, wanted, free)
	if diff := cmp.Diff(grant{holder: "b", past: []string{"a", "c"}}, r.grants[vip4], cmp.AllowUnexported(grant{})); diff != "" {
		t.Error("taken: ", diff)
	}
	b.take(r, "2", now)
	if got := b.Past(now)[vip4]; got != "a" {
		t.Errorf("the one that took it asks %q", got)
	}
	if r = changed(NewFence("b", 1), nil, free); len(r.grants) > 0 {
		t.Errorf("nobody wants it: %v", r.grants)
	}
}
