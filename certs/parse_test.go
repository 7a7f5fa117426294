package certs

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestParseAccepts(t *testing.T) {
	t.Parallel()
	ca := theCA()
	for _, kind := range []string{KeyECDSA, "P-384", KeyEd25519, KeyRSA, "RSA-1024"} {
		leaf, key := ca.issue(kind, nil, "a.example")
		if _, err := Parse("ns/tls", certPEM(leaf, ca.inter), keyPEM(key)); err != nil {
			t.Errorf("%s in PKCS #8: %v", kind, err)
		}
	}

	leaf, key := ca.issue(KeyECDSA, nil, "a.example")
	rsaLeaf, rsaKey := ca.issue(KeyRSA, nil, "a.example")
	sec1 := block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))))
	pkcs1 := x509.MarshalPKCS1PrivateKey(rsaKey.(*rsa.PrivateKey))
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	for _, tt := range []struct {
		name     string
		crt, key []byte
	}{
		{"SEC 1", certPEM(leaf), sec1},
		{"SEC 1 after its parameters", certPEM(leaf), join(block("EC PARAMETERS", []byte{6, 0}), sec1)},
		{"PKCS #1", certPEM(rsaLeaf), block("RSA PRIVATE KEY", pkcs1)},
		{"mislabelled key", certPEM(rsaLeaf), block("PRIVATE KEY", pkcs1)},
		{"text around the blocks", join([]byte("subject=a.example\n"), certPEM(leaf), []byte("issuer=Test\n"), certPEM(ca.inter), []byte("\n\n")), keyPEM(key)},
		{"Windows line ends", crlf(certPEM(leaf)), crlf(keyPEM(key))},
		{"no last newline", bytes.TrimSpace(certPEM(leaf)), bytes.TrimSpace(keyPEM(key))},
		{"both halves in both fields", join(keyPEM(key), certPEM(leaf)), join(certPEM(leaf), keyPEM(key))},
		{"root in the chain", certPEM(leaf, ca.inter, ca.root), keyPEM(key)},
	} {
		if _, err := Parse("ns/tls", tt.crt, tt.key); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	ca := theCA()
	leaf, key := ca.issue(KeyECDSA, nil, "a.example")
	rsaLeaf, _ := ca.issue(KeyRSA, nil, "rsa.example")
	crt, priv := certPEM(leaf, ca.inter), keyPEM(key)
	p224, p224Key := ca.issue("P-224", nil, "a.example")
	otherKey := keyPEM(newKey(KeyECDSA))
	x25519 := block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(must(ecdh.X25519().GenerateKey(rand.Reader)))))
	public := block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key.Public())))
	legacy := []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n")
	damaged := bytes.Replace(certPEM(leaf), []byte("\nM"), []byte("\n!"), 1)

	for _, tt := range []struct {
		name     string
		crt, key []byte
		field    string
		want     string
	}{
		{"no certificate", nil, priv, FieldCertificate, "empty or missing"},
		{"white space", []byte(" \n"), priv, FieldCertificate, "empty or missing"},
		{"no PEM", leaf.Raw, priv, FieldCertificate, "holds no PEM block"},
		{"swapped", priv, crt, FieldCertificate, "look swapped"},
		{"other blocks only", block("TRUSTED CERTIFICATE", leaf.Raw), priv, FieldCertificate, `only "TRUSTED CERTIFICATE"`},
		{"not X.509", block("CERTIFICATE", []byte("hello")), priv, FieldCertificate, "certificate 1 of 1 is not valid X.509"},
		{"bad intermediate", join(crt, block("CERTIFICATE", []byte("hello"))), priv, FieldCertificate, "certificate 3 of 3 is not valid X.509"},
		{"damaged leaf before a good one", join(damaged, crt), priv, FieldCertificate, "only 2 of 3 PEM blocks can be read"},
		{"cut short", crt[:len(crt)-40], priv, FieldCertificate, "only 1 of 2 PEM blocks can be read"},
		{"too many blocks", bytes.Repeat(certPEM(leaf), maxBlocks+1), priv, FieldCertificate, "holds 33 PEM blocks, more than the 32"},
		{"too large", padded(maxInput+1, crt), priv, FieldCertificate, "more than the 1048576 allowed"},
		{"issuer first", certPEM(ca.inter, leaf), priv, FieldCertificate, `wrong order: the private key belongs to certificate 2 of 2 (CN "a.example")`},
		{"curve", certPEM(p224), keyPEM(p224Key), FieldCertificate, "curve P-224"},
		{"RSA of 512 bits", file(t, "rsa512.crt"), file(t, "rsa512.key"), FieldCertificate, "512 bits"},
		{"DSA", file(t, "dsa.crt"), file(t, "dsa.key"), FieldCertificate, "unsupported kind (DSA)"},

		{"no key", crt, nil, FieldKey, "empty or missing"},
		{"key without PEM", crt, []byte("hello"), FieldKey, "holds no PEM block"},
		{"certificate for key", crt, crt, FieldKey, "holds a certificate and no private key"},
		{"public key", crt, public, FieldKey, "holds a public key"},
		{"parameters only", crt, block("EC PARAMETERS", []byte{6, 0}), FieldKey, `only "EC PARAMETERS"`},
		{"two keys", crt, join(priv, otherKey), FieldKey, "holds 2 private keys"},
		{"encrypted PKCS #8", crt, block("ENCRYPTED PRIVATE KEY", []byte{1}), FieldKey, "encrypted with a passphrase"},
		{"encrypted in the old way", crt, legacy, FieldKey, "encrypted with a passphrase"},
		{"SSH key", crt, block("OPENSSH PRIVATE KEY", []byte{1}), FieldKey, "SSH key"},
		{"large key block", crt, block("PRIVATE KEY", make([]byte, maxKeyDER+1)), FieldKey, "larger than 8 KiB"},
		{"large key field", crt, padded(maxInput+1, priv), FieldKey, "more than the 1048576 allowed"},
		{"unreadable key", crt, block("PRIVATE KEY", []byte("hello")), FieldKey, "cannot be read"},
		{"DSA key", crt, file(t, "dsa.key"), FieldKey, "cannot be read"},
		{"key that cannot sign", crt, x25519, FieldKey, "X25519"},
		{"someone else's key", crt, otherKey, FieldKey, `does not match the certificate (CN "a.example")`},
		{"key of another type", certPEM(rsaLeaf), priv, FieldKey, "the private key is ECDSA and the certificate (CN \"rsa.example\") is for RSA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("ns/tls", tt.crt, tt.key)
			var pe *ParseError
			if !errors.As(err, &pe) {
				t.Fatalf("Parse() = %v, want a ParseError", err)
			}
			if pe.Field != tt.field || !strings.Contains(pe.Reason, tt.want) {
				t.Errorf("got  %s: %s\nwant %s: ...%s...", pe.Field, pe.Reason, tt.field, tt.want)
			}
			if want := "certificate ns/tls: " + tt.field + ": "; !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Error() = %q, want it to begin with %q", err, want)
			}
		})
	}
}

// FuzzParse holds Parse to its word: no panic, every error a ParseError with a reason, and nothing accepted
// that crypto/tls would refuse. With der the input is what goes inside the PEM blocks, so that mutations reach
// beyond the base64. Minimizing seeds of this size takes all day: run with -fuzzminimizetime 10x.
func FuzzParse(f *testing.F) {
	ca := theCA()
	for _, kind := range []string{KeyECDSA, KeyEd25519, KeyRSA, "P-224"} {
		leaf, key := ca.issue(kind, nil, "a.example", "*.b.example", "192.0.2.1")
		f.Add(certPEM(leaf, ca.inter), keyPEM(key), false)
		f.Add(certPEM(ca.inter, leaf), keyPEM(key), false)
		f.Add(keyPEM(key), certPEM(leaf), false)
		f.Add(leaf.Raw, must(x509.MarshalPKCS8PrivateKey(key)), true)
	}
	sec1 := must(x509.MarshalECPrivateKey(newKey(KeyECDSA).(*ecdsa.PrivateKey)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), block("EC PRIVATE KEY", sec1), false)
	f.Add(ca.inter.Raw, sec1, true)
	f.Add(file(f, "rsa512.crt"), file(f, "rsa512.key"), false)
	f.Add(file(f, "dsa.crt"), file(f, "dsa.key"), false)
	f.Fuzz(func(t *testing.T, crt, key []byte, der bool) {
		if der {
			crt, key = block("CERTIFICATE", crt), block("PRIVATE KEY", key)
		}
		c, err := Parse("ns/fuzz", crt, key)
		if err != nil {
			var pe *ParseError
			if !errors.As(err, &pe) || pe.Reason == "" || pe.Field == "" {
				t.Fatalf("Parse: %#v", err)
			}
			return
		}
		if _, err := tls.X509KeyPair(crt, key); err != nil {
			t.Fatalf("accepted what crypto/tls refuses: %v", err)
		}
		for _, n := range c.Names() {
			c.Covers(n)
		}
		c.Warnings(c.Leaf.NotAfter)
		s := NewSet(c, []Entry{{Host: "a.example", Certificates: []*Certificate{c}}})
		if len(s.Certificates()) != 1 {
			t.Fatal("the set does not list its one certificate")
		}
	})
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// padded is n bytes that begin with b.
func padded(n int, b []byte) []byte { return append(bytes.Clone(b), make([]byte, n-len(b))...) }

// file reads a key pair of a kind that crypto/x509 does not make (openssl req -x509 -newkey rsa:512, and dsa).
func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
