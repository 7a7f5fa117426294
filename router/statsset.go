package router

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync"
)

// StatsSet holds the Stats of all routes by their key. They outlive tables, so a counter
// goes on through every change of configuration that keeps its key. It is safe for any
// number of goroutines; requests do not come here, they hold their *Stats.
type StatsSet struct {
	mu    sync.Mutex
	byKey map[StatsKey]*Stats
}

// NewStatsSet returns an empty set.
func NewStatsSet() *StatsSet { return &StatsSet{byKey: map[StatsKey]*Stats{}} }

// Get returns the Stats of a key. It is made on first use.
func (s *StatsSet) Get(key StatsKey) *Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.byKey[key]
	if stats == nil {
		stats = new(Stats)
		s.byKey[key] = stats
	}
	return stats
}

// Keep drops all Stats but those of these keys. Requests that still hold a dropped one
// count into it, and nobody reads that.
func (s *StatsSet) Keep(keys map[StatsKey]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.byKey, func(key StatsKey, _ *Stats) bool {
		_, keep := keys[key]
		return !keep
	})
}

// All yields the Stats sorted by key, as the set was when it began. It holds up nobody
// while it yields.
func (s *StatsSet) All() iter.Seq2[StatsKey, *Stats] {
	return func(yield func(StatsKey, *Stats) bool) {
		all := s.copy()
		for _, key := range slices.SortedFunc(maps.Keys(all), compareKeys) {
			if !yield(key, all[key]) {
				return
			}
		}
	}
}

func (s *StatsSet) copy() map[StatsKey]*Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.byKey)
}

func compareKeys(a, b StatsKey) int {
	return cmp.Or(
		cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Origin, b.Origin),
		cmp.Compare(a.Service, b.Service),
	)
}
