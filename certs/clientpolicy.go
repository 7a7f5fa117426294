package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// FieldAuthority is the field of a Secret that holds CA certificates, as [ParseError.Field] names it.
const FieldAuthority = "ca.crt"

// Authority is a bundle of CA certificates that clients' certificates are held against. It is immutable.
type Authority struct {
	// Name says where it came from, for people: "namespace/secret".
	Name        string
	pool        *x509.CertPool
	fingerprint string
}

// ParseAuthority reads CA certificates from PEM. Every error is a [*ParseError].
func ParseAuthority(name string, in []byte) (*Authority, error) {
	bad := func(reason string) (*Authority, error) { return nil, &ParseError{name, FieldAuthority, reason} }
	blocks, reason := parseBlocks(in)
	if reason != "" {
		return bad(reason)
	}
	blocks, others := split(blocks, func(kind string) bool { return kind == "CERTIFICATE" })
	if len(blocks) == 0 {
		return bad("holds no CERTIFICATE block, only " + list(others) + ": put the certificates of the CA in PEM form here")
	}
	a := &Authority{Name: name, pool: x509.NewCertPool()}
	sum := sha256.New()
	for i, b := range blocks {
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return bad(fmt.Sprintf("certificate %d of %d is not valid X.509 (%v): copy it again from your CA", i+1, len(blocks), err))
		}
		a.pool.AddCert(c)
		sum.Write(c.Raw)
	}
	a.fingerprint = hex.EncodeToString(sum.Sum(nil))
	return a, nil
}

// ClientMode says what is asked of a client's certificate. The words are nginx's (ssl_verify_client).
type ClientMode string

// The modes.
const (
	ClientRequired     ClientMode = "on"             // there has to be one, and it has to be valid
	ClientOptional     ClientMode = "optional"       // if there is one it has to be valid
	ClientOptionalNoCA ClientMode = "optional_no_ca" // if there is one it has to be valid but for its issuer
)

// ClientPolicy is what the clients of a host have to show in their handshakes. It is immutable. A handshake
// only asks for a certificate and sees that the client has its key; whether it is good enough is for
// whoever answers the request to ask, with Verify: a client is told in HTTP what is wrong, and a resumed
// session is judged by what holds now.
type ClientPolicy struct {
	Mode      ClientMode
	Authority *Authority
	// Depth is how many intermediates there may be between the client's certificate and one of the Authority.
	Depth int
}

// Fingerprint names the policy: two with the same one ask for the same. It is the same on all replicas.
func (p *ClientPolicy) Fingerprint() string {
	return fmt.Sprintf("%s %d %s", p.Mode, p.Depth, p.Authority.fingerprint)
}

// maxChain is how many certificates of a client are looked at.
const maxChain = 16

// The verdicts of Verify, in nginx's words; the third is followed by a reason.
const (
	VerdictNone    = "NONE"
	VerdictSuccess = "SUCCESS"
	VerdictFailed  = "FAILED:"
)

// Verify judges the certificates that a client showed, its own first. Verdict is what nginx has in
// $ssl_client_verify; ok is false for what nginx refuses with 400.
func (p *ClientPolicy) Verify(shown []*x509.Certificate, now time.Time) (verdict string, ok bool) {
	if len(shown) == 0 {
		return VerdictNone, p.Mode != ClientRequired
	}
	err := p.verify(shown[:min(len(shown), maxChain)], now)
	if err == nil {
		return VerdictSuccess, true
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return VerdictFailed + failure(err), p.Mode == ClientOptionalNoCA && unknown && inTime(shown[0], now)
}

var errTooDeep = errors.New("certificate chain too long")

func (p *ClientPolicy) verify(shown []*x509.Certificate, now time.Time) error {
	options := x509.VerifyOptions{
		Roots: p.Authority.pool, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range shown[1:] {
		options.Intermediates.AddCert(c)
	}
	chains, err := shown[0].Verify(options)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return len(chain)-2 <= p.Depth }) {
		return errTooDeep
	}
	return nil
}

func inTime(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// failure is a reason in few words, in OpenSSL's where there is one. It holds nothing that a client wrote.
func failure(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "unable to verify the first certificate"
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case errors.Is(err, errTooDeep):
		return errTooDeep.Error()
	case ok && invalid.Reason == x509.Expired:
		return "certificate has expired"
	case ok && invalid.Reason == x509.IncompatibleUsage:
		return "unsupported certificate purpose"
	}
	return "certificate verify failed"
}

// PolicyEntry says: handshakes for this host ("a.b" or "*.b") follow this policy; nil keeps the host from
// the policy of a wildcard.
type PolicyEntry struct {
	Host   string
	Policy *ClientPolicy
}

// WithPolicies returns a copy of the set in which handshakes follow these policies.
func (s *Set) WithPolicies(entries []PolicyEntry) *Set {
	next := *s
	next.policies, next.wildPolicies = map[string]*ClientPolicy{}, map[string]*ClientPolicy{}
	for _, e := range entries {
		host := normalHost(e.Host)
		if parent, ok := strings.CutPrefix(host, "*."); ok {
			next.wildPolicies[parent] = e.Policy
		} else {
			next.policies[host] = e.Policy
		}
	}
	return &next
}

// Policy is what is asked of the clients of a host: that of the very host, else that of the wildcard one
// label above; nil if nothing is.
func (s *Set) Policy(host string) *ClientPolicy {
	if len(s.policies)+len(s.wildPolicies) == 0 {
		return nil
	}
	return s.policyOf([]byte(normalHost(host)))
}

// policyOf is Policy for a host in normal form.
func (s *Set) policyOf(host []byte) *ClientPolicy {
	if p, ok := s.policies[string(host)]; ok {
		return p
	}
	label, parent, found := bytes.Cut(host, dot)
	if !found || len(label) == 0 {
		return nil
	}
	return s.wildPolicies[string(parent)]
}

// configForClient asks for a certificate where the host has a policy.
func (l *Live) configForClient(base *tls.Config, hello *tls.ClientHelloInfo) *tls.Config {
	p := l.policy(hello.ServerName)
	if p == nil {
		return nil
	}
	c := base.Clone()
	c.GetConfigForClient = nil
	c.ClientAuth = tls.RequestClientCert
	if p.Mode != ClientOptionalNoCA {
		c.ClientCAs = p.Authority.pool // clients choose among several by it
	}
	return c
}

func (l *Live) policy(host string) *ClientPolicy {
	if s := l.set.Load(); s != nil {
		return s.Policy(host)
	}
	return nil
}
