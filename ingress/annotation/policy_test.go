package annotation

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-ingress/portico/router"
)

func TestPolicy(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   map[string]string
		want router.Policy
	}{
		{
			name: "affinity wins over its order",
			in: map[string]string{
				"nginx.ingress.kubernetes.io/affinity-mode": "persistent", "nginx.ingress.kubernetes.io/affinity": "cookie",
				"nginx.ingress.kubernetes.io/session-cookie-max-age": "172800", "nginx.ingress.kubernetes.io/session-cookie-samesite": "none",
			},
			want: router.Policy{Sticky: router.Sticky{Mode: router.StickyPersistent, Cookie: "INGRESSCOOKIE", MaxAge: 48 * time.Hour, SameSite: "None"}},
		},
		{
			name: "a key wins over load-balance",
			in:   map[string]string{"portico.dev/load-balance": "ewma", "portico.dev/upstream-hash-by": "$http_X_User"},
			want: router.Policy{Balance: router.ConsistentHash, HashBy: router.HashBy{{Kind: router.HashHeader, Name: "x-user"}}},
		},
		{
			name: "no budget",
			in:   map[string]string{"portico.dev/retry-budget": "0", "nginx.ingress.kubernetes.io/proxy-next-upstream-tries": "0"},
			want: router.Policy{Retry: router.Retry{Budget: -1, Tries: 8}},
		},
		{
			name: "a number is seconds",
			in:   map[string]string{"nginx.ingress.kubernetes.io/proxy-next-upstream-timeout": "7"},
			want: router.Policy{Retry: router.Retry{Timeout: 7 * time.Second}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, findings := Read(tt.in)
			if len(findings) > 0 {
				t.Errorf("findings %v", findings)
			}
			if diff := cmp.Diff(Options{Policy: &tt.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is not asked for costs no memory.
func TestNoPolicyIsNil(t *testing.T) {
	for key, value := range map[string]string{
		"portico.dev/ssl-redirect": "true", "portico.dev/load-balance": "round_robin", "portico.dev/session-cookie-name": "x",
		"portico.dev/health-check-path": "/x", "portico.dev/max-pending": "5", "portico.dev/eject-time": "5s",
	} {
		if o, _ := Read(map[string]string{key: value}); o.Policy != nil {
			t.Errorf("%s: %s", key, o.Policy)
		}
	}
}

func TestTriesAreThoseOfTheRouter(t *testing.T) {
	if o, _ := Read(map[string]string{"portico.dev/proxy-next-upstream-tries": "1000"}); o.Policy.Retry.Tries != maxTries {
		t.Errorf("%d tries", o.Policy.Retry.Tries)
	}
}

func TestDefaultsAreThoseOfTheRouter(t *testing.T) {
	all := map[string]string{"portico.dev/max-connections": "1", "portico.dev/eject-after": "1", "portico.dev/health-check": "http"}
	sparse, _ := Read(all)
	for _, a := range All() {
		if _, given := all[a.Keys[0]]; !given && a.Phase == PhaseBalance {
			all[a.Keys[0]] = a.Default
		}
	}
	full, _ := Read(all)
	sparse.Policy.Retry.Budget = 20 // so that both say all of it
	if diff := cmp.Diff(sparse.Policy.String(), full.Policy.String()); diff != "" {
		t.Errorf("the defaults that are documented are others: %s", diff)
	}
}

// A key that is read is written back as one that is read the same.
func FuzzParseHashBy(f *testing.F) {
	for _, s := range []string{"$binary_remote_addr", "$host${request_uri}", "a-$http_X_Y", "${", "$", "$arg_", "x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		by, err := parseHashBy(s)
		if err != nil {
			if by != (router.HashBy{}) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v and %v", s, by, err)
			}
			return
		}
		for _, p := range by {
			if strings.Contains(p.Name, "$") {
				t.Errorf("%q: part %+v", s, p)
			}
		}
	})
}
