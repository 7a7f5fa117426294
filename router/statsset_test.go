package router

import (
	"slices"
	"sync"
	"testing"
)

func TestStatsSetGetMakesStatsOnce(t *testing.T) {
	s, key := NewStatsSet(), StatsKey{Host: "a.example"}
	stats := s.Get(key)
	if s.Get(key) != stats || s.Get(StatsKey{Host: "b.example"}) == stats {
		t.Error("stats are not one a key")
	}
}

func TestStatsSetKeep(t *testing.T) {
	s := NewStatsSet()
	kept, dropped := StatsKey{Host: "a"}, StatsKey{Host: "b"}
	a, b := s.Get(kept), s.Get(dropped)
	s.Keep(map[StatsKey]struct{}{kept: {}})
	b.Observe(0, Observation{Status: 200}) // a request that still holds it
	if s.Get(kept) != a {
		t.Error("what was kept is another")
	}
	if again := s.Get(dropped); again == b || again.Snapshot().Duration.Count() != 0 {
		t.Error("what was dropped came back")
	}
}

func TestStatsSetAllIsSorted(t *testing.T) {
	s := NewStatsSet()
	want := []StatsKey{{"a", "x", "1"}, {"a", "x", "2"}, {"a", "y", "1"}, {"b", "a", "0"}}
	for _, key := range []StatsKey{want[2], want[0], want[3], want[1]} {
		s.Get(key)
	}
	var got []StatsKey
	for key, stats := range s.All() {
		if stats != s.Get(key) {
			t.Errorf("%v: other stats than Get's", key)
		}
		got = append(got, key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for range s.All() {
		break
	}
}

func TestStatsSetConcurrently(_ *testing.T) {
	s := NewStatsSet()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 500 {
				s.Get(StatsKey{Host: string(rune('a' + i))}).Observe(uint32(i), Observation{Status: 200})
				for _, stats := range s.All() {
					_ = stats.Snapshot()
				}
				s.Keep(map[StatsKey]struct{}{{Host: "a"}: {}})
			}
		})
	}
	wg.Wait()
}
