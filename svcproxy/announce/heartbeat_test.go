package announce

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/kubernetes/fake"
)

var (
	testKey  = []byte("0123456789abcdef")
	fullBeat = beat{
		from: "node-a", to: strings.Repeat("b", maxName), incarnation: 1, seq: 2, echoIncarnation: 3, echoSeq: 4,
		epoch: 5, draining: true, terms: []nodeTerm{{6, 7}, {8, 9}}, silent: []nodeID{10},
	}
)

func TestBeatRoundTrip(t *testing.T) {
	for _, b := range []beat{fullBeat, {from: "a", to: "b"}} {
		got, err := parseBeat(b.marshal(testKey), testKey)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, got, cmp.AllowUnexported(beat{}, nodeTerm{})); diff != "" {
			t.Error(diff)
		}
	}
	large := fullBeat
	large.from = large.to
	for range 50 {
		large.terms, large.silent = append(large.terms, nodeTerm{1, 2}), append(large.silent, 3)
	}
	if n := len(large.marshal(testKey)); n > maxBeat {
		t.Errorf("the largest heartbeat has %d bytes", n)
	}
}

// Every bit of a heartbeat is signed, and nothing may be missing from it or follow it.
func TestBeatTampered(t *testing.T) {
	good := fullBeat.marshal(testKey)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := parseBeat(bad, testKey); err == nil {
			t.Errorf("byte %d changed, and nobody noticed", i)
		}
		if _, err := parseBeat(good[:i], testKey); err == nil {
			t.Errorf("cut after %d bytes, and nobody noticed", i)
		}
	}
	if _, err := parseBeat(good, []byte("another key 1234")); !errors.Is(err, errBeatMAC) {
		t.Errorf("another key: %v", err)
	}
	body := append(bytes.Clone(good[:len(good)-macLen]), 0)
	if _, err := parseBeat(append(body, sign(body, testKey)...), testKey); !errors.Is(err, errBeat) {
		t.Errorf("something follows: %v", err)
	}
}

func FuzzBeat(f *testing.F) {
	f.Add(fullBeat.marshal(testKey))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Signed, so that the fuzzer gets to what is behind the signature.
		if len(b) > macLen {
			body := bytes.Clone(b[:len(b)-macLen])
			b = append(body, sign(body, testKey)...)
		}
		got, err := parseBeat(b, testKey)
		if err != nil {
			return
		}
		if again := got.marshal(testKey); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// pair is two Fences that hear each other.
func pair(t *testing.T) (a, b *Fence, exchange func(now time.Duration) (toA, toB beat)) {
	t.Helper()
	a, b = NewFence("a", 1), NewFence("b", 2)
	for _, f := range []*Fence{a, b} {
		f.Set(nil, []Node{{Name: "a"}, {Name: "b"}})
		f.Tick(0)
		q, ok := f.Ask(0)
		if !ok {
			t.Fatal("it asks nothing")
		}
		if err := f.Answer(q, Outcome{Known: true, Version: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	return a, b, func(now time.Duration) (toA, toB beat) {
		toB = a.Beats(now)[0]
		b.Hear(toB, now)
		toA = b.Beats(now)[0]
		a.Hear(toA, now)
		return toA, toB
	}
}

// What was recorded proves nothing, in the same run of a node and in the next one.
func TestReplayedHeartbeatsAreNotBelieved(t *testing.T) {
	a, b, exchange := pair(t)
	var recorded []beat
	for i := range 5 {
		_, toB := exchange(time.Duration(i) * beatEvery)
		recorded = append(recorded, toB)
	}
	now := 5 * beatEvery
	if !b.alive("a", now) {
		t.Fatal("a is not heard to begin with")
	}
	later := now + 2*time.Second
	for _, r := range recorded {
		b.Hear(r, later)
	}
	if b.alive("a", later) {
		t.Error("a is dead, and its recorded heartbeats keep it alive")
	}
	// a starts again, and what its last run said must not stand in its way.
	a2 := NewFence("a", 77)
	a2.known = true
	a2.Set(nil, []Node{{Name: "a"}, {Name: "b"}})
	for i := range 3 {
		at := later + silence + time.Duration(i+1)*beatEvery
		b.Hear(recorded[4], at)
		b.Hear(a2.Beats(at)[0], at)
		a2.Hear(b.Beats(at)[0], at)
	}
	if end := later + silence + 3*beatEvery; !b.alive("a", end) || !a2.alive("b", end) {
		t.Error("a is back, and is not heard")
	}
	_ = a
}

func TestStrangersAreNotHeard(t *testing.T) {
	_, b, exchange := pair(t)
	exchange(0)
	b.Hear(beat{from: "c", to: "b", incarnation: 9, seq: 9}, 0)
	b.Hear(beat{from: "b", to: "b", incarnation: 9, seq: 9}, 0)
	b.Hear(beat{from: "a", to: "c", incarnation: 1, seq: 99}, 0)
	if len(b.peers) != 1 || b.peers["a"].seq == 99 {
		t.Errorf("peers are %v", b.peers)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	fences := []fence{{Node: "b", Term: 3, Voters: []string{"a", "b"}}}
	r := record{epoch: 4, nodes: map[string]nodeEntry{"b": {Term: 3, Voters: []string{"a", "b"}}}, grants: map[netip.Addr]grant{
		vip4: {holder: "a"}, vip6: {holder: "a", fences: fences}, host4: {holder: "c", fences: fences},
	}}
	b, err := r.marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRecord(b)
	if diff := cmp.Diff(r, got, cmp.AllowUnexported(record{}, grant{}), cmp.Comparer(netipEqual)); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := parseRecord([]byte("{")); err == nil {
		t.Error("half a record is read")
	}
	if r, err := parseRecord(nil); err != nil || len(r.grants) > 0 {
		t.Error("no record is not an empty one")
	}
}

// Two nodes that write at the same time: one of them is refused, and knows it.
func TestLeaseStore(t *testing.T) {
	leases := fake.NewClientset().CoordinationV1().Leases("portico")
	s := &LeaseStore{Leases: leases, Name: "portico-announce", Identity: "a"}
	if body, version, err := s.Get(t.Context()); err != nil || body != nil || version != "" {
		t.Fatalf("none yet: %q %q %v", body, version, err)
	}
	if _, err := s.Put(t.Context(), []byte("one"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), []byte("two"), ""); !errors.Is(err, ErrRefused) {
		t.Errorf("created twice: %v", err)
	}
	if body, _, err := s.Get(t.Context()); err != nil || string(body) != "one" {
		t.Errorf("got %q, %v", body, err)
	}
}
