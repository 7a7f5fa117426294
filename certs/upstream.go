package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// Upstream says how TLS is spoken to an upstream. The zero value is nginx's: no server name
// is sent and no certificate is looked at.
type Upstream struct {
	// ServerName is sent to the upstream (RFC 6066 section 3); "" sends none.
	ServerName string
	// Verify asks for a certificate of the upstream that a CA has signed, is within its dates,
	// and is for Name.
	Verify bool
	// Name is what the certificate has to be for: a host name or an IP address.
	Name string
	// Roots are the CAs; nil means those of the system.
	Roots *x509.CertPool
	// Depth is how many intermediate CAs there may be.
	Depth int
	// Client is our own certificate; nil: none.
	Client *Certificate
	// HTTP2 offers "h2" by ALPN.
	HTTP2 bool
}

// FieldCA is the field of a Secret that holds the CAs, beside FieldCertificate and FieldKey.
const FieldCA = "ca.crt"

// ParseRoots reads CAs from PEM. Every error is a [*ParseError].
func ParseRoots(name string, caPEM []byte) (*x509.CertPool, error) {
	chain, reason := parseChain(caPEM)
	if reason != "" {
		return nil, &ParseError{name, FieldCA, reason}
	}
	pool := x509.NewCertPool()
	for _, c := range chain {
		pool.AddCert(c)
	}
	return pool, nil
}

// sessions is how many TLS sessions of one upstream are kept to be resumed.
const sessions = 64

// Config makes what connections to the upstream share.
func (u Upstream) Config() *tls.Config {
	c := &tls.Config{
		ServerName:         u.ServerName,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
		// What crypto/tls would do is done below: it verifies the name that it sends, and
		// knows no depth.
		InsecureSkipVerify: true, //nolint:gosec // see above; without Verify the user wants it, as with nginx
	}
	if u.HTTP2 {
		c.NextProtos = []string{"h2"}
	}
	if u.Client != nil {
		pair := u.Client.pair
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	if u.Verify {
		c.VerifyConnection = u.verify
	}
	return c
}

var errNoPeer = errors.New("the upstream has sent no certificate")

// verify is called once a handshake, a resumed one included.
func (u Upstream) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errNoPeer
	}
	options := x509.VerifyOptions{DNSName: u.Name, Roots: u.Roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	chains, err := s.PeerCertificates[0].Verify(options)
	if err != nil {
		return fmt.Errorf("certificate of the upstream: %w", err)
	}
	for _, chain := range chains {
		if len(chain)-2 <= u.Depth { // the leaf and the root do not count
			return nil
		}
	}
	return fmt.Errorf("certificate of the upstream: more than %d intermediate CAs", u.Depth)
}
