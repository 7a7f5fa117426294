package ingress

import (
	"time"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// State is what a Controller has live, and what it thinks of it, at one moment.
type State struct {
	// Generation counts the tables, and Table is the live one; nil before the first.
	Generation uint64
	Table      *router.Table
	// Problems are the Source's and our own, in order.
	Problems []manifests.Problem
	// Ready is set once the first complete configuration with its certificates is live, and
	// stays set.
	Ready bool
	// LastChange is when something last went live, CompileDuration how long that took to
	// compile, and Propagation how long it took from the Store.
	LastChange      time.Time
	CompileDuration time.Duration
	Propagation     time.Duration
}

// State returns the present state. It may be called from any goroutine, and costs nothing.
func (c *Controller) State() *State { return c.state.Load() }

// mergeProblems puts the Source's problems and ours in one order.
func mergeProblems(source []manifests.Problem, own []problem) []manifests.Problem {
	all := make([]problem, 0, len(source)+len(own))
	for _, p := range source {
		all = append(all, problem{Problem: p})
	}
	all = append(all, own...)
	if len(source) > 0 {
		sortProblems(all)
	}
	merged := make([]manifests.Problem, len(all))
	for i := range all {
		merged[i] = all[i].Problem
	}
	return merged
}
