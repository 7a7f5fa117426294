package svcproxy

import (
	"slices"
	"time"
)

// An endpoint that moves from one EndpointSlice to another, or is replaced by one that another
// slice has, is for a moment in none: the slices are written one after the other. Clients would be
// refused by a Service that has never stopped serving. So the last endpoints of a Service port stay
// for a short while when they are taken out of its slices, if they were ready when that was done, and
// until any other can be used.
//
// They do not stay if anything was said of them: not ready, or terminating. An endpoint that was
// terminating before it went is gone indeed, and a Service that is scaled to zero refuses at once.

// past is what a Service was when it was compiled before.
type past struct {
	service *Service // nil: it was not
	now     time.Time
	ports   map[string]*Port // by their Key, from the first question on
}

// hold gives a port that has no usable endpoint those that it had, for as long as Rules.Hold, and
// tells whether it has any now.
func (c *pass) hold(p *Port, usable bool) bool {
	if usable || c.rules.Hold <= 0 {
		return usable
	}
	was := c.past.port(p.Key)
	if was == nil {
		return false
	}
	until := was.heldUntil // does not move
	if until.IsZero() {
		until = c.past.now.Add(c.rules.Hold)
	}
	if !c.past.now.Before(until) {
		return false
	}
	need := policiesOf(p.Frontends)
	for _, e := range was.Endpoints {
		said := slices.ContainsFunc(p.Endpoints, func(now Endpoint) bool { return now.Addr == e.Addr })
		if said || e.Terminating || !e.Ready && e.Why != ReasonHeld {
			continue
		}
		e.Ready, e.Why, e.Cluster, e.ForLocal = false, ReasonHeld, need.cluster && e.Cluster, need.local && e.ForLocal
		if e.Cluster || e.ForLocal {
			p.Endpoints = append(p.Endpoints, e)
			p.heldUntil = until
			usable = true
		}
	}
	slices.SortFunc(p.Endpoints, func(a, b Endpoint) int { return a.Addr.Compare(b.Addr) })
	return usable
}

// port is what the port of that key was; nil: there was none.
func (p *past) port(key string) *Port {
	if p.ports == nil {
		p.ports = map[string]*Port{}
		for _, was := range portsOf(p.service) {
			p.ports[was.Key] = was
		}
	}
	return p.ports[key]
}

// heldUntil is when the first endpoints of the Service that are held are let go; zero: there are none.
func (s *Service) heldUntil() (first time.Time) {
	for _, p := range s.Ports {
		first = earlier(first, p.heldUntil)
	}
	return first
}

// letGo compiles the Services whose endpoints have been held long enough.
func (c *compiler) letGo() Delta {
	now, over := c.now(), map[string]struct{}{}
	for key, until := range c.held {
		if !now.Before(until) {
			over[key] = struct{}{}
		}
	}
	return c.compile(over)
}

// nextLetGo is when to letGo; zero: nothing is held.
func (c *compiler) nextLetGo() (next time.Time) {
	for _, until := range c.held {
		next = earlier(next, until)
	}
	return next
}

// earlier is the first of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
