package ingress

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
)

// tlsSpec is one tls section of an Ingress.
type tlsSpec struct {
	names  []tlsName
	secret string // may be empty: the default certificate
	index  int    // of the section
}

// tlsName is one host that a section is for.
type tlsName struct {
	host  string // in normal form; "" for rules without a host
	index int    // in the section's hosts; -1 if it has none
	// standIn is set if the section names its wildcard: it is for hosts without a certificate
	// of their own.
	standIn bool
}

// field is where it stands.
func (t *tlsSpec) field(n tlsName) string {
	if n.index < 0 {
		return fmt.Sprintf("spec.tls[%d]", t.index)
	}
	return fmt.Sprintf("spec.tls[%d].hosts[%d]", t.index, n.index)
}

// secretField is where its Secret is named.
func (t *tlsSpec) secretField() string { return fmt.Sprintf("spec.tls[%d].secretName", t.index) }

// tls reads one tls section. It is for hosts that the Ingress has rules for; one without
// hosts for all of them.
func (r *specReader) tls(i int, in *networkingv1.IngressTLS) {
	t := tlsSpec{secret: in.SecretName, index: i}
	if strings.Contains(t.secret, "/") {
		r.problem(reasonRejected, t.secretField(), "the name %.260q holds a slash: a Secret has to be in the Ingress's own namespace (%s) and is named without it: the default certificate is served; copy the Secret here, and write its name alone", t.secret, r.ing.Namespace)
		t.secret = ""
	}
	asked := make(map[string]struct{}, len(in.Hosts))
	for j, host := range in.Hosts {
		name, err := normalHost(host)
		if err != nil {
			r.problem(reasonRejected, fmt.Sprintf("spec.tls[%d].hosts[%d]", i, j), "the host %.260q %v; it is served without this certificate", host, err)
			continue
		}
		if _, twice := asked[name]; twice {
			continue
		}
		asked[name] = struct{}{}
		if !r.tlsHost(&t, name, j) {
			r.problem(reasonTLSHost, t.field(tlsName{host: name, index: j}),
				"this Ingress has no rule for host %q, so the host is not used: this section gives it neither a certificate nor a redirect; add a rule for it here, or move it to the Ingress that has one", name)
		}
	}
	if len(in.Hosts) == 0 {
		for j := range r.spec.hosts {
			t.names = append(t.names, tlsName{host: r.spec.hosts[j].name, index: -1})
		}
		if r.spec.catchAll {
			t.names = append(t.names, tlsName{index: -1})
		}
	}
	if len(t.names) > 0 {
		t.names = uniqueNames(t.names)
		r.spec.tls = append(r.spec.tls, t)
	}
}

// uniqueNames leaves the first of each host, if possible no stand-in, in order of hosts.
func uniqueNames(names []tlsName) []tlsName {
	slices.SortStableFunc(names, func(a, b tlsName) int {
		switch d := strings.Compare(a.host, b.host); {
		case d != 0 || a.standIn == b.standIn:
			return d
		case a.standIn:
			return 1
		}
		return -1
	})
	return slices.CompactFunc(names, func(a, b tlsName) bool { return a.host == b.host })
}

// tlsHost adds what the j-th host of a section is for: itself, if a rule is for it, for its
// wildcard or for any host; and a wildcard for the exact hosts of rules below it.
func (r *specReader) tlsHost(t *tlsSpec, name string, j int) (used bool) {
	before := len(t.names)
	_, self := r.index[name]
	_, above := r.index[parentOf(name)]
	if self || r.spec.any || above && !isWildcard(name) {
		t.names = append(t.names, tlsName{host: name, index: j})
	}
	if isWildcard(name) {
		for i := range r.spec.hosts {
			if host := r.spec.hosts[i].name; suffixOf(host) == name[1:] {
				t.names = append(t.names, tlsName{host: host, index: j, standIn: true})
			}
		}
	}
	return len(t.names) > before
}

// expiryWarning is how long before its end a certificate is a problem.
const expiryWarning = 7 * 24 * time.Hour

// secretState is what one wanted Secret comes to.
type secretState struct {
	object *corev1.Secret // that the rest was made from; nil if it does not exist
	judged bool
	cert   *certs.Certificate
	// reason and text say why there is no certificate.
	reason, text string
	// authority is what its ca.crt holds, and authorityText says why there is none.
	authority     *certs.Authority
	authorityText string
	users         []*ingressState
	// permanent is set for the one that a setting names.
	permanent bool
}

// judge parses the Secret unless that has been done. It tells whether anything changed.
func (s *secretState) judge(name string, object *corev1.Secret) (changed bool) {
	if s.judged && s.object == object {
		return false
	}
	before := *s
	same := s.judged && object != nil && s.object != nil && sameKeyPair(s.object, object)
	s.judged, s.object = true, object
	if same {
		return false
	}
	s.cert, s.reason, s.text = certificateOf(name, object)
	s.authority, s.authorityText = authorityOf(name, object)
	return s.cert != before.cert || s.text != before.text ||
		s.authority != before.authority || s.authorityText != before.authorityText
}

func sameKeyPair(a, b *corev1.Secret) bool {
	return a.Type == b.Type &&
		string(a.Data[corev1.TLSCertKey]) == string(b.Data[corev1.TLSCertKey]) &&
		string(a.Data[corev1.TLSPrivateKeyKey]) == string(b.Data[corev1.TLSPrivateKeyKey]) &&
		string(a.Data[certs.FieldAuthority]) == string(b.Data[certs.FieldAuthority])
}

// certificateOf parses a Secret, which may be nil, or says why it cannot be used.
func certificateOf(name string, object *corev1.Secret) (cert *certs.Certificate, reason, text string) {
	const instead = "the default certificate is served; "
	switch {
	case object == nil:
		return nil, reasonSecret, fmt.Sprintf("Secret %s does not exist: %screate it, or correct the name", name, instead)
	case object.Type != corev1.SecretTypeTLS:
		return nil, reasonCertificate, fmt.Sprintf("Secret %s has type %q, not %q: %sdelete it and make one of that type (kubectl create secret tls)",
			name, object.Type, corev1.SecretTypeTLS, instead)
	}
	cert, err := certs.Parse(name, object.Data[corev1.TLSCertKey], object.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, reasonCertificate, fmt.Sprintf("Secret %s cannot be used: %s: %scorrect it", name, parseReason(err), instead)
	}
	return cert, "", ""
}

// authorityOf parses the CA certificates of a Secret, which may be nil, or says why there are
// none.
func authorityOf(name string, object *corev1.Secret) (a *certs.Authority, text string) {
	if object == nil {
		return nil, fmt.Sprintf("Secret %s does not exist", name)
	}
	if len(object.Data[certs.FieldAuthority]) == 0 {
		return nil, fmt.Sprintf("Secret %s has no %s", name, certs.FieldAuthority)
	}
	a, err := certs.ParseAuthority(name, object.Data[certs.FieldAuthority])
	if err != nil {
		return nil, fmt.Sprintf("Secret %s cannot be used: %s", name, parseReason(err))
	}
	return a, ""
}

// parseReason leaves out the name, which the sentence has already.
func parseReason(err error) string {
	if e, ok := errors.AsType[*certs.ParseError](err); ok {
		return e.Field + " " + e.Reason
	}
	return err.Error()
}

// tlsProblems are those of one tls section, given what its Secret came to; s is nil if no
// Secret is named.
func tlsProblems(ing *networkingv1.Ingress, t *tlsSpec, s *secretState, now time.Time) []problem {
	if s == nil || !s.judged {
		return nil
	}
	about := func(reason, text string) problem {
		return problem{reason: reason, Problem: manifests.Problem{Object: refOf(ing), Field: t.secretField(), Text: text}}
	}
	if s.cert == nil {
		return []problem{about(s.reason, s.text)}
	}
	var all []problem
	for _, text := range certificateWarnings(s.cert, now) {
		all = append(all, about(reasonExpiry, fmt.Sprintf("Secret %s is served, but %s", s.cert.Name, text)))
	}
	return all
}

// certificateWarnings are those of the certificate itself, and that it will end soon.
func certificateWarnings(c *certs.Certificate, now time.Time) []string {
	warnings := c.Warnings(now)
	if left := c.Leaf.NotAfter.Sub(now); left >= 0 && left < expiryWarning {
		warnings = append(warnings, fmt.Sprintf("the certificate expires on %s: renew it", c.Leaf.NotAfter.UTC().Format(time.RFC3339)))
	}
	return warnings
}

const maxListedNames = 5

func listNames(names []string) string {
	more := len(names) - maxListedNames
	if more > 0 {
		names = names[:maxListedNames]
	}
	text := strings.Join(names, ", ")
	switch {
	case text == "":
		return "no host"
	case more > 0:
		return fmt.Sprintf("%.400s and %d more", text, more)
	}
	return fmt.Sprintf("%.400s", text)
}
