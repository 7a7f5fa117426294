package ingress

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/ingress/annotation"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/filter"
)

// clientAuth is what the clients of one host have to show. It is immutable: a handshake asks
// by its policy, and the routes of the host let in by its filter.
type clientAuth struct {
	asked  annotation.ClientAuth
	by     string // the Ingress
	policy *certs.ClientPolicy
	filter *filter.ClientCertificate
}

// clientAuthSecret is the Secret with the CAs; no name if none is asked for. One of another
// namespace is not read.
func (st *ingressState) clientAuthSecret() types.NamespacedName {
	if st.spec == nil {
		return types.NamespacedName{}
	}
	name := objectName(st.spec.options.ClientAuth.Secret)
	if name.Namespace != st.object.Namespace {
		return types.NamespacedName{}
	}
	return name
}

func (c *compiler) useClientAuth(st *ingressState) {
	if name := st.clientAuthSecret(); name.Name != "" {
		c.useSecret(st, name)
	}
}

func (c *compiler) releaseClientAuth(st *ingressState) {
	if name := st.clientAuthSecret(); name.Name != "" {
		c.releaseSecret(st, name)
	}
}

// markClientAuth marks the hosts whose clients an Ingress asks for certificates.
func (c *compiler) markClientAuth(st *ingressState) {
	for i := range st.spec.hosts {
		c.markHost(st.spec.hosts[i].name)
	}
}

// asksClients tells whether an Ingress with rules for a host asks for certificates of its
// clients, and is of the namespace that has it: what holds for the whole host is that one's
// to say.
func (h *hostState) asksClients(st *ingressState) bool {
	return st.spec.options.ClientAuth.Secret != "" && st.object.Namespace == h.askers[0].object.Namespace
}

// clientAuthWaits tells whether it is not known yet whom the clients of a host have to know.
func (c *compiler) clientAuthWaits(host string) bool {
	h := c.hosts[host]
	if h == nil {
		return false
	}
	return slices.ContainsFunc(h.askers, func(st *ingressState) bool {
		name := st.clientAuthSecret()
		return h.asksClients(st) && name.Name != "" && c.waiting.has(secretRef(name), c.now())
	})
}

// judgeHosts finds out what the clients of the hosts that are to be made anew have to show.
// It goes before certificates: handshakes ask for what routes want to see.
func (c *compiler) judgeHosts() (changed bool) {
	for name := range c.dirty.hosts {
		h := c.hosts[name]
		if h == nil || c.isWaiting(name) {
			continue
		}
		before := h.auth
		h.auth = c.clientAuthOf(name, h)
		changed = changed || policyOf(before) != policyOf(h.auth)
		if above := c.hosts[parentOf(name)]; above != nil && above != h && above.auth != nil {
			changed = true // it has to be kept from the policy of the wildcard, or no longer
		}
	}
	return changed
}

func policyOf(a *clientAuth) *certs.ClientPolicy {
	if a == nil {
		return nil
	}
	return a.policy
}

// clientAuthOf is what the oldest Ingress of the host's namespace asks for that asks for any.
func (c *compiler) clientAuthOf(host string, h *hostState) *clientAuth {
	i := slices.IndexFunc(h.askers, h.asksClients)
	if host == "" || i < 0 {
		return nil
	}
	st := h.askers[i]
	s := c.secrets[st.clientAuthSecret()]
	if s == nil || s.authority == nil {
		return nil // and so its paths are refused
	}
	asked := st.spec.options.ClientAuth
	if h.auth != nil && h.auth.asked == asked && h.auth.by == st.key && h.auth.policy.Authority == s.authority {
		return h.auth
	}
	return newClientAuth(st.key, asked, s.authority)
}

func newClientAuth(by string, asked annotation.ClientAuth, authority *certs.Authority) *clientAuth {
	a := &clientAuth{asked: asked, by: by, policy: &certs.ClientPolicy{
		Mode: certs.ClientMode(asked.Verify), Authority: authority, Depth: annotation.DefaultVerifyDepth + asked.Depth,
	}}
	if asked.Verify == "" {
		a.policy.Mode = certs.ClientRequired
	}
	cfg := filter.ClientCertificateConfig{
		Verify: a.policy.Verify, ErrorPage: asked.ErrorPage, PassCertificate: asked.PassCertificate,
		Label: string(a.policy.Mode) + " " + authority.Name,
	}
	if asked.MatchCN != "" {
		cfg.Name = regexp.MustCompile(`\A(?:` + asked.MatchCN + `)\z`) // it has been compiled before
	}
	a.filter = filter.NewClientCertificate(cfg)
	return a
}

// refusal says why the routes of an Ingress on a host are not served; "" if they are: where
// protection is asked for, they have that very protection.
func (c *compiler) refusal(st *ingressState, host string) string {
	options := &st.spec.options
	if options.Refuse != "" || options.ClientAuth.Secret == "" {
		return options.Refuse
	}
	switch h := c.hosts[host]; {
	case st.clientAuthSecret().Name == "":
		return fmt.Sprintf("Secret %s, with the CAs of clients, is of another namespace", options.ClientAuth.Secret)
	case host == "" || h == nil:
		return "client certificates need a host"
	case h.askers[0].object.Namespace != st.object.Namespace:
		return fmt.Sprintf("host %s belongs to namespace %s, so client certificates are that one's to ask for", host, h.askers[0].object.Namespace)
	case h.auth == nil:
		if s := c.secrets[st.clientAuthSecret()]; s != nil && s.authorityText != "" {
			return s.authorityText
		}
		return fmt.Sprintf("the CAs of clients, of an older Ingress for host %s, are missing", host)
	case h.auth.asked != options.ClientAuth:
		return fmt.Sprintf("Ingress %s asks the clients of host %s for other certificates", h.auth.by, host)
	}
	return ""
}

// guarded puts what holds for the whole host before the filters of one of its routes.
func (m *hostMaker) guarded(st *ingressState, r *router.Route) *router.Route {
	if asked := st.spec.options.ClientAuth.Secret != ""; asked && st.spec.options.Refuse == "" && r.Backend == nil {
		if reason := m.refusal(st, m.name); reason != "" {
			m.unprotected(st, reason)
		}
	}
	isACME := strings.HasPrefix(r.Path, acmePath)
	if m.stream != nil && len(r.Filters) == 0 && !isACME && !st.spec.options.NoSSLRedirect {
		r.Filters = everyHost
	}
	if m.auth != nil && !isACME {
		r.Filters = append(slices.Clip(r.Filters), m.auth.filter)
	}
	if m.stream != nil {
		r.Filters = append([]router.Filter{filter.TLSPassthrough{}}, r.Filters...)
	}
	return r
}

// unprotected tells once for each Ingress and host why its paths answer 503. What is wrong
// with the Secret is told of the Ingress.
func (m *hostMaker) unprotected(st *ingressState, reason string) {
	name := st.clientAuthSecret()
	if s := m.secrets[name]; name.Name == "" || s != nil && s.authorityText == reason {
		return
	}
	p := problem{reason: reasonUnprotected, Problem: manifests.Problem{
		Object: refOf(st.object), Field: authTLSField(st),
		Text: reason + ": the paths of this Ingress for " + hostWords(m.name) + " answer 503, because Portico does not serve without the protection; ask there for the same, or use a host of your own",
	}}
	if !slices.Contains(m.problems, p) {
		m.problems = append(m.problems, p)
	}
}

// authTLSField is where an Ingress names its CAs.
func authTLSField(st *ingressState) string {
	for _, key := range []string{annotation.Prefix + "auth-tls-secret", annotation.NginxPrefix + "auth-tls-secret"} {
		if _, ok := st.object.Annotations[key]; ok {
			return "metadata.annotations[" + key + "]"
		}
	}
	return "metadata.annotations"
}

// clientAuthProblems are those of the Secret with the CAs.
func (c *compiler) clientAuthProblems(st *ingressState) []problem {
	asked := st.spec.options.ClientAuth.Secret
	if asked == "" || st.spec.options.Refuse != "" {
		return nil
	}
	about := func(reason, text string) []problem {
		return []problem{{reason: reason, Problem: manifests.Problem{
			Object: refOf(st.object), Field: authTLSField(st),
			Text: text + ": the paths of this Ingress answer 503, because Portico does not serve without the protection; correct it",
		}}}
	}
	name := st.clientAuthSecret()
	if name.Name == "" {
		return about(reasonRejected, fmt.Sprintf("Secret %s is of another namespace than this Ingress, and only its own are read", asked))
	}
	if s := c.secrets[name]; s != nil && s.judged && s.authority == nil {
		return about(reasonSecret, s.authorityText)
	}
	return nil
}

// policies are those of all hosts. A host without one is kept from that of its wildcard.
func (c *compiler) policies() []certs.PolicyEntry {
	var all []certs.PolicyEntry
	for name, h := range c.hosts {
		if h.auth == nil {
			continue
		}
		all = append(all, certs.PolicyEntry{Host: name, Policy: h.auth.policy})
		if !isWildcard(name) {
			continue
		}
		for below := range c.below[name[1:]] {
			if other := c.hosts[below]; other != nil && other.auth == nil && len(other.askers) > 0 {
				all = append(all, certs.PolicyEntry{Host: below})
			}
		}
	}
	return all
}

// objectName reads "namespace/name".
func objectName(s string) types.NamespacedName {
	ns, name, _ := strings.Cut(s, "/")
	return types.NamespacedName{Namespace: ns, Name: name}
}
