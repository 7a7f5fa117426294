package ingress

import (
	"errors"
	"strings"
	"testing"
)

func TestNormalHost(t *testing.T) {
	label := strings.Repeat("x", 63)
	for in, want := range map[string]string{
		"a.example":             "a.example",
		"A.Example.":            "a.example",
		"*.a.example":           "*.a.example",
		"*.A.example.":          "*.a.example",
		"localhost":             "localhost",
		"*.localhost":           "*.localhost",
		"bücher.example":        "xn--bcher-kva.example",
		"*.bücher.example":      "*.xn--bcher-kva.example",
		"xn--bcher-kva.example": "xn--bcher-kva.example",
		"straße。example":        "xn--strae-oqa.example",
		"1.2.3.4.example":       "1.2.3.4.example",
		label + ".example":      label + ".example",
	} {
		if got, err := normalHost(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]error{
		"":                                    errHostEmpty,
		".":                                   errHostEmpty,
		"*.":                                  errHostEmpty,
		"a.example:80":                        errHostPort,
		"*":                                   errHostWildcard,
		"*.*.example":                         errHostWildcard,
		"a*.example":                          errHostWildcard,
		"192.0.2.1":                           errHostAddress,
		"[::1]":                               errHostAddress,
		"::1":                                 errHostAddress,
		"*.192.0.2.1":                         errHostAddress,
		"a b":                                 errHostName,
		"a..b":                                errHostName,
		"a_b.example":                         errHostName,
		"-a.example":                          errHostName,
		label + "x.example":                   errHostName,
		"a/b":                                 errHostName,
		"\xff.example":                        errHostName,
		strings.Repeat("a.", 127) + "example": errHostName,
	} {
		if got, err := normalHost(in); !errors.Is(err, want) {
			t.Errorf("%q: got %q, %v, want %v", in, got, err, want)
		}
	}
}

func FuzzNormalHost(f *testing.F) {
	for _, s := range []string{"a.example", "*.B.example.", "bücher.example", "192.0.2.1", "*", "a:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := normalHost(in)
		if err != nil {
			return
		}
		if again, err := normalHost(got); err != nil || again != got {
			t.Errorf("%q gives %q, which gives %q, %v", in, got, again, err)
		}
		if !isDNSName(strings.TrimPrefix(got, "*.")) || len(got) > maxHost {
			t.Errorf("%q gives %q", in, got)
		}
	})
}

func FuzzNormalPath(f *testing.F) {
	for _, s := range []string{"/", "", "/a/../b", "//x", "/%41", "/a b", "/é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := normalPath(in)
		if err != nil {
			return
		}
		if again, err := normalPath(got); err != nil || again != got || !strings.HasPrefix(got, "/") || strings.Contains(got, "//") {
			t.Errorf("%q gives %q, which gives %q, %v", in, got, again, err)
		}
	})
}
