package filter

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"regexp"
	"testing"
	"time"
)

func TestDistinguishedName(t *testing.T) {
	raw := func(name pkix.RDNSequence) []byte {
		b, err := asn1.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	attribute := func(oid asn1.ObjectIdentifier, value any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: oid, Value: value}
	}
	cn, o, mail := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	// The right-hand sides are what OpenSSL writes (X509_NAME_print_ex, XN_FLAG_RFC2253).
	for _, tt := range []struct {
		name pkix.RDNSequence
		want string
	}{
		{pkix.RDNSequence{{attribute(o, "Shop")}, {attribute(cn, "client")}}, "CN=client,O=Shop"},
		{pkix.RDNSequence{{attribute(o, "Shop"), attribute(cn, "client")}}, "O=Shop+CN=client"},
		{pkix.RDNSequence{{attribute(mail, "a@a.example")}}, "emailAddress=a@a.example"},
		{pkix.RDNSequence{{attribute(cn, `a,b+"c\<d>;`)}}, `CN=a\,b\+\"c\\\<d\>\;`},
		{pkix.RDNSequence{{attribute(cn, "#a ")}}, `CN=\#a\ `},
		{pkix.RDNSequence{{attribute(cn, " ")}}, `CN=\ `},
		{pkix.RDNSequence{{attribute(cn, "Zoë")}}, `CN=Zo\C3\AB`},
		{pkix.RDNSequence{{attribute(cn, "a\r\nssl-client-verify: SUCCESS")}}, `CN=a\0D\0Assl-client-verify: SUCCESS`},
		{pkix.RDNSequence{{attribute(asn1.ObjectIdentifier{1, 2, 3}, "x")}}, "1.2.3=#130178"},
		{nil, ""},
	} {
		if got := string(distinguishedName(raw(tt.name))); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if got := distinguishedName([]byte("no name")); got != nil {
		t.Errorf("of no name: %q", got)
	}
}

func FuzzDistinguishedName(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, c := range distinguishedName(raw) {
			if c < 0x20 || c >= 0x7f {
				t.Fatalf("%q is not fit for a field", distinguishedName(raw))
			}
		}
	})
}

func TestEscaped(t *testing.T) {
	if got, want := string(escaped([]byte("-----BEGIN CERTIFICATE-----\nab+/=~_.\n"))), "-----BEGIN%20CERTIFICATE-----%0Aab%2B%2F%3D~_.%0A"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The whole name has to match, and another attribute does not count.
func TestClientCertificateName(t *testing.T) {
	f := NewClientCertificate(ClientCertificateConfig{
		Verify: func([]*x509.Certificate, time.Time) (string, bool) { return "SUCCESS", true },
		Name:   regexp.MustCompile(`\A(?:CN=(a|b))\z`),
	})
	for name, want := range map[string]int{"a": 0, "b": 0, "ab": 403, "c": 403, "": 403, "c,CN=a": 403, "a\n": 403} {
		shown := []*x509.Certificate{{Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{"CN=a"}}}}
		if id := f.judge(shown); id.Status != want {
			t.Errorf("%q: status %d, want %d", name, id.Status, want)
		}
	}
	if id := f.judge(nil); id.Status != 403 {
		t.Errorf("no certificate: status %d", id.Status)
	}
}
