package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// Anybody who may write a Secret writes what is parsed here, so everything has a bound.
const (
	maxInput   = 1 << 20 // bytes of tls.crt, and of tls.key: what a Secret can hold
	maxBlocks  = 32      // PEM blocks in either
	maxKeyDER  = 8 << 10 // bytes of one private key; RSA with 8192 bits takes under 5 KiB
	minRSABits = 1024    // crypto/rsa signs with nothing smaller
	maxRSABits = 8192    // crypto/tls clients accept nothing larger
)

// The two fields of a Secret of type kubernetes.io/tls, as [ParseError.Field] names them.
const (
	FieldCertificate = "tls.crt"
	FieldKey         = "tls.key"
)

// ParseError says which half of a key pair is wrong, what is wrong with it, and what to do.
type ParseError struct {
	Name   string // as given to Parse
	Field  string // FieldCertificate or FieldKey
	Reason string // one sentence for the owner of the Secret; never any of the key
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("certificate %s: %s: %s", e.Name, e.Field, e.Reason)
}

// Parse reads a key pair from PEM: in certPEM the leaf first, then the intermediates in any order (an odd
// order is a warning), in keyPEM one private key in PKCS #8, PKCS #1 or SEC 1 form, not encrypted. Text
// between blocks and blocks of other kinds (EC PARAMETERS, for one) are skipped, as by crypto/tls; a damaged
// block is an error, because skipping it would silently shorten the chain. What Parse accepts,
// [tls.X509KeyPair] accepts too. Every error is a [*ParseError].
//
// Dates are not judged here, see [Certificate.Expired] and [Certificate.Warnings].
func Parse(name string, certPEM, keyPEM []byte) (*Certificate, error) {
	chain, reason := parseChain(certPEM)
	if reason != "" {
		return nil, &ParseError{name, FieldCertificate, reason}
	}
	key, reason := parseKey(keyPEM)
	if reason != "" {
		return nil, &ParseError{name, FieldKey, reason}
	}
	if field, reason := matchKey(chain, key); reason != "" {
		return nil, &ParseError{name, field, reason}
	}
	pair := tls.Certificate{PrivateKey: key}
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return newCertificate(name, pair, chain), nil
}

// parseChain returns the certificates of tls.crt with a leaf that TLS can use, or the reason it cannot.
func parseChain(in []byte) (chain []*x509.Certificate, reason string) {
	blocks, reason := parseBlocks(in)
	if reason != "" {
		return nil, reason
	}
	blocks, others := split(blocks, func(kind string) bool { return kind == "CERTIFICATE" })
	switch {
	case len(blocks) == 0 && slices.ContainsFunc(others, isPrivateKey):
		return nil, "holds a private key and no certificate: tls.crt and tls.key look swapped"
	case len(blocks) == 0:
		return nil, "holds no CERTIFICATE block, only " + list(others) + ": put the certificate in PEM form here"
	}
	for i, b := range blocks {
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Sprintf("certificate %d of %d is not valid X.509 (%v): copy it again from your CA", i+1, len(blocks), err)
		}
		chain = append(chain, c)
	}
	return chain, checkPublicKey(chain[0])
}

// checkPublicKey says why no TLS server can use this certificate's key; "" if one can.
func checkPublicKey(c *x509.Certificate) (reason string) {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Sprintf("the RSA key has %d bits and TLS works with %d to %d: issue the certificate again with 2048 bits, or with ECDSA P-256", n, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return fmt.Sprintf("the ECDSA key is on curve %s, which TLS does not use: issue the certificate again with P-256", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Sprintf("the certificate has a key of an unsupported kind (%s): issue it again with ECDSA P-256 or RSA", c.PublicKeyAlgorithm)
	}
	return ""
}

// parseKey returns the one private key of tls.key, or the reason there is none. It never quotes the input.
func parseKey(in []byte) (key crypto.Signer, reason string) {
	blocks, reason := parseBlocks(in)
	if reason != "" {
		return nil, reason
	}
	blocks, others := split(blocks, isPrivateKey)
	switch {
	case len(blocks) == 0 && slices.Contains(others, "CERTIFICATE"):
		return nil, "holds a certificate and no private key: put the key here, in PEM form (are tls.crt and tls.key swapped?)"
	case len(blocks) == 0 && slices.Contains(others, "PUBLIC KEY"):
		return nil, "holds a public key: put the private key here"
	case len(blocks) == 0:
		return nil, "holds no PRIVATE KEY block, only " + list(others) + ": put the private key in PEM form here"
	case len(blocks) > 1:
		return nil, fmt.Sprintf("holds %d private keys: keep the one that belongs to the certificate", len(blocks))
	}
	b := blocks[0]
	switch {
	case b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, "the private key is encrypted with a passphrase: store it decrypted (openssl pkey -in FILE -out FILE)"
	case b.Type == "OPENSSH PRIVATE KEY":
		return nil, "the private key is an SSH key: put the key the certificate was made with here, in PKCS #8 form"
	case len(b.Bytes) > maxKeyDER:
		return nil, fmt.Sprintf("the private key is larger than %d KiB: no key that TLS uses is", maxKeyDER>>10)
	}
	// As crypto/tls does, trust the bytes and not the label: tools mix the two up. The errors of the parsers
	// are not shown: three of them for one key confuse more than they tell.
	var parsed any
	if k, err := x509.ParsePKCS1PrivateKey(b.Bytes); err == nil {
		parsed = k
	} else if k, err := x509.ParsePKCS8PrivateKey(b.Bytes); err == nil {
		parsed = k
	} else if k, err := x509.ParseECPrivateKey(b.Bytes); err == nil {
		parsed = k
	} else {
		return nil, "the private key cannot be read as PKCS #8, PKCS #1 or SEC 1: copy it again, or convert it (openssl pkey -in FILE -out FILE)"
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		return k, ""
	case *ecdsa.PrivateKey:
		return k, ""
	case ed25519.PrivateKey:
		return k, ""
	}
	return nil, "the private key is of a kind that cannot sign (X25519): use ECDSA, RSA or Ed25519"
}

// matchKey says which field is wrong, and how, when the key is not the first certificate's.
func matchKey(chain []*x509.Certificate, key crypto.Signer) (field, reason string) {
	public := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) })
	have, want := keyType(key.Public()), keyType(chain[0].PublicKey)
	switch {
	case i == 0:
		return "", ""
	case i > 0:
		return FieldCertificate, fmt.Sprintf("the chain is in the wrong order: the private key belongs to certificate %d of %d (%s); put that one first, then its issuers", i+1, len(chain), title(chain[i]))
	case have != want:
		return FieldKey, fmt.Sprintf("the private key is %s and the certificate (%s) is for %s: use the key the certificate was made with", have, title(chain[0]), want)
	}
	return FieldKey, fmt.Sprintf("the private key does not match the certificate (%s): use the key the certificate was made with", title(chain[0]))
}

// parseBlocks decodes all PEM blocks of a field, at least one and at most maxBlocks.
func parseBlocks(in []byte) (blocks []*pem.Block, reason string) {
	switch {
	case len(bytes.TrimSpace(in)) == 0:
		return nil, "is empty or missing"
	case len(in) > maxInput:
		return nil, fmt.Sprintf("is %d bytes, more than the %d allowed", len(in), maxInput)
	}
	begun := countBegins(in)
	if begun > maxBlocks {
		return nil, fmt.Sprintf("holds %d PEM blocks, more than the %d allowed: keep the certificate and its intermediates only", begun, maxBlocks)
	}
	for rest := in; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	switch {
	case len(blocks) < begun: // pem.Decode passes over what it cannot read without a word
		return nil, fmt.Sprintf("only %d of %d PEM blocks can be read: one is damaged or cut short; copy it again", len(blocks), begun)
	case len(blocks) == 0:
		return nil, "holds no PEM block (-----BEGIN ...-----): if it is DER, convert it; if it is base64 twice, decode it once"
	}
	return blocks, ""
}

// countBegins counts the lines that open a PEM block.
func countBegins(in []byte) int {
	begin := []byte("-----BEGIN ")
	n := bytes.Count(in, append([]byte("\n"), begin...))
	if bytes.HasPrefix(in, begin) {
		n++
	}
	return n
}

// split parts the blocks whose type is wanted from the types of the others.
func split(blocks []*pem.Block, want func(kind string) bool) (wanted []*pem.Block, others []string) {
	for _, b := range blocks {
		if want(b.Type) {
			wanted = append(wanted, b)
		} else {
			others = append(others, b.Type)
		}
	}
	return wanted, others
}

func isPrivateKey(kind string) bool {
	return kind == "PRIVATE KEY" || strings.HasSuffix(kind, " PRIVATE KEY")
}

// list names block types, each once and cut short: they are the user's text.
func list(kinds []string) string {
	kinds = slices.Compact(slices.Sorted(slices.Values(kinds)))
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%.40q", k)
	}
	return strings.Join(kinds, ", ")
}
