package svcproxy

import "time"

const (
	// paceFirst and paceMost are the least and the most time between two takings of changes that follow each other.
	paceFirst = 5 * time.Millisecond
	paceMost  = 40 * time.Millisecond
)

// pace says when to take what has changed. One change alone is taken at once; of a stream of them,
// as when a folder of Services is applied, those that come within a pause are taken together, which
// costs a fraction for each. The pause doubles when that brings more than one, and halves when it does not.
type pace struct {
	pause time.Duration
	ended time.Time // the last taking
}

// wait is how long what has changed by now has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	left := p.pause - now.Sub(p.ended)
	if left <= 0 {
		p.pause = 0
	}
	return max(left, 0)
}

// took says that a taking ended, of so many changes.
func (p *pace) took(changes int, now time.Time) {
	p.ended = now
	if changes < 2 {
		p.pause /= 2
	} else {
		p.pause *= 2
	}
	p.pause = min(max(p.pause, paceFirst), paceMost)
}
