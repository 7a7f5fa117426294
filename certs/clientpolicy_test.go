package certs

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// clientCert makes a client's certificate, with the test CA's intermediate or without.
func clientCert(t testing.TB, withInter bool, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	leaf, key := theCA().issue(KeyECDSA, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "client"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if change != nil {
			change(c)
		}
	})
	chain := [][]byte{leaf.Raw}
	if withInter {
		chain = append(chain, theCA().inter.Raw)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
}

func parsed(c tls.Certificate) []*x509.Certificate {
	var all []*x509.Certificate
	for _, der := range c.Certificate {
		all = append(all, must(x509.ParseCertificate(der)))
	}
	return all
}

// stranger is a client's certificate of nobody.
func stranger(change func(*x509.Certificate)) tls.Certificate {
	key := newKey(KeyECDSA)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "stranger"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	leaf := sign(template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func authority(t testing.TB, all ...*x509.Certificate) *Authority {
	t.Helper()
	return must(ParseAuthority("ns/ca", certPEM(all...)))
}

func TestClientPolicyVerify(t *testing.T) {
	t.Parallel()
	root, inter := authority(t, theCA().root), authority(t, theCA().inter)
	old := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = c.NotBefore.Add(-time.Hour), time.Now().Add(-time.Minute)
	}
	server := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	good, alone := parsed(clientCert(t, true, nil)), parsed(clientCert(t, false, nil))
	unknown := parsed(stranger(nil))
	const noIssuer = "FAILED:unable to verify the first certificate"
	for _, tt := range []struct {
		name    string
		by      *Authority
		depth   int
		shown   []*x509.Certificate
		verdict string
		ok      [3]bool // on, optional, optional_no_ca
	}{
		{"none", root, 1, nil, "NONE", [3]bool{false, true, true}},
		{"good", root, 1, good, "SUCCESS", [3]bool{true, true, true}},
		{"too deep", root, 0, good, "FAILED:certificate chain too long", [3]bool{}},
		{"by the intermediate itself", inter, 0, alone, "SUCCESS", [3]bool{true, true, true}},
		{"intermediate missing", root, 1, alone, noIssuer, [3]bool{false, false, true}},
		{"of nobody", root, 1, unknown, noIssuer, [3]bool{false, false, true}},
		{"of nobody, with a good one behind", root, 1, append(unknown[:1:1], good...), noIssuer, [3]bool{false, false, true}},
		{"expired", root, 1, parsed(clientCert(t, true, old)), "FAILED:certificate has expired", [3]bool{}},
		{"of nobody, and expired", root, 1, parsed(stranger(old)), "FAILED:certificate has expired", [3]bool{}},
		{"a server's", root, 1, parsed(clientCert(t, true, server)), "FAILED:unsupported certificate purpose", [3]bool{}},
	} {
		for i, mode := range []ClientMode{ClientRequired, ClientOptional, ClientOptionalNoCA} {
			p := &ClientPolicy{Mode: mode, Authority: tt.by, Depth: tt.depth}
			if verdict, ok := p.Verify(tt.shown, time.Now()); verdict != tt.verdict || ok != tt.ok[i] {
				t.Errorf("%s, %s: %q %v, want %q %v", tt.name, mode, verdict, ok, tt.verdict, tt.ok[i])
			}
		}
	}
}

func TestParseAuthorityRefuses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                               "is empty",
		"nonsense":                       "no PEM block",
		string(keyPEM(newKey(KeyECDSA))): "no CERTIFICATE block",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "not valid X.509",
	} {
		_, err := ParseAuthority("ns/ca", []byte(in))
		parse, ok := errors.AsType[*ParseError](err)
		if !ok || parse.Field != FieldAuthority || !strings.Contains(parse.Reason, want) {
			t.Errorf("%.40q: %v, want %s", in, err, want)
		}
	}
}

func TestPolicyOfAHost(t *testing.T) {
	t.Parallel()
	one, two := &ClientPolicy{Mode: ClientRequired, Depth: 1}, &ClientPolicy{Mode: ClientOptional}
	s := NewSet(nil, nil).WithPolicies([]PolicyEntry{{"a.example", one}, {"*.b.example", two}, {"free.b.example", nil}})
	for host, want := range map[string]*ClientPolicy{
		"a.example": one, "A.Example.": one, "x.a.example": nil, "x.b.example": two, "b.example": nil, "x.y.b.example": nil, "free.b.example": nil, "": nil,
	} {
		if got := s.Policy(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

// askedLive has two hosts that ask for certificates and one that does not.
func askedLive(t testing.TB, p *ClientPolicy) *Live {
	t.Helper()
	all := newCert(t, "ns/tls", KeyECDSA, "a.example", "b.example", "open.example")
	l := new(Live)
	l.Store(NewSet(all, nil).WithPolicies([]PolicyEntry{{"a.example", p}, {"b.example", p}}))
	return l
}

// A handshake asks where the host has a policy, and refuses nobody.
func TestHandshakesAskForCertificates(t *testing.T) {
	t.Parallel()
	live := askedLive(t, &ClientPolicy{Mode: ClientRequired, Authority: authority(t, theCA().root), Depth: 1})
	config := live.TLSConfig("http/1.1")
	seen := make(chan int, 1)
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		seen <- len(cs.PeerCertificates)
		return nil
	}
	addr, _ := echo(t, config)
	good, bad := clientCert(t, true, nil), stranger(nil)
	show := func(c tls.Certificate) func(*tls.Config) {
		return func(config *tls.Config) {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
		}
	}
	for _, tt := range []struct {
		name, sni string
		change    func(*tls.Config)
		want      int
	}{
		{"good", "a.example", show(good), 2},
		{"of nobody", "a.example", show(bad), 1},
		{"none", "a.example", nil, 0},
		{"not asked", "open.example", show(good), 0},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := mustDial(t, addr, tt.sni, func(c *tls.Config) {
				c.MaxVersion = version
				if tt.change != nil {
					tt.change(c)
				}
			})
			say(t, c, "hello")
			if n := <-seen; n != tt.want {
				t.Errorf("%s, %s: %d certificates, want %d", tt.name, tls.VersionName(version), n, tt.want)
			}
		}
	}
}

// A session brings its certificate back, and only to the host and the policy it was made for.
func TestSessionsOfAskedClients(t *testing.T) {
	t.Parallel()
	root := &ClientPolicy{Mode: ClientRequired, Authority: authority(t, theCA().root), Depth: 1}
	inter := &ClientPolicy{Mode: ClientRequired, Authority: authority(t, theCA().inter), Depth: 1}
	same := &ClientPolicy{Mode: ClientRequired, Authority: authority(t, theCA().root), Depth: 1}
	for _, tt := range []struct {
		name    string
		shows   bool
		to      string
		then    *ClientPolicy // takes over in between
		resumes bool
	}{
		{"same host", true, "a.example", root, true},
		{"an equal policy", true, "a.example", same, true},
		{"no certificate", false, "a.example", root, false},
		{"other host, same policy", true, "b.example", root, false},
		{"other CA", true, "a.example", inter, false},
		{"a host without a policy", true, "open.example", root, false},
		{"no policy any more", true, "a.example", nil, false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			live := askedLive(t, root)
			config := live.TLSConfig()
			var shown int
			config.VerifyConnection = func(cs tls.ConnectionState) error { shown = len(cs.PeerCertificates); return nil }
			addr, _ := echo(t, config)
			cache, mine := new(oneTicket), clientCert(t, true, nil)
			change := func(c *tls.Config) {
				c.MaxVersion, c.ClientSessionCache = version, cache
				if tt.shows {
					c.Certificates = []tls.Certificate{mine}
				}
			}
			say(t, mustDial(t, addr, "a.example", change), "first")
			live.Store(live.Load().WithPolicies([]PolicyEntry{{"a.example", tt.then}, {"b.example", tt.then}}))
			c := mustDial(t, addr, tt.to, change)
			say(t, c, "second")
			if got := c.ConnectionState().DidResume; got != tt.resumes {
				t.Errorf("%s, %s: resumed %v, want %v", tt.name, tls.VersionName(version), got, tt.resumes)
			}
			if tt.resumes && shown != 2 {
				t.Errorf("%s, %s: the session brought %d certificates back", tt.name, tls.VersionName(version), shown)
			}
		}
	}
}
