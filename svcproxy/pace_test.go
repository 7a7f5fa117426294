package svcproxy

import (
	"testing"
	"time"
)

// One change after another is taken at once, or after paceFirst; a stream of them ever more rarely, until it ends.
func TestPace(t *testing.T) {
	const ms = time.Millisecond
	now := time.Time{}.Add(time.Hour)
	var p pace
	for i, c := range []struct {
		after   time.Duration // the last taking
		wait    time.Duration
		changes int
	}{
		{0, 0, 1},
		{0, paceFirst, 1},             // while the last one was taken
		{3 * ms, paceFirst - 3*ms, 1}, // one by one
		{0, paceFirst, 7},             // a stream
		{ms, 2*paceFirst - ms, 2},
		{0, 4 * paceFirst, 30},
		{0, paceMost, 40},
		{0, paceMost, 1}, // it has a gap
		{0, paceMost / 2, 2},
		{paceMost, 0, 1}, // it has ended
		{0, paceFirst, 9},
		{0, 2 * paceFirst, 1}, // waiting brought nothing
		{0, paceFirst, 0},
		{0, paceFirst, 1},
		{time.Hour, 0, 5000}, // all at once
		{0, paceFirst, 1},
	} {
		now = now.Add(c.after)
		got := p.wait(now)
		if got != c.wait {
			t.Errorf("step %d: wait %v, want %v", i, got, c.wait)
		}
		now = now.Add(got)
		p.took(c.changes, now)
	}
}
