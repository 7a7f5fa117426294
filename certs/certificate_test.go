package certs

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCovers(t *testing.T) {
	t.Parallel()
	c := newCert(t, "ns/tls", KeyECDSA, "A.example", "*.b.example", "192.0.2.1", "2001:db8::1", "*.single")
	for host, want := range map[string]bool{
		"a.example":          true,
		"A.EXAMPLE":          true,
		"a.example.":         true,
		"x.a.example":        false,
		"example":            false,
		"x.b.example":        true,
		"X.B.Example.":       true,
		"b.example":          false,
		"x.y.b.example":      false,
		".b.example":         false,
		"*.b.example":        true, // the pattern itself
		"*.a.example":        false,
		"x.single":           true,
		"192.0.2.1":          true,
		"192.0.2.2":          false,
		"::ffff:192.0.2.1":   true,
		"2001:db8::1":        true,
		"2001:DB8:0::1":      true,
		"[2001:db8::1]":      true,
		"":                   false,
		".":                  false,
		"a\x00.example":      false,
		"\u212a.b.example.x": false,
	} {
		if got := c.Covers(host); got != want {
			t.Errorf("Covers(%q) = %v, want %v", host, got, want)
		}
	}
}

// TestCoversAgreesWithX509 holds Covers to what Go's own clients check.
func TestCoversAgreesWithX509(t *testing.T) {
	t.Parallel()
	c := newCert(t, "ns/tls", KeyECDSA, "a.example", "*.b.example", "192.0.2.1")
	for _, host := range []string{"a.example", "A.example.", "x.b.example", "b.example", "x.y.b.example", "192.0.2.1", "192.0.2.9", "other"} {
		if got, want := c.Covers(host), c.Leaf.VerifyHostname(host) == nil; got != want {
			t.Errorf("Covers(%q) = %v, x509 says %v", host, got, want)
		}
	}
}

func TestCommonNameDoesNotCount(t *testing.T) {
	t.Parallel()
	leaf, key := theCA().issue(KeyECDSA, func(c *x509.Certificate) { c.Subject.CommonName = "a.example" })
	c, err := Parse("ns/old", certPEM(leaf), keyPEM(key))
	if err != nil {
		t.Fatal(err)
	}
	if c.Covers("a.example") {
		t.Error("a certificate without alternative names covers its common name")
	}
	wantWarning(t, c, time.Now(), "no subject alternative names")
}

func TestCertificateDescribesItself(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{KeyECDSA, KeyEd25519, KeyRSA} {
		c := newCert(t, "ns/tls", kind, "A.example", "192.0.2.1")
		if c.KeyType() != kind {
			t.Errorf("KeyType() = %q, want %q", c.KeyType(), kind)
		}
		if diff := cmp.Diff([]string{"a.example", "192.0.2.1"}, c.Names()); diff != "" {
			t.Errorf("%s: Names() (-want +got):\n%s", kind, diff)
		}
		if c.TLS().Leaf != c.Leaf || len(c.TLS().Certificate) != 2 || c.TLS().PrivateKey == nil {
			t.Errorf("%s: TLS() is not the parsed chain of two with its key", kind)
		}
		if len(c.Fingerprint()) != 64 {
			t.Errorf("%s: Fingerprint() = %q", kind, c.Fingerprint())
		}
		if w := c.Warnings(time.Now()); w != nil {
			t.Errorf("%s: Warnings() = %q", kind, w)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	ca := theCA()
	now := time.Now()
	t.Run("dates", func(t *testing.T) {
		t.Parallel()
		c := newCert(t, "ns/tls", KeyECDSA, "a.example")
		late, early := c.Leaf.NotAfter.Add(time.Second), c.Leaf.NotBefore.Add(-time.Second)
		if c.Expired(now) || c.Expired(c.Leaf.NotAfter) || !c.Expired(late) {
			t.Error("Expired is wrong about now, the last second, or the first one after it")
		}
		wantWarning(t, c, late, "expired on")
		wantWarning(t, c, early, "not valid before")
		wantWarning(t, c, now.Add(24*time.Hour), "after the first in the chain expired")
	})
	t.Run("short RSA", func(t *testing.T) {
		t.Parallel()
		wantWarning(t, newCert(t, "ns/tls", "RSA-1024", "a.example"), now, "1024 bits")
	})
	t.Run("client certificate", func(t *testing.T) {
		t.Parallel()
		leaf, key := ca.issue(KeyECDSA, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "a.example")
		wantWarning(t, must(Parse("ns/tls", certPEM(leaf, ca.inter), keyPEM(key))), now, "not issued for servers")
	})
	t.Run("chain out of order", func(t *testing.T) {
		t.Parallel()
		leaf, key := ca.issue(KeyECDSA, nil, "a.example")
		wantWarning(t, must(Parse("ns/tls", certPEM(leaf, ca.root, ca.inter), keyPEM(key))), now, `certificate 2 of 3 (CN "Test Root") is not the issuer`)
	})
}

func wantWarning(t *testing.T, c *Certificate, now time.Time, want string) {
	t.Helper()
	if got := strings.Join(c.Warnings(now), "\n"); !strings.Contains(got, want) {
		t.Errorf("Warnings() = %q, want one with %q", got, want)
	}
}
