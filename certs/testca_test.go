package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// testCA signs certificates for tests: root ─► intermediate ─► leaf.
type testCA struct {
	root, inter *x509.Certificate
	rootKey     crypto.Signer
	interKey    crypto.Signer
	roots       *x509.CertPool
}

var theCA = sync.OnceValue(func() *testCA {
	ca := &testCA{rootKey: newKey(KeyECDSA), interKey: newKey(KeyECDSA), roots: x509.NewCertPool()}
	authority := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage:  x509.KeyUsageCertSign,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	root, inter := authority("Test Root"), authority("Test Intermediate")
	ca.root = sign(root, root, ca.rootKey.Public(), ca.rootKey)
	ca.inter = sign(inter, ca.root, ca.interKey.Public(), ca.rootKey)
	ca.roots.AddCert(ca.root)
	return ca
})

// rsaKeys are slow to make, so tests share them.
var (
	rsa2048 = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsa1024 = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 1024)) })
)

func newKey(kind string) crypto.Signer {
	switch kind {
	case KeyECDSA:
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case "P-224":
		return must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	case "P-384":
		return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case KeyEd25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	case KeyRSA:
		return rsa2048()
	case "RSA-1024":
		return rsa1024()
	}
	panic("no such kind of key: " + kind)
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, parent, public, by))))
}

// issue makes a leaf for the names, and its key.
func (ca *testCA) issue(kind string, change func(*x509.Certificate), names ...string) (*x509.Certificate, crypto.Signer) {
	key := newKey(kind)
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(a.AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	if len(names) > 0 {
		template.Subject.CommonName = names[0]
	}
	if change != nil {
		change(template)
	}
	return sign(template, ca.inter, key.Public(), ca.interKey), key
}

// newCert issues and parses, with the intermediate behind the leaf.
func newCert(t testing.TB, name, kind string, names ...string) *Certificate {
	t.Helper()
	ca := theCA()
	leaf, key := ca.issue(kind, nil, names...)
	c, err := Parse(name, certPEM(leaf, ca.inter), keyPEM(key))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func certPEM(chain ...*x509.Certificate) (out []byte) {
	for _, c := range chain {
		out = append(out, block("CERTIFICATE", c.Raw)...)
	}
	return out
}

func keyPEM(key crypto.Signer) []byte {
	return block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
