package e2e

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/suite"
)

// authority issues certificates that the clients of a test trust.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	file string // the certificate, for curl --cacert
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "Portico's tests " + t.Name()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, file: filepath.Join(t.TempDir(), "ca.crt"), pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	if err := os.WriteFile(a.file, pemOf("CERTIFICATE", der), 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issued is a certificate as it stands in a Secret.
type issued struct {
	crt, key []byte
	serial   string
	notAfter time.Time
}

// issue makes a certificate; keyType is "ECDSA" or "RSA".
func (a *authority) issue(t *testing.T, keyType string, life time.Duration, names ...string) issued {
	t.Helper()
	var key crypto.Signer
	var err error
	if keyType == "RSA" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	notAfter := time.Now().Add(life).Truncate(time.Second)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return issued{pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", keyDER), serial.Text(16), notAfter}
}

// putSecret creates a TLS Secret, or gives one other contents.
func putSecret(t *testing.T, namespace, name string, crt, key []byte) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: crt, corev1.TLSPrivateKeyKey: key},
	}
	secrets := client.CoreV1().Secrets(namespace)
	_, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// handshake makes a TLS connection from the client host to a replica's node, and
// says what came of it.
func (e *edge) handshake(ctx context.Context, config *tls.Config) (tls.ConnectionState, error) {
	return handshakeAt(ctx, e.next(), e.https, config)
}

func handshakeAt(ctx context.Context, node string, port int, config *tls.Config) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := up.DialClient(ctx, "tcp", netJoin(node, port))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = raw.Close() }()
	c := config.Clone()
	c.InsecureSkipVerify = true // what comes is what the test looks at
	conn := tls.Client(raw, c)
	if err := conn.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.ConnectionState(), nil
}

// waitCertificate waits until every replica serves that certificate to clients
// who ask for the name.
func (e *edge) waitCertificate(t *testing.T, serverName, serial string) {
	t.Helper()
	suite.Wait(t, 15*time.Second, "certificate of "+serverName, func(ctx context.Context) string {
		for range e.all() {
			state, err := e.handshake(ctx, &tls.Config{ServerName: serverName})
			if err != nil {
				return err.Error()
			}
			if got := state.PeerCertificates[0]; got.SerialNumber.Text(16) != serial {
				return "it is one for " + got.Subject.String() + " " + got.SerialNumber.Text(16)
			}
		}
		return ""
	})
}

// tlsFor asks for the certificate of a host.
func tlsFor(host string) *tls.Config { return &tls.Config{ServerName: host} }
