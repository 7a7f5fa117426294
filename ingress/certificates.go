package ingress

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
)

// tlsHost is a host pattern that tls sections name, and the certificates live for it.
type tlsHost struct {
	uses  []tlsUse // in order of precedence
	certs []*certs.Certificate
}

// tlsUse is one tls section that names the host.
type tlsUse struct {
	by      *ingressState
	section *tlsSpec
}

func compareUses(a, b tlsUse) int {
	if d := compareIngresses(a.by, b.by); d != 0 {
		return d
	}
	return a.section.index - b.section.index
}

func (st *ingressState) secret(t *tlsSpec) types.NamespacedName {
	return types.NamespacedName{Namespace: st.object.Namespace, Name: t.secret}
}

func secretRef(name types.NamespacedName) manifests.Ref {
	return manifests.Ref{Kind: manifests.KindSecret, Namespace: name.Namespace, Name: name.Name}
}

func (c *compiler) useTLS(st *ingressState) {
	for i := range st.spec.tls {
		t := &st.spec.tls[i]
		if t.secret != "" {
			c.useSecret(st, t)
		}
		for _, host := range t.hosts {
			c.touchTLS(host)
			h := c.tlsHosts[host]
			if h == nil {
				h = &tlsHost{}
				c.tlsHosts[host] = h
			}
			use := tlsUse{st, t}
			at, found := slices.BinarySearchFunc(h.uses, use, compareUses)
			if found && h.uses[at] == use {
				continue // the section names the host twice
			}
			h.uses = slices.Insert(h.uses, at, use)
		}
	}
}

func (c *compiler) releaseTLS(st *ingressState) {
	for i := range st.spec.tls {
		t := &st.spec.tls[i]
		if t.secret != "" {
			c.releaseSecret(st, t)
		}
		for _, host := range t.hosts {
			c.touchTLS(host)
			h := c.tlsHosts[host]
			h.uses = slices.DeleteFunc(h.uses, func(u tlsUse) bool { return u.by == st && u.section == t })
		}
	}
}

func (c *compiler) useSecret(st *ingressState, t *tlsSpec) {
	name := st.secret(t)
	s := c.secrets[name]
	if s == nil {
		s = &secretState{}
		c.secrets[name] = s
		c.wants = true
	}
	if !slices.Contains(s.users, st) {
		s.users = append(s.users, st)
	}
	c.judgeFirst(name, s)
}

func (c *compiler) releaseSecret(st *ingressState, t *tlsSpec) {
	name := st.secret(t)
	s := c.secrets[name]
	if s == nil {
		return
	}
	if i := slices.Index(s.users, st); i >= 0 {
		s.users = slices.Delete(s.users, i, i+1)
	}
	if len(s.users) == 0 && !s.permanent {
		delete(c.secrets, name)
		c.wants = true
	}
}

// judgeSecret parses a Secret, if it is known whether it exists.
func (c *compiler) judgeSecret(name types.NamespacedName, s *secretState) (changed bool) {
	if c.waiting.has(secretRef(name), c.now()) {
		return false
	}
	return s.judge(name.String(), c.objects.Secret(name.Namespace, name.Name))
}

// judgeFirst parses a Secret that has not been looked at. A later version is left to
// noteSecret.
func (c *compiler) judgeFirst(name types.NamespacedName, s *secretState) {
	if !s.judged {
		c.refreshSecret(name, s)
	}
}

// noteSecret reads a Secret that was put or deleted, or is not pending any more.
func (c *compiler) noteSecret(name types.NamespacedName) {
	if name == c.settings.defaultCertificate {
		c.dirty.certificates = true
	}
	if s := c.secrets[name]; s != nil {
		c.refreshSecret(name, s)
	}
}

// refreshSecret tells all users of a Secret what it comes to now, if that is new.
func (c *compiler) refreshSecret(name types.NamespacedName, s *secretState) {
	if !c.judgeSecret(name, s) {
		return
	}
	for _, st := range s.users {
		for i := range st.spec.tls {
			if t := &st.spec.tls[i]; t.secret == name.Name {
				c.touchHosts(t.hosts)
			}
		}
		c.setTLSProblems(st)
	}
}

func (c *compiler) touchHosts(hosts []string) {
	for _, host := range hosts {
		c.touchTLS(host)
	}
}

// noteImpatience reads the Secrets that are not waited for any longer.
func (c *compiler) noteImpatience() {
	for ref := range c.waiting.since {
		if ref.Kind == manifests.KindSecret && !c.waiting.has(ref, c.now()) {
			c.noteSecret(nameOf(ref))
		}
	}
}

// touchTLS marks a TLS host, and remembers whether it had TLS before.
func (c *compiler) touchTLS(host string) {
	c.dirty.tlsHosts[host] = struct{}{}
	if _, ok := c.dirty.covered[host]; !ok {
		c.dirty.covered[host] = c.isTLSHost(host)
	}
}

// noteCoverage marks the hosts that begin or end to have TLS: their routes redirect, or no
// longer do.
func (c *compiler) noteCoverage() {
	for host, before := range c.dirty.covered {
		if c.isTLSHost(host) == before {
			continue
		}
		if c.hosts[host] != nil {
			c.dirty.hosts[host] = struct{}{}
		}
		if host == "" {
			c.dirty.fallback = true
		}
		if strings.HasPrefix(host, "*.") {
			c.markUnder(host)
		}
	}
	clear(c.dirty.covered)
}

func (c *compiler) markUnder(wildcard string) {
	for name := range c.hosts {
		if parentOf(name) == wildcard {
			c.dirty.hosts[name] = struct{}{}
		}
	}
}

func (c *compiler) isTLSHost(host string) bool {
	h := c.tlsHosts[host]
	return h != nil && len(h.uses) > 0
}

// hasTLS tells whether a tls section covers a host, itself or by its wildcard.
func (c *compiler) hasTLS(host string) bool {
	return c.isTLSHost(host) || c.isTLSHost(parentOf(host)) && parentOf(host) != ""
}

// isWaiting tells whether a host has to stay as it is, because it is not known yet whether a
// Secret that its TLS needs exists.
func (c *compiler) isWaiting(host string) bool {
	if len(c.waiting.since) == 0 {
		return false
	}
	if c.usesWait(host) {
		return true
	}
	parent := parentOf(host)
	return parent != "" && c.usesWait(parent)
}

func (c *compiler) usesWait(host string) bool {
	h := c.tlsHosts[host]
	if h == nil {
		return false
	}
	return slices.ContainsFunc(h.uses, func(u tlsUse) bool {
		return u.section.secret != "" && c.waiting.has(secretRef(u.by.secret(u.section)), c.now())
	})
}

// buildCertificates makes the Set anew if a host has other certificates than before.
func (c *compiler) buildCertificates() (changed bool) {
	for host := range c.dirty.tlsHosts {
		if c.usesWait(host) {
			continue
		}
		delete(c.dirty.tlsHosts, host)
		if c.buildTLSHost(host) {
			changed = true
		}
	}
	if c.dirty.certificates {
		c.dirty.certificates = false
		changed = c.buildFallbackCertificate() || changed
	}
	if changed || c.set == nil {
		c.set = certs.NewSet(c.defaultCertificate(), c.entries())
		return true
	}
	return false
}

func (c *compiler) buildTLSHost(host string) (changed bool) {
	h := c.tlsHosts[host]
	if h == nil {
		return false
	}
	var next []*certs.Certificate
	for _, u := range h.uses {
		if cert := c.certificateFor(host, u); cert != nil && !slices.Contains(next, cert) {
			next = append(next, cert)
		}
	}
	changed = !slices.Equal(h.certs, next)
	h.certs = next
	if len(h.uses) == 0 {
		delete(c.tlsHosts, host)
	}
	return changed
}

func (c *compiler) certificateFor(host string, u tlsUse) *certs.Certificate {
	if u.section.secret == "" {
		return nil
	}
	s := c.secrets[u.by.secret(u.section)]
	if host == "" && s != nil {
		return s.cert // for the names it has
	}
	return s.usableFor(host)
}

// entries are all hosts with their certificates. Those of rules without host come last: they
// are served for their own names, where no host says otherwise.
func (c *compiler) entries() []certs.Entry {
	all := make([]certs.Entry, 0, len(c.tlsHosts)+1)
	for host, h := range c.tlsHosts {
		if host != "" && len(h.certs) > 0 {
			all = append(all, certs.Entry{Host: host, Certificates: h.certs})
		}
	}
	if h := c.tlsHosts[""]; h != nil {
		for _, cert := range h.certs {
			for _, name := range cert.Names() {
				all = append(all, certs.Entry{Host: name, Certificates: []*certs.Certificate{cert}})
			}
		}
	}
	return all
}

func (c *compiler) defaultCertificate() *certs.Certificate {
	if c.chosen != nil {
		return c.chosen
	}
	return c.common
}

// buildFallbackCertificate reads the default certificate of the settings. A Secret that is
// broken leaves none, rather than one that the user has taken back.
func (c *compiler) buildFallbackCertificate() (changed bool) {
	name := c.settings.defaultCertificate
	if name.Name == "" {
		return false
	}
	if c.waiting.has(secretRef(name), c.now()) {
		c.dirty.certificates = true // again
		return false
	}
	s := c.secrets[name]
	c.judgeFirst(name, s)
	changed = c.chosen != s.cert
	c.chosen = s.cert
	c.setDefaultCertificateProblems()
	return changed
}

func (c *compiler) setDefaultCertificateProblems() {
	name := c.settings.defaultCertificate
	s := c.secrets[name]
	if s == nil || !s.judged {
		return
	}
	about := func(reason, text string) problem {
		return problem{reason: reason, Problem: manifests.Problem{Object: secretRef(name), Text: text}}
	}
	var all []problem
	if s.cert == nil {
		all = append(all, about(s.reason, strings.Replace(s.text, "the default certificate is served",
			"it is the default certificate (--default-ssl-certificate), so a self-signed one is served", 1)))
	} else {
		for _, text := range certificateWarnings(s.cert, c.now()) {
			all = append(all, about(reasonExpiry, "it is the default certificate (--default-ssl-certificate), and "+text))
		}
	}
	c.problems.set(ofGlobal, "default certificate", all)
}

// setTLSProblems tells about the Secrets and certificates of an Ingress.
func (c *compiler) setTLSProblems(st *ingressState) {
	if st.spec == nil {
		c.problems.set(ofTLS, st.key, nil)
		return
	}
	var all []problem
	for i := range st.spec.tls {
		t := &st.spec.tls[i]
		if t.secret != "" {
			all = append(all, tlsProblems(st.object, t, c.secrets[st.secret(t)], c.now())...)
		}
	}
	c.problems.set(ofTLS, st.key, all)
}

// noteTime looks at the dates of all certificates again.
func (c *compiler) noteTime() {
	for _, st := range c.ingresses {
		c.setTLSProblems(st)
	}
	c.setDefaultCertificateProblems()
}
