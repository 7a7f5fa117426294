package router

import (
	"fmt"
	"time"
)

// Ejection takes endpoints out that answer badly several times in a row: with 5xx, too late,
// not at all, or not in HTTP. Its zero value takes none out.
//
// It does not concern endpoints that cannot be connected to: those are left alone for
// moments (see Endpoint.Fail), and no request reaches them anyway.
type Ejection struct {
	// Consecutive is how many bad answers in a row it takes. 0: it is off.
	Consecutive int
	// Base is how long the first absence is; each that follows is twice as long, up to Max.
	// A quarter of jitter goes with it. Defaults 30 s and 5 min.
	Base, Max time.Duration
	// MaxPercent is how much of the backend may be out, for whatever reason, with the one that
	// is ejected. Default 50: one of two or three may, the only one never.
	MaxPercent int
}

func (j Ejection) withDefaults() Ejection {
	if j.Base == 0 {
		j.Base = 30 * time.Second
	}
	if j.Max == 0 {
		j.Max = max(5*time.Minute, j.Base)
	}
	if j.MaxPercent == 0 {
		j.MaxPercent = 50
	}
	return j
}

// String tells all that holds.
func (j Ejection) String() string {
	j = j.withDefaults()
	return fmt.Sprintf("%d,%s-%s,max=%d%%", j.Consecutive, j.Base, j.Max, j.MaxPercent)
}

// judge counts an answer, or the lack of one.
func (b *Backend) judge(e *Endpoint, j *Ejection, bad bool, now time.Time) {
	switch {
	case !bad:
		if e.errors.Load() != 0 {
			e.errors.Store(0)
		}
	case e.errors.Add(1) >= uint32(j.Consecutive):
		e.errors.Store(0)
		b.eject(e, j.withDefaults(), now)
	}
}

// eject takes e out, unless too many are. One at a time: two that were judged at once must
// not both be the last one allowed.
func (b *Backend) eject(e *Endpoint, j Ejection, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, at := absence(e.out.Load()), sinceStart(now)
	if !before.over(at) {
		return
	}
	endpoints := b.Endpoints()
	out := 1
	for _, other := range endpoints {
		if other != e && other.Down(now) {
			out++
		}
	}
	if out*100 > j.MaxPercent*len(endpoints) {
		b.counts.spared.Add(1)
		return
	}
	// Who has behaved for as long as the longest absence starts anew.
	if at-e.back.Load() > int64(j.Max) {
		e.ejections.Store(0)
	}
	d := spread(doubled(j.Base, e.ejections.Load(), j.Max))
	if e.out.CompareAndSwap(int64(before), int64(absentUntil(at+int64(d), ejected))) {
		e.ejections.Add(1)
		e.back.Store(at + int64(d))
		b.counts.ejections.Add(1)
	}
}
