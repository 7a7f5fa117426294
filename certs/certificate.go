// Package certs decides which certificate answers a TLS handshake.
//
// Certificates change while connections are open, so nothing here is ever changed in place. There are
// three layers, each immutable to the ones above it:
//
//	Parse(tls.crt, tls.key) ─► *Certificate          one key pair, checked once, shared by all its hosts
//	                                │
//	NewSet(fallback, entries) ─► *Set                one generation: host pattern ─► certificates
//	                                │
//	Live.Store(set) ─► atomic pointer                the one thing that moves
//	                                │
//	handshake ─► Live.GetCertificate ─► Set.Choose   exact host, then *.parent, then the fallback
//
// A rotation builds a new Set beside the old one and stores it last. A handshake loads the pointer once and
// finishes with the generation it loaded; established connections never look again and are not disturbed.
//
// A broken Secret is an error of Parse and nothing more: the caller reports it and leaves it out of the
// next Set. What is bad for the user but can still be served (an expired certificate, a short RSA key) is
// not an error but a warning, see [Certificate.Warnings].
package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The key types a certificate can have, as [Certificate.KeyType] spells them.
const (
	KeyECDSA   = "ECDSA"
	KeyEd25519 = "Ed25519"
	KeyRSA     = "RSA"
)

// Certificate is one parsed key pair, immutable, ready to serve. It is safe for concurrent use.
// Make one with [Parse] or [SelfSigned]; compare by pointer or by [Certificate.Fingerprint].
type Certificate struct {
	// Name says where it came from, for people: "namespace/secret", or "self-signed".
	Name string
	// Leaf is the certificate itself, without the intermediates. Read only.
	Leaf *x509.Certificate

	pair        tls.Certificate
	keyType     string
	dnsNames    []string     // normalised
	addrs       []netip.Addr // unmapped
	fingerprint string
	warnings    []string  // those that do not depend on the time
	chainEnd    time.Time // earliest NotAfter among the certificates after the leaf; zero if there are none
}

// newCertificate wraps a checked key pair. chain is the leaf and whatever is served after it; only the leaf
// stays parsed in memory.
func newCertificate(name string, pair tls.Certificate, chain []*x509.Certificate) *Certificate {
	leaf := chain[0]
	pair.Leaf = leaf // or crypto/tls would parse it again in every handshake that asks about it
	sum := sha256.Sum256(leaf.Raw)
	c := &Certificate{
		Name:        name,
		Leaf:        leaf,
		pair:        pair,
		keyType:     keyType(leaf.PublicKey),
		fingerprint: hex.EncodeToString(sum[:]),
		warnings:    chainWarnings(chain),
	}
	for _, n := range leaf.DNSNames {
		c.dnsNames = append(c.dnsNames, normalHost(n))
	}
	for _, ip := range leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			c.addrs = append(c.addrs, a.Unmap())
		}
	}
	for _, link := range chain[1:] {
		if c.chainEnd.IsZero() || link.NotAfter.Before(c.chainEnd) {
			c.chainEnd = link.NotAfter
		}
	}
	return c
}

// keyType names the type of a public key; "" is one TLS servers cannot use.
func keyType(public any) string {
	switch public.(type) {
	case *ecdsa.PublicKey:
		return KeyECDSA
	case ed25519.PublicKey:
		return KeyEd25519
	case *rsa.PublicKey:
		return KeyRSA
	}
	return ""
}

// TLS returns the key pair in the form crypto/tls serves. It is shared: do not change it.
func (c *Certificate) TLS() *tls.Certificate { return &c.pair }

// KeyType is [KeyECDSA], [KeyEd25519] or [KeyRSA].
func (c *Certificate) KeyType() string { return c.keyType }

// Fingerprint is the SHA-256 of the leaf in lower-case hex, as `openssl x509 -fingerprint -sha256` shows it
// without the colons.
func (c *Certificate) Fingerprint() string { return c.fingerprint }

// Names lists the subject alternative names: DNS names in lower case, then IP addresses.
func (c *Certificate) Names() []string {
	names := slices.Clone(c.dnsNames)
	for _, a := range c.addrs {
		names = append(names, a.String())
	}
	return names
}

// Covers reports whether a client that asked for host would accept this certificate's names: an equal DNS
// name, a wildcard in place of host's first label (*.a.b covers x.a.b, not a.b and not x.y.a.b), or, for an
// IP address, an equal IP name. Case and one trailing dot do not matter. The subject's common name does not
// count, as it does not for Go and the browsers. A host pattern "*.a.b" is covered by the name "*.a.b" alone.
func (c *Certificate) Covers(host string) bool {
	host = normalHost(host)
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil {
		return slices.Contains(c.addrs, addr.Unmap())
	}
	if host == "" {
		return false
	}
	parent, hasParent := parentOf(host)
	for _, n := range c.dnsNames {
		if n == host {
			return true
		}
		if suffix, ok := wildcardParent(n); ok && hasParent && suffix == parent {
			return true
		}
	}
	return false
}

// Expired reports whether the certificate's time is over. It is served all the same: a client that insists
// fails no worse than with the fallback, and one that does not goes on working.
func (c *Certificate) Expired(now time.Time) bool { return now.After(c.Leaf.NotAfter) }

// Warnings says what is wrong with a certificate that is served nevertheless, one sentence each, most
// urgent first; nil when all is well.
func (c *Certificate) Warnings(now time.Time) []string {
	var w []string
	switch {
	case c.Expired(now):
		w = append(w, fmt.Sprintf("the certificate expired on %s: renew it", day(c.Leaf.NotAfter)))
	case now.Before(c.Leaf.NotBefore):
		w = append(w, fmt.Sprintf("the certificate is not valid before %s: check the clock, or wait", day(c.Leaf.NotBefore)))
	}
	if !c.chainEnd.IsZero() && now.After(c.chainEnd) {
		w = append(w, fmt.Sprintf("a certificate after the first in the chain expired on %s: replace the chain with the one your CA publishes now", day(c.chainEnd)))
	}
	return append(w, c.warnings...)
}

// chainWarnings finds what is wrong with a chain at any time of day.
func chainWarnings(chain []*x509.Certificate) []string {
	var w []string
	leaf := chain[0]
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0 {
		w = append(w, "the certificate has no subject alternative names, so no current client accepts it for any host: issue it again with the host as a DNS name")
	}
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		w = append(w, fmt.Sprintf("the RSA key has %d bits and most clients refuse fewer than 2048: issue the certificate again with a larger key, or ECDSA P-256", key.N.BitLen()))
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		w = append(w, "the certificate was not issued for servers (extended key usage lacks serverAuth), so clients refuse it")
	}
	for i := 1; i < len(chain); i++ {
		if !slices.Equal(chain[i-1].RawIssuer, chain[i].RawSubject) {
			w = append(w, fmt.Sprintf("certificate %d of %d (%s) is not the issuer of the one before it (%s): some clients cannot build the chain; put each issuer right after what it issued",
				i+1, len(chain), title(chain[i]), title(chain[i-1])))
			break
		}
	}
	return w
}

// title names a certificate for people: who it is for, never more than a line's worth.
func title(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return fmt.Sprintf("CN %.80q", c.Subject.CommonName)
	case len(c.DNSNames) > 0:
		return fmt.Sprintf("for %.80q", c.DNSNames[0])
	}
	return fmt.Sprintf("serial %.40s", c.SerialNumber.Text(16))
}

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }
