package announce

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
		"never moved":        {"a", "a", nil, nil, nil},
		"nothing to do with": {"d", "a", []string{"b"}, nil, nil},
		"the holder":         {"a", "a", []string{"b", "c"}, nil, map[netip.Addr]string{addr: "b"}},
		"one before":         {"b", "a", []string{"b", "c"}, nil, map[netip.Addr]string{addr: "c"}},
		"the first":          {"c", "a", []string{"b", "c"}, nil, map[netip.Addr]string{addr: "a"}},
		"one is silent":      {"a", "a", []string{"b", "c"}, map[string]peer{"b": {proven: true, heard: now - time.Second}}, map[netip.Addr]string{addr: "c"}},
		"one has stopped":    {"a", "a", []string{"b"}, map[string]peer{"b": {proven: true, draining: true, heard: now - restartFor}}, map[netip.Addr]string{addr: "b"}},
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
			f.record = record{grants: map[netip.Addr]grant{addr: {holder: c.holder, past: c.past}}}
			if diff := cmp.Diff(c.want, f.Past(now), cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
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
