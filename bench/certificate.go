package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// hostName is what all requests ask for: a name that every resolver knows.
const hostName = "localhost"

// certificate is one of ECDSA P-256, as PEM.
type certificate struct {
	cert, key         []byte
	certFile, keyFile string
	bothFile          string // as HAProxy wants it
}

func makeCertificate(dir string) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: hostName}, DNSNames: []string{hostName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &certificate{
		cert:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:      pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key"), bothFile: filepath.Join(dir, "tls.pem"),
	}
	for file, b := range map[string][]byte{c.certFile: c.cert, c.keyFile: c.key, c.bothFile: slices.Concat(c.cert, c.key)} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func serverTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
}

// clientTLS is the same for all proxies: TLS 1.3, X25519, a certificate nobody has to trust,
// and no session to resume.
func clientTLS(protocol string) *tls.Config {
	return &tls.Config{
		ServerName: hostName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{protocol},
	}
}
