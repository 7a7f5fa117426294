package ingress

import (
	"cmp"
	"maps"
	"slices"

	"github.com/portico-ingress/portico/router"
)

// countCheck keeps the check of a backend to what the routes that lead there ask for. They
// are all of one namespace. If they ask for different ones, the most frequent counts: a
// backend has one state, whatever way a request comes.
func (c *compiler) countCheck(r *router.Route, n int) {
	if r.Backend == nil || r.Policy == nil || r.Policy.Check.Kind == router.CheckOff {
		return
	}
	name := r.Backend.Name()
	asked := c.checks[name]
	if asked == nil {
		asked = make(map[router.HealthCheck]int, 1)
		c.checks[name] = asked
	}
	if asked[r.Policy.Check] += n; asked[r.Policy.Check] == 0 {
		delete(asked, r.Policy.Check)
	}
	if len(asked) == 0 {
		delete(c.checks, name)
	}
	c.dirty.checks[name] = struct{}{}
}

// setChecks tells the backends whose check may have changed. It comes after all routes are
// made: one that goes and comes again must not stop the checks.
func (c *compiler) setChecks() {
	for name := range c.dirty.checks {
		c.backends.SetCheck(name, chosenCheck(c.checks[name]))
	}
	clear(c.dirty.checks)
}

func chosenCheck(asked map[router.HealthCheck]int) router.HealthCheck {
	if len(asked) == 0 {
		return router.HealthCheck{}
	}
	return slices.MinFunc(slices.Collect(maps.Keys(asked)), func(a, b router.HealthCheck) int {
		return cmp.Or(cmp.Compare(a.Every(), b.Every()), cmp.Compare(a.String(), b.String()))
	})
}
