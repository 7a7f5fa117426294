package ingress

import (
	"strings"
)

// A host belongs to the namespace of the oldest Ingress with a rule for it, an exact host
// below a wildcard without a rule of its own to that of the wildcard. Only tls sections of
// that namespace give it certificates and redirects: who may write Ingresses in one namespace
// must not speak for the hosts of another.

// owner is the oldest Ingress with a rule for a host pattern, or nil.
func (c *compiler) owner(host string) *ingressState {
	if h := c.hosts[host]; h != nil && len(h.askers) > 0 {
		return h.askers[0]
	}
	return nil
}

// authority is the Ingress whose namespace may have TLS for a host, and the pattern of its
// rule that says so. For a name without any rule (those of Ingresses that answer for every
// host) it is the oldest that names it in tls, and there is no pattern. It is nil for what
// nobody names.
func (c *compiler) authority(host string) (st *ingressState, pattern string, byRule bool) {
	if st := c.owner(host); st != nil {
		return st, host, true
	}
	if parent := parentOf(host); parent != host && parent != "" {
		if st := c.owner(parent); st != nil {
			return st, parent, true
		}
	}
	if h := c.tlsHosts[host]; h != nil && len(h.uses) > 0 {
		return h.uses[0].by, "", false
	}
	return nil, "", false
}

// coverage is what other decisions depend on about the TLS of a host.
type coverage struct {
	authority string // a namespace, "" if nobody has it
	tls       bool   // whether a section of that namespace is for the host
}

func (c *compiler) coverage(host string) coverage {
	st, _, _ := c.authority(host)
	if st == nil {
		return coverage{}
	}
	cov := coverage{authority: st.object.Namespace}
	if h := c.tlsHosts[host]; h != nil {
		for _, u := range h.uses {
			if u.by.object.Namespace == cov.authority {
				cov.tls = true
				break
			}
		}
	}
	return cov
}

// mayUse tells whether the tls sections of an Ingress count for a host.
func (c *compiler) mayUse(st *ingressState, host string) bool {
	a, _, _ := c.authority(host)
	return a != nil && a.object.Namespace == st.object.Namespace
}

// hasTLS tells whether routes of a host redirect: a tls section is for it, or one of its
// owner is for its wildcard.
func (c *compiler) hasTLS(host string) bool {
	if c.coverage(host).tls {
		return true
	}
	parent := parentOf(host)
	if parent == "" || parent == host {
		return false
	}
	own, above := c.owner(host), c.coverage(parent)
	return above.tls && (own == nil || own.object.Namespace == above.authority)
}

// touch remembers what is true of a host, and of those that lie below it, before something
// changes about who has rules or tls for it. noteCoverage compares.
func (c *compiler) touch(host string) {
	if _, ok := c.dirty.covered[host]; ok {
		return
	}
	c.dirty.covered[host] = c.coverage(host)
	if !isWildcard(host) {
		return
	}
	for name := range c.below[host[1:]] {
		if _, ok := c.dirty.covered[name]; !ok {
			c.dirty.covered[name] = c.coverage(name)
		}
	}
}

// noteCoverage marks what the touched hosts may have changed.
func (c *compiler) noteCoverage() {
	if len(c.dirty.covered) > 0 && c.tlsHosts[""] != nil {
		c.dirty.tlsHosts[""] = struct{}{} // its certificates are for names without a rule
	}
	for host, before := range c.dirty.covered {
		h := c.tlsHosts[host]
		if h != nil {
			c.dirty.tlsHosts[host] = struct{}{}
		}
		if suffixOf(host) != "" {
			c.dirty.shields[host] = struct{}{}
		}
		now := c.coverage(host)
		if now.tls != before.tls || now.tls && now.authority != before.authority {
			c.markRedirects(host)
		}
		if now.authority != before.authority && h != nil {
			c.markAbove(host, h)
		}
	}
	clear(c.dirty.covered)
}

func (c *compiler) markHost(host string) {
	if c.hosts[host] != nil {
		c.dirty.hosts[host] = struct{}{}
	}
}

// markRedirects marks the routes that redirect if a host has TLS.
func (c *compiler) markRedirects(host string) {
	c.markHost(host)
	if host == "" {
		c.dirty.fallback = true
	}
	if isWildcard(host) {
		for name := range c.below[host[1:]] {
			c.markHost(name)
		}
	}
}

// markAbove marks the routes that redirect for some names only, this one among them.
func (c *compiler) markAbove(host string, h *tlsHost) {
	c.markHost(parentOf(host))
	for _, u := range h.uses {
		if u.by.spec.any {
			c.markHost("")
			c.dirty.fallback = true
			return
		}
	}
}

// addName and dropName keep the index of the exact names below each wildcard: those with
// rules, or tls.
func (c *compiler) addName(host string) {
	suffix := suffixOf(host)
	if suffix == "" {
		return
	}
	names := c.below[suffix]
	if names == nil {
		names = make(map[string]struct{}, 1)
		c.below[suffix] = names
	}
	names[host] = struct{}{}
}

func (c *compiler) dropName(host string) {
	if c.hosts[host] != nil || c.tlsHosts[host] != nil {
		return
	}
	suffix := suffixOf(host)
	delete(c.below[suffix], host)
	if len(c.below[suffix]) == 0 {
		delete(c.below, suffix)
	}
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*.") }

// suffixOf is what an exact host has after its first label, dot included; "" for others.
func suffixOf(host string) string {
	if i := strings.IndexByte(host, '.'); i > 0 && host[0] != '*' {
		return host[i:]
	}
	return ""
}

// parentOf is the wildcard that a host lies under. That of a wildcard is itself.
func parentOf(host string) string {
	if i := strings.IndexByte(host, '.'); i > 0 {
		return "*" + host[i:]
	}
	return ""
}
