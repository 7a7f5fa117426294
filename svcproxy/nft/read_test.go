package nft

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What was applied is read back, and what somebody broke is seen.
func TestReadBack(t *testing.T) {
	l, all := servers(t)
	p := newPlane(t, l.Nodes[0], Config{})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	want := map[netip.AddrPort]Live{}
	for _, s := range all {
		for _, f := range s.Frontends {
			want[netip.AddrPortFrom(f.Addr, f.Port+uint16(s.Protocol))] = Live{
				Protocol: s.Protocol, IPv6: s.IPv6, Frontend: f, Cluster: s.Cluster, Local: s.Local, Affinity: s.Affinity,
			}
		}
	}
	got, err := p.Read()
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d frontends, want %d: %v", len(got), len(want), err)
	}
	same := cmp.Options{cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
	for _, g := range got {
		w := want[netip.AddrPortFrom(g.Frontend.Addr, g.Frontend.Port+uint16(g.Protocol))]
		if diff := cmp.Diff(w, g, same); diff != "" {
			t.Error(diff)
		}
	}
	foreign(t, l.Nodes[0], "flush map inet portico-a members4")
	got, err = p.Read()
	if err != nil || !slices.ContainsFunc(got, func(g Live) bool { return g.Affinity == time.Hour && g.Broken == "an endpoint is missing" }) {
		t.Errorf("%+v %v", got, err)
	}
}

// A client is remembered for as long as was said, and not longer.
func TestAffinityEnds(t *testing.T) {
	l, all := servers(t)
	affine := all[2]
	affine.Affinity = time.Second
	p := newPlane(t, l.Nodes[0], Config{})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	seen := map[string]bool{}
	for deadline := time.Now().Add(20 * time.Second); len(seen) < 2 && time.Now().Before(deadline); {
		a, err := l.Client.AskPatiently(t, "tcp", ap("172.30.0.1:81"))
		if err != nil {
			t.Fatal(err)
		}
		seen[a.Server] = true
		time.Sleep(1100 * time.Millisecond) // the kernel's clock
	}
	if len(seen) < 2 {
		t.Error("always the same, long after the affinity has ended")
	}
}
