package certs

import (
	"testing"
)

func TestCoalesces(t *testing.T) { // not parallel, for it counts allocations
	fallback := newCert(t, "default", KeyECDSA, "default.example")
	wild := newCert(t, "a/wild", KeyECDSA, "*.w.example", "w.example", "free.example", "mine.example")
	own := newCert(t, "b/own", KeyECDSA, "own.w.example")
	ec, rsa := newCert(t, "c/ec", KeyECDSA, "both.example", "ec.example"), newCert(t, "c/rsa", KeyRSA, "both.example", "ec.example")
	s := NewSet(fallback, []Entry{
		{"*.w.example", []*Certificate{wild}},
		{"w.example", []*Certificate{wild}},
		{"lies.example", []*Certificate{wild}}, // which does not cover it
		{"own.w.example", []*Certificate{own}},
		{"shield.w.example", []*Certificate{fallback}},
		{"mine.example", []*Certificate{own}},
		{"both.example", []*Certificate{ec, rsa}},
		{"too.example", []*Certificate{rsa, ec}},
		{"ec.example", []*Certificate{ec}},
	})
	for _, tt := range []struct {
		serverName, host string
		want             bool
		why              string
	}{
		{"x.w.example", "x.w.example", true, "the same"},
		{"X.W.example", "x.w.example", true, "the same in another case"},
		{"x.w.example", "y.w.example", true, "the wildcard's"},
		{"x.w.example", "w.example", true, "named by the same certificate"},
		{"w.example", "x.w.example", true, "and the other way"},
		{"x.w.example", "lies.example", true, "shown the same one, whatever it covers"},
		{"x.w.example", "free.example", true, "covered, and has none of its own"},
		{"x.w.example", "mine.example", false, "covered, and has another one"},
		{"x.w.example", "own.w.example", false, "below the wildcard, and has its own"},
		{"own.w.example", "x.w.example", false, "and the other way"},
		{"x.w.example", "shield.w.example", false, "kept from the wildcard"},
		{"shield.w.example", "x.w.example", false, "and the other way"},
		{"x.w.example", "x.y.w.example", false, "two labels below the wildcard"},
		{"x.w.example", "nobody.example", false, "not covered"},
		{"x.w.example", "default.example", false, "covered by the fallback only"},
		{"x.w.example", "", false, "no host"},
		{"unknown.example", "nobody.example", true, "both left to the fallback"},
		{"unknown.example", "shield.w.example", true, "left to the fallback, and given it"},
		{"shield.w.example", "unknown.example", true, "and the other way"},
		{"unknown.example", "x.w.example", false, "another one than the fallback"},
		{"both.example", "too.example", true, "the same two"},
		{"both.example", "ec.example", false, "one of two"},
		{"", "x.w.example", true, "no name asks for nobody's"},
		{"", "nobody.example", true, "no name asks for nobody's"},
	} {
		if got := s.Coalesces(tt.serverName, []byte(tt.host)); got != tt.want {
			t.Errorf("Coalesces(%q, %q) = %v: %s", tt.serverName, tt.host, got, tt.why)
		}
	}
	asks := &ClientPolicy{}
	policed := s.WithPolicies([]PolicyEntry{{"y.w.example", asks}, {"z.w.example", asks}, {"*.sub.w.example", asks}})
	for _, tt := range []struct {
		serverName, host string
		want             bool
	}{
		{"x.w.example", "y.w.example", false},
		{"y.w.example", "x.w.example", false},
		{"y.w.example", "z.w.example", true},
		{"x.w.example", "v.w.example", true},
		{"unknown.example", "nobody.example", true},
		{"unknown.example", "a.sub.w.example", false},
	} {
		if got := policed.Coalesces(tt.serverName, []byte(tt.host)); got != tt.want {
			t.Errorf("where y, z and *.sub ask for certificates, Coalesces(%q, %q) = %v", tt.serverName, tt.host, got)
		}
	}
	var l Live
	if !l.Coalesces("a.example", []byte("b.example")) {
		t.Error("before the first set, of which no connection can be")
	}
	l.Store(s)
	for _, host := range []string{"own.w.example", "y.w.example", "free.example", "nobody.example"} {
		asked := []byte(host)
		if n := testing.AllocsPerRun(100, func() { l.Coalesces("x.w.example", asked) }); n != 0 {
			t.Errorf("asking for %s allocates %v times", host, n)
		}
	}
}

// FuzzCoalesces: coversName agrees with Covers, about names.
func FuzzCoalesces(f *testing.F) {
	c := newCert(f, "ns/tls", KeyECDSA, "a.example", "*.b.example", "*.single")
	for _, seed := range []string{"a.example", "x.b.example", ".b.example", "b.example", "x.single", "", ".", "*.b.example", "x.y.b.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if host != normalHost(host) {
			return
		}
		if got, want := c.coversName([]byte(host)), c.Covers(host); got != want {
			t.Errorf("coversName(%q) = %v, Covers says %v", host, got, want)
		}
	})
}

func BenchmarkCoalesces(b *testing.B) {
	wild, own := newCert(b, "a/wild", KeyECDSA, "*.w.example"), newCert(b, "b/own", KeyECDSA, "own.w.example")
	s := NewSet(nil, []Entry{{"*.w.example", []*Certificate{wild}}, {"own.w.example", []*Certificate{own}}})
	host := []byte("y.w.example")
	b.ReportAllocs()
	for b.Loop() {
		if !s.Coalesces("x.w.example", host) {
			b.Fatal("no")
		}
	}
}
