package certs

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSelfSigned(t *testing.T) {
	t.Parallel()
	c, err := SelfSigned("Portico.example", "192.0.2.1", "::1")
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "self-signed" || c.KeyType() != KeyECDSA || c.Leaf.Subject.CommonName != "Portico default certificate" {
		t.Errorf("got %q, %s, %s", c.Name, c.KeyType(), c.Leaf.Subject)
	}
	if diff := cmp.Diff([]string{"portico.example", "192.0.2.1", "::1"}, c.Names()); diff != "" {
		t.Errorf("Names() (-want +got):\n%s", diff)
	}
	now := time.Now()
	if w := c.Warnings(now); w != nil {
		t.Errorf("Warnings() = %q", w)
	}
	if c.Expired(now.Add(364*24*time.Hour)) || !c.Expired(now.Add(366*24*time.Hour)) {
		t.Errorf("lasts until %s, want a year", c.Leaf.NotAfter)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.Leaf)
	if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: "portico.example", Roots: roots}); err != nil {
		t.Errorf("a client that trusts it refuses it: %v", err)
	}
}

func TestSelfSignedSerials(t *testing.T) {
	t.Parallel()
	a, b := must(SelfSigned()), must(SelfSigned())
	if a.Leaf.SerialNumber.Sign() <= 0 || a.Leaf.SerialNumber.Cmp(b.Leaf.SerialNumber) == 0 {
		t.Errorf("serials %x and %x", a.Leaf.SerialNumber, b.Leaf.SerialNumber)
	}
}

func TestSelfSignedRefusesBadNames(t *testing.T) {
	t.Parallel()
	if c, err := SelfSigned("bücher.example"); err == nil {
		t.Errorf("made a certificate for %q", c.Names())
	}
}
