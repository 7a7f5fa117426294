package filter

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"regexp"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// ClientCertificateConfig says which clients a ClientCertificate lets in.
type ClientCertificateConfig struct {
	// Verify judges the certificates that a client showed, its own first. Verdict is for the
	// upstream; ok is false for what is refused with 400.
	Verify func(shown []*x509.Certificate, now time.Time) (verdict string, ok bool)
	// Name, if set, has to match all of "CN=" and the common name; else the answer is 403.
	Name *regexp.Regexp
	// ErrorPage, if set, is where clients are sent (302) instead of being answered 400.
	ErrorPage string
	// PassCertificate sends the certificate on, too, and not only its names.
	PassCertificate bool
	// Label names the policy in dumps.
	Label string
}

// ClientCertificate lets those in whose certificate is good enough, and tells the upstream
// whose it is in the fields that ingress-nginx has for it. A connection is judged once.
type ClientCertificate struct{ cfg ClientCertificateConfig }

// NewClientCertificate returns the filter. cfg.Verify must be set.
func NewClientCertificate(cfg ClientCertificateConfig) *ClientCertificate {
	return &ClientCertificate{cfg: cfg}
}

// Request answers those who may not pass.
//
// The handshake asked for a certificate only if its server name is one that has the policy: a
// request for this host on a connection that was made for another one has not been asked, or
// for other CAs' certificates. It gets 421 and goes on a connection of its own (RFC 9110
// section 15.5.20). One without any server name showed nothing, and is told so.
func (f *ClientCertificate) Request(x *engine.Exchange) (answered bool) {
	if name := x.ServerName(); x.TLS() && name != "" && !sameHost(name, x.Request.Host) {
		x.Reply(http.StatusMisdirectedRequest, textPlain, []byte("This connection was made for another host.\n"))
		return true
	}
	id := x.KnownIdentity()
	if id == nil || id.By != f {
		id = f.judge(x.PeerCertificates())
	}
	x.Identify(id)
	switch {
	case id.Status == 0:
		return false
	case id.Status == http.StatusBadRequest && f.cfg.ErrorPage != "":
		x.Redirect(http.StatusFound, []byte(f.cfg.ErrorPage))
	default:
		x.Reply(id.Status, textPlain, refusals[string(id.Verdict)])
	}
	return true
}

const textPlain = "text/plain; charset=utf-8"

// refusals are what clients read, by verdict.
var refusals = map[string][]byte{
	"NONE":    []byte("No required TLS client certificate was sent.\n"),
	"SUCCESS": []byte("This client certificate may not enter.\n"),
}

// Response changes nothing.
func (f *ClientCertificate) Response(*engine.Exchange) {}

// String names the filter in dumps.
func (f *ClientCertificate) String() string { return "client-certificate(" + f.cfg.Label + ")" }

func (f *ClientCertificate) judge(shown []*x509.Certificate) *engine.ClientIdentity {
	verdict, ok := f.cfg.Verify(shown, time.Now())
	id := &engine.ClientIdentity{By: f, Verdict: []byte(verdict)}
	if !ok {
		id.Status = http.StatusBadRequest
	}
	name := ""
	if len(shown) > 0 {
		id.Subject = distinguishedName(shown[0].RawSubject)
		id.Issuer = distinguishedName(shown[0].RawIssuer)
		name = "CN=" + shown[0].Subject.CommonName
		if f.cfg.PassCertificate {
			id.Certificate = escaped(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shown[0].Raw}))
		}
	}
	if ok && f.cfg.Name != nil && !f.cfg.Name.MatchString(name) {
		id.Status = http.StatusForbidden
	}
	return id
}

// sameHost compares a server name with a host in normal form. Both are ASCII.
func sameHost(name string, host []byte) bool {
	if len(name) != len(host) {
		return false
	}
	for i := range host {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != host[i] {
			return false
		}
	}
	return true
}

// escaped is the form of nginx's $ssl_client_escaped_cert: all but what RFC 3986 calls
// unreserved as %XX.
func escaped(b []byte) []byte {
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(b)+len(b)/8)
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			out = append(out, c)
		default:
			out = append(out, '%', hex[c>>4], hex[c&0xf])
		}
	}
	return out
}
