package ingress

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
)

// tlsHost is a host pattern that tls sections are for, and the certificates live for it.
type tlsHost struct {
	uses  []tlsUse // in order of precedence, those that do not count included
	certs []*certs.Certificate
	// entries are, for rules without host, the names that its certificates are served for.
	entries []certs.Entry
}

// tlsUse is one tls section that is for the host.
type tlsUse struct {
	by      *ingressState
	section *tlsSpec
	name    tlsName
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
			c.useSecret(st, st.secret(t))
		}
		for _, n := range t.names {
			c.touch(n.host)
			c.dirty.tlsHosts[n.host] = struct{}{}
			h := c.tlsHosts[n.host]
			if h == nil {
				h = &tlsHost{}
				c.tlsHosts[n.host] = h
				c.addName(n.host)
			}
			use := tlsUse{st, t, n}
			at, _ := slices.BinarySearchFunc(h.uses, use, compareUses)
			h.uses = slices.Insert(h.uses, at, use)
		}
	}
}

func (c *compiler) releaseTLS(st *ingressState) {
	for i := range st.spec.tls {
		t := &st.spec.tls[i]
		if t.secret != "" {
			c.releaseSecret(st, st.secret(t))
		}
		for _, n := range t.names {
			c.touch(n.host)
			c.dirty.tlsHosts[n.host] = struct{}{}
			h := c.tlsHosts[n.host]
			h.uses = slices.DeleteFunc(h.uses, func(u tlsUse) bool { return u.by == st && u.section == t })
		}
	}
}

func (c *compiler) useSecret(st *ingressState, name types.NamespacedName) {
	s := c.secrets[name]
	if s == nil {
		s = &secretState{}
		c.secrets[name] = s
		c.wants = true
	}
	if !slices.Contains(s.users, st) {
		s.users = append(s.users, st)
	}
	if !s.judged {
		c.unjudged = append(c.unjudged, name)
	}
}

// judgeRest parses the Secrets that have become wanted, once the Source has been asked for
// them: before that, one that is not there may only not have been fetched.
func (c *compiler) judgeRest() {
	for _, name := range c.unjudged {
		if s := c.secrets[name]; s != nil {
			c.judgeFirst(name, s)
		}
	}
	c.unjudged = c.unjudged[:0]
}

func (c *compiler) releaseSecret(st *ingressState, name types.NamespacedName) {
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
	c.noteUpstreamSecret(name)
}

// refreshSecret tells all users of a Secret what it comes to now, if that is new.
func (c *compiler) refreshSecret(name types.NamespacedName, s *secretState) {
	if !c.judgeSecret(name, s) {
		return
	}
	for _, st := range s.users {
		for i := range st.spec.tls {
			if t := &st.spec.tls[i]; t.secret == name.Name {
				for _, n := range t.names {
					c.dirty.tlsHosts[n.host] = struct{}{}
				}
			}
		}
		if st.clientAuthSecret() == name {
			c.markClientAuth(st)
		}
		c.setTLSProblems(st)
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

// isWaiting tells whether a host has to stay as it is, because it is not known yet whether a
// Secret that its TLS needs exists.
func (c *compiler) isWaiting(host string) bool {
	if len(c.waiting.since) == 0 {
		return false
	}
	if c.usesWait(host) || c.clientAuthWaits(host) || c.upstreamsWait(host) {
		return true
	}
	parent, own := parentOf(host), c.owner(host)
	return parent != "" && own != nil && c.mayUse(own, parent) && c.usesWait(parent)
}

func (c *compiler) usesWait(host string) bool {
	h := c.tlsHosts[host]
	if h == nil {
		return false
	}
	return slices.ContainsFunc(h.uses, func(u tlsUse) bool {
		return c.mayUse(u.by, host) && u.section.secret != "" && c.waiting.has(secretRef(u.by.secret(u.section)), c.now())
	})
}

// buildCertificates makes the Set anew if a host has other certificates than before.
func (c *compiler) buildCertificates() (changed bool) {
	changed = c.judgeHosts()
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
	changed = c.guards.stale(c, c.dirty.shields) || changed
	clear(c.dirty.shields)
	if changed || c.set == nil {
		c.set = certs.NewSet(c.defaultCertificate(), c.entries()).WithPolicies(c.policies())
		return true
	}
	return false
}

func (c *compiler) buildTLSHost(host string) (changed bool) {
	h := c.tlsHosts[host]
	if h == nil {
		return false
	}
	m := tlsMaker{compiler: c, host: host}
	m.authority, m.pattern, m.byRule = c.authority(host)
	for _, u := range h.uses {
		if !u.name.standIn {
			m.ask(u)
		}
	}
	if len(m.certs) == 0 {
		m.askStandIns(h.uses)
	}
	var entries []certs.Entry
	if host == "" {
		entries = c.namedEntries(m.certs)
	}
	changed = !slices.Equal(h.certs, m.certs) || !slices.EqualFunc(h.entries, entries, sameEntry)
	h.certs, h.entries = m.certs, entries
	c.problems.set(ofTLSHost, host, m.problems)
	if len(h.uses) == 0 {
		delete(c.tlsHosts, host)
		c.dropName(host)
	}
	return changed
}

func sameEntry(a, b certs.Entry) bool {
	return a.Host == b.Host && slices.Equal(a.Certificates, b.Certificates)
}

// tlsMaker collects the certificates of one host. It is asked in order of precedence.
type tlsMaker struct {
	*compiler
	host string
	// authority is the Ingress whose namespace counts, by its rule for pattern.
	authority *ingressState
	pattern   string
	byRule    bool
	byType    map[string]tlsUse // by key type
	certs     []*certs.Certificate
	problems  []problem
}

// askStandIns asks the wildcard sections, where the host has no certificate of its own.
func (m *tlsMaker) askStandIns(uses []tlsUse) {
	for _, u := range uses {
		if u.name.standIn {
			m.ask(u)
		}
	}
}

func (m *tlsMaker) ask(u tlsUse) {
	if m.authority.object.Namespace != u.by.object.Namespace {
		m.notOurs(u)
		return
	}
	s := m.secrets[u.by.secret(u.section)]
	if u.section.secret == "" || s == nil || s.cert == nil || slices.Contains(m.certs, s.cert) {
		return
	}
	if m.host == "" { // for the names it has
		m.certs = append(m.certs, s.cert)
		return
	}
	// One that does not cover the host is not served there, because a client that refuses it
	// would refuse the default one no worse.
	if !s.cert.Covers(m.host) {
		m.problem(u, reasonCertificate, u.section.secretField(),
			"the certificate of Secret %s is for %s and not for %s: the default certificate is served there; issue it for that host, too",
			s.cert.Name, listNames(s.cert.Names()), m.host)
		return
	}
	first, taken := m.byType[s.cert.KeyType()]
	if !taken {
		if m.byType == nil {
			m.byType = make(map[string]tlsUse, 1)
		}
		m.byType[s.cert.KeyType()] = u
		m.certs = append(m.certs, s.cert)
		return
	}
	why := "stands before this one"
	if first.by != u.by {
		why = "is of Ingress " + first.by.key + ", which " + whyFirst(first.by, u.by)
	}
	m.problem(u, reasonNeverServed, u.section.secretField(),
		"the certificate of Secret %s is not served for %s, because that of %s has the same key type (%s) and %s; remove one of the two",
		s.cert.Name, hostWords(m.host), first.by.secret(first.section), s.cert.KeyType(), why)
}

// notOurs tells that the host belongs to somebody else.
func (m *tlsMaker) notOurs(u tlsUse) {
	owner, claim := m.authority, "the oldest that names it"
	if m.byRule {
		claim = "the oldest with a rule for " + hostWords(m.pattern)
	}
	m.problem(u, reasonTLSHost, u.section.field(u.name),
		"%s belongs to namespace %s (Ingress %s is %s), so here it gets neither a certificate nor a redirect; set up TLS there, or use a host of your own",
		hostWords(m.host), owner.object.Namespace, owner.key, claim)
}

func hostWords(host string) string {
	if host == "" {
		return "what has no host"
	}
	return "host " + host
}

func (m *tlsMaker) problem(u tlsUse, reason, field, format string, args ...any) {
	m.problems = append(m.problems, problem{reason: reason, Problem: manifests.Problem{
		Object: refOf(u.by.object), Field: field, Text: fmt.Sprintf(format, args...),
	}})
}

// namedEntries are the names of certificates of rules without host, without those that
// belong to somebody else.
func (c *compiler) namedEntries(all []*certs.Certificate) []certs.Entry {
	var entries []certs.Entry
	for _, cert := range all {
		for _, name := range cert.Names() {
			host, err := normalHost(name)
			if err != nil {
				continue
			}
			if st, _, _ := c.authority(host); st == nil || st.object.Namespace == namespaceOf(cert) {
				entries = append(entries, certs.Entry{Host: host, Certificates: []*certs.Certificate{cert}})
			}
		}
	}
	return entries
}

func namespaceOf(cert *certs.Certificate) string {
	ns, _, _ := strings.Cut(cert.Name, "/")
	return ns
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
		all = append(all, h.entries...)
	}
	c.guards = guardsFor(c, all)
	for host := range c.guards.shields {
		all = append(all, certs.Entry{Host: host, Certificates: []*certs.Certificate{c.defaultCertificate()}})
	}
	return all
}

// guards keep wildcard certificates from the hosts below that belong to other namespaces and
// have no certificate: those get the default one by name.
type guards struct {
	wildcards map[string]string   // the namespace of the certificates of each, by suffix
	shields   map[string]struct{} // the hosts that are kept from them
}

func guardsFor(c *compiler, entries []certs.Entry) guards {
	g := guards{wildcards: map[string]string{}, shields: map[string]struct{}{}}
	for i := range entries {
		if host := entries[i].Host; isWildcard(host) {
			g.wildcards[host[1:]] = namespaceOf(entries[i].Certificates[0])
		}
	}
	for suffix := range g.wildcards {
		for host := range c.below[suffix] {
			if g.needs(c, host) {
				g.shields[host] = struct{}{}
			}
		}
	}
	return g
}

// needs tells whether a host has to be kept from the wildcard above it.
func (g *guards) needs(c *compiler, host string) bool {
	ns, wild := g.wildcards[suffixOf(host)]
	owner := c.owner(host)
	if !wild || owner == nil || owner.object.Namespace == ns {
		return false
	}
	if h := c.tlsHosts[host]; h != nil && len(h.certs) > 0 {
		return false
	}
	named := c.tlsHosts[""]
	return named == nil || !slices.ContainsFunc(named.entries, func(e certs.Entry) bool { return e.Host == host })
}

// stale tells whether the guards of any of these hosts have to change.
func (g *guards) stale(c *compiler, hosts map[string]struct{}) bool {
	for host := range hosts {
		if _, has := g.shields[host]; has != g.needs(c, host) {
			return true
		}
	}
	return false
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
	all = append(all, c.clientAuthProblems(st)...)
	c.problems.set(ofTLS, st.key, all)
}

// noteTime looks at the dates of all certificates again.
func (c *compiler) noteTime() {
	for _, st := range c.ingresses {
		c.setTLSProblems(st)
	}
	c.setDefaultCertificateProblems()
}
