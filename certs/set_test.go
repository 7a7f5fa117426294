package certs

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Hellos of clients that differ in the keys they can verify.
var (
	modern = tls.ClientHelloInfo{
		SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		SupportedPoints:   []uint8{0},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.Ed25519},
	}
	noECDSA  = with(modern, func(h *tls.ClientHelloInfo) { h.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256} })
	onlyEd   = with(modern, func(h *tls.ClientHelloInfo) { h.SignatureSchemes = []tls.SignatureScheme{tls.Ed25519} })
	tls12RSA = with(modern, func(h *tls.ClientHelloInfo) {
		h.SupportedVersions = []uint16{tls.VersionTLS12}
		h.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	})
	noneOfOur = with(modern, func(h *tls.ClientHelloInfo) { h.SignatureSchemes = []tls.SignatureScheme{0x0808} })
)

func with(h tls.ClientHelloInfo, change func(*tls.ClientHelloInfo)) tls.ClientHelloInfo {
	change(&h)
	return h
}

func TestChooseHost(t *testing.T) {
	t.Parallel()
	cert := func(name string) *Certificate { return newCert(t, name, KeyECDSA, "any.example") }
	fallback := cert("fallback")
	var entries []Entry
	for _, host := range []string{"a.example", "*.a.example", "*.B.example.", "UP.example", "*.x.b.example", "xn--bcher-kva.example", "local"} {
		entries = append(entries, Entry{host, []*Certificate{cert(host)}})
	}
	entries = append(entries, Entry{"", []*Certificate{cert("none")}}, Entry{"*", []*Certificate{cert("star")}},
		Entry{"nothing.a.example", nil}, Entry{"nil.a.example", []*Certificate{nil}})
	s := NewSet(fallback, entries)

	for sni, want := range map[string]string{
		"a.example":             "a.example",
		"A.Example":             "a.example",
		"a.example.":            "a.example",
		"x.a.example":           "*.a.example",
		"X.A.EXAMPLE.":          "*.a.example",
		"x.y.a.example":         "fallback",
		"nothing.a.example":     "*.a.example", // an entry without certificates says nothing
		"nil.a.example":         "*.a.example",
		"b.example":             "fallback",
		"x.b.example":           "*.B.example.",
		"y.x.b.example":         "*.x.b.example",
		"up.example":            "UP.example",
		"xn--bcher-kva.example": "xn--bcher-kva.example",
		"local":                 "local",
		"":                      "fallback",
		".":                     "fallback",
		"..":                    "fallback",
		".a.example":            "fallback",
		"example":               "fallback",
		"10.0.0.1":              "fallback",
		"::1":                   "fallback",
		"loca\u212a":            "fallback",
	} {
		hello := with(modern, func(h *tls.ClientHelloInfo) { h.ServerName = sni })
		if got := s.Choose(&hello); got.Name != want {
			t.Errorf("Choose(%q) = %s, want %s", sni, got.Name, want)
		}
	}

	if got := NewSet(nil, entries).Choose(&tls.ClientHelloInfo{ServerName: "b.example"}); got != nil {
		t.Errorf("without a fallback: %s", got.Name)
	}
	if got := s.Lookup("X.a.example"); len(got) != 1 || got[0].Name != "*.a.example" {
		t.Errorf("Lookup of a host under a wildcard: %v", names(got))
	}
	if got := s.Lookup("*.b.example"); len(got) != 1 || got[0].Name != "*.B.example." {
		t.Errorf("Lookup of a pattern: %v", names(got))
	}
	if got := s.Lookup("b.example"); got != nil {
		t.Errorf("Lookup of a host left to the fallback: %v", names(got))
	}
}

func TestChooseKeyType(t *testing.T) {
	t.Parallel()
	const host = "a.example"
	ecdsa, rsa, ed := newCert(t, "ecdsa", KeyECDSA, host), newCert(t, "rsa", KeyRSA, host), newCert(t, "ed", KeyEd25519, host)
	foreign := newCert(t, "foreign", KeyECDSA, "other.example")
	for _, tt := range []struct {
		name  string
		certs []*Certificate
		hello tls.ClientHelloInfo
		want  string
	}{
		{"ECDSA first", []*Certificate{rsa, ed, ecdsa}, modern, "ecdsa"},
		{"RSA for a client without ECDSA", []*Certificate{ecdsa, rsa}, noECDSA, "rsa"},
		{"RSA by the suites of TLS 1.2", []*Certificate{ecdsa, rsa}, tls12RSA, "rsa"},
		{"Ed25519 when it is all the client knows", []*Certificate{ecdsa, rsa, ed}, onlyEd, "ed"},
		{"the last when none will do", []*Certificate{rsa, ecdsa}, noneOfOur, "rsa"},
		{"an only one is not weighed", []*Certificate{ecdsa}, noECDSA, "ecdsa"},
		{"covering before cheap", []*Certificate{foreign, rsa}, modern, "rsa"},
		{"an only one that does not cover", []*Certificate{foreign}, modern, "foreign"},
		{"a choice of such still answers", []*Certificate{foreign, newCert(t, "foreign-rsa", KeyRSA, "other.example")}, modern, "foreign"},
	} {
		tt.hello.ServerName = host
		if got := NewSet(nil, []Entry{{host, tt.certs}}).Choose(&tt.hello); got.Name != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got.Name, tt.want)
		}
	}
}

func TestMergedEntries(t *testing.T) {
	t.Parallel()
	const host = "x.a.example"
	first, second := newCert(t, "first", KeyECDSA, host), newCert(t, "second", KeyECDSA, "*.a.example")
	foreign, rsa := newCert(t, "foreign", KeyECDSA, "other"), newCert(t, "rsa", KeyRSA, host)
	for _, tt := range []struct {
		name    string
		entries []Entry
		want    string
	}{
		{"first wins", []Entry{{host, []*Certificate{first}}, {host, []*Certificate{second}}}, "first"},
		{"in the given order", []Entry{{host, []*Certificate{second}}, {host, []*Certificate{first}}}, "second"},
		{"one of each key type", []Entry{{host, []*Certificate{rsa}}, {"X.A.example.", []*Certificate{first, second}}}, "first rsa"},
		{"covering wins", []Entry{{host, []*Certificate{foreign}}, {host, []*Certificate{first}}}, "first"},
		{"the same twice", []Entry{{host, []*Certificate{first, first}}, {host, []*Certificate{first}}}, "first"},
	} {
		if got := strings.Join(names(NewSet(nil, tt.entries).Lookup(host)), " "); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestSetKeepsNothingOfTheCaller changes what a set was made from and what it gave away.
func TestSetKeepsNothingOfTheCaller(t *testing.T) {
	t.Parallel()
	a, b := newCert(t, "a", KeyECDSA, "a.example"), newCert(t, "b", KeyECDSA, "b.example")
	mine := []*Certificate{a}
	entries := []Entry{{"a.example", mine}, {"b.example", []*Certificate{b}}}
	s := NewSet(nil, entries)
	mine[0], entries[0].Host = b, "c.example"
	s.Lookup("a.example")[0] = nil
	if got := s.Lookup("a.example"); len(got) != 1 || got[0] != a {
		t.Error("the set changed under its user")
	}
	a.Names()[0] = "changed"
	if !a.Covers("a.example") || a.Names()[0] != "a.example" {
		t.Error("the certificate changed under its user")
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	shared := newCert(t, "ns/shared", KeyECDSA, "*.a.example", "a.example")
	rsa := newCert(t, "ns/rsa", KeyRSA, "a.example")
	fallback := newCert(t, "ns/default", KeyECDSA, "default.example")
	s := NewSet(fallback, []Entry{
		{"a.example", []*Certificate{shared, rsa}}, {"*.a.example", []*Certificate{shared}},
	})
	got := s.Certificates()
	info := func(c *Certificate, isDefault bool, hosts ...string) Info {
		return Info{c.Name, hosts, isDefault, c.Names(), "CN=Test Intermediate", c.Leaf.NotBefore, c.Leaf.NotAfter, c.KeyType(), c.Fingerprint()}
	}
	want := []Info{info(fallback, true, []string{}...), info(rsa, false, "a.example"), info(shared, false, "*.a.example", "a.example")}
	want[0].Hosts = []string{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Certificates() (-want +got):\n%s", diff)
	}
	text := string(must(json.Marshal(got)))
	if !strings.Contains(text, `"hosts":[]`) || strings.Contains(strings.ToLower(text), "private") {
		t.Errorf("as JSON: %s", text)
	}
}

// TestChooseAllocates nothing, whatever the host has; with several certificates crypto/tls allocates a little
// in SupportsCertificate, and we add nothing to it.
func TestChooseAllocates(t *testing.T) {
	ecdsa, rsa := newCert(t, "ecdsa", KeyECDSA, "a.example"), newCert(t, "rsa", KeyRSA, "a.example")
	s := NewSet(ecdsa, []Entry{{"one.example", []*Certificate{ecdsa}}, {"*.w.example", []*Certificate{ecdsa}}, {"two.example", []*Certificate{ecdsa, rsa}}})
	for _, sni := range []string{"one.example", "one.example.", "x.w.example", "unknown.example", ""} {
		hello := with(modern, func(h *tls.ClientHelloInfo) { h.ServerName = sni })
		if n := testing.AllocsPerRun(100, func() { s.Choose(&hello) }); n != 0 {
			t.Errorf("%q: %v allocations", sni, n)
		}
	}
	two := with(modern, func(h *tls.ClientHelloInfo) { h.ServerName = "two.example" })
	nameless := modern
	theirs := testing.AllocsPerRun(100, func() { _ = nameless.SupportsCertificate(ecdsa.TLS()) })
	if ours := testing.AllocsPerRun(100, func() { s.Choose(&two) }); ours > theirs {
		t.Errorf("two certificates: %v allocations, of which crypto/tls makes %v", ours, theirs)
	}
}

func names(certs []*Certificate) (out []string) {
	for _, c := range certs {
		out = append(out, c.Name)
	}
	return out
}

// manyEntries is n hosts with a certificate each: all their own when distinct, else one shared by all.
// The certificates are copies of one, as making so many keys would take minutes.
func manyEntries(t testing.TB, n int, distinct bool) []Entry {
	t.Helper()
	base := newCert(t, "ns/tls", KeyECDSA, "a.example")
	entries := make([]Entry, n)
	for i := range entries {
		c := base
		if distinct {
			other := *base
			c = &other
		}
		entries[i] = Entry{fmt.Sprintf("host-%d.example.com", i), []*Certificate{c}}
	}
	return entries
}

// Wanted: 10,000 hosts in under 30 ms.
func BenchmarkNewSet(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("hosts=%d", n), func(b *testing.B) {
			entries := manyEntries(b, n, true)
			before := heap()
			kept := NewSet(nil, entries)
			size := float64(int64(heap())-int64(before)) / float64(n)
			b.ReportAllocs()
			for b.Loop() {
				NewSet(nil, entries)
			}
			b.ReportMetric(size, "heap-B/host")
			runtime.KeepAlive(kept)
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Wanted: under 200 ns and 0 allocations, the same at every size.
func BenchmarkChoose(b *testing.B) {
	rsa := newCert(b, "ns/rsa", KeyRSA, "two.example")
	ecdsa := newCert(b, "ns/ecdsa", KeyECDSA, "two.example")
	for _, n := range []int{10, 10_000, 100_000} {
		entries := append(manyEntries(b, n, false),
			Entry{"*.wild.example.com", []*Certificate{ecdsa}}, Entry{"two.example", []*Certificate{ecdsa, rsa}})
		s := NewSet(ecdsa, entries)
		for _, sni := range []string{"host-7.example.com", "x.wild.example.com", "unknown.example.com", "HOST-7.example.com", "two.example"} {
			b.Run(fmt.Sprintf("hosts=%d/%s", n, sni), func(b *testing.B) {
				hello := with(modern, func(h *tls.ClientHelloInfo) { h.ServerName = sni })
				b.ReportAllocs()
				for b.Loop() {
					s.Choose(&hello)
				}
			})
		}
	}
}
