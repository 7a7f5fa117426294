package engine

import "crypto/x509"

// ClientIdentity is what somebody made of the certificate of a client. It is immutable.
type ClientIdentity struct {
	// By is whoever made it; another one makes its own.
	By any
	// Status is what requests are answered instead of being served; 0: they are served.
	Status int
	// What the upstream is told: the verdict, both names, and the certificate; nothing of
	// what is empty.
	Verdict, Subject, Issuer, Certificate []byte
}

// PeerCertificates are what the client showed in its TLS handshake, its own first. It has the
// key of the first one; nothing else about them has been verified.
func (x *Exchange) PeerCertificates() []*x509.Certificate { return x.peer.shown }

// KnownIdentity is what was last made of the client's certificate, on this connection, by
// anybody; or nil.
func (x *Exchange) KnownIdentity() *ClientIdentity { return x.peer.identity.Load() }

// Identify says whom the request is from. The connection remembers it.
func (x *Exchange) Identify(id *ClientIdentity) {
	x.identity = id
	if x.peer.identity.Load() != id {
		x.peer.identity.Store(id)
	}
}

// Identity is what Identify said of this request, or nil.
func (x *Exchange) Identity() *ClientIdentity { return x.identity }
