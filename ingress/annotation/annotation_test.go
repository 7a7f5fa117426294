package annotation

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in       map[string]string
		want     Options
		findings []string // "key: part of the text"
	}{
		{name: "nothing"},
		{name: "of others", in: map[string]string{"cert-manager.io/issuer": "x", "kubernetes.io/ingress.class": "portico"}},
		{name: "redirect off", in: map[string]string{"portico.dev/ssl-redirect": "false"}, want: Options{NoSSLRedirect: true}},
		{name: "force", in: map[string]string{"portico.dev/force-ssl-redirect": "true"}, want: Options{ForceSSLRedirect: true}},
		{name: "force off", in: map[string]string{"portico.dev/force-ssl-redirect": "false"}},
		{name: "force alias", in: map[string]string{"nginx.ingress.kubernetes.io/force-ssl-redirect": "true"}, want: Options{ForceSSLRedirect: true}},
		{
			name: "force beside off",
			in:   map[string]string{"portico.dev/force-ssl-redirect": "true", "nginx.ingress.kubernetes.io/ssl-redirect": "false"},
			want: Options{ForceSSLRedirect: true, NoSSLRedirect: true},
		},
		{name: "redirect on", in: map[string]string{"portico.dev/ssl-redirect": "true"}},
		{name: "alias", in: map[string]string{"nginx.ingress.kubernetes.io/ssl-redirect": "false"}, want: Options{NoSSLRedirect: true}},
		{
			name: "time-outs",
			in: map[string]string{
				"nginx.ingress.kubernetes.io/proxy-connect-timeout": "3", "nginx.ingress.kubernetes.io/proxy-send-timeout": "4",
				"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600", "portico.dev/proxy-first-byte-timeout": "1500ms", "portico.dev/request-timeout": "2m",
			},
			want: Options{
				ConnectTimeout: 3 * time.Second, SendTimeout: 4 * time.Second, ReadTimeout: time.Hour,
				FirstByteTimeout: 1500 * time.Millisecond, RequestTimeout: 2 * time.Minute,
			},
		},
		{
			name:     "a time-out of nothing",
			in:       map[string]string{"nginx.ingress.kubernetes.io/proxy-read-timeout": "0"},
			findings: []string{`nginx.ingress.kubernetes.io/proxy-read-timeout: the value "0" is no time; write whole seconds, as "60", or a number with a unit, as "1500ms", up to "168h"; the default "60" is used`},
		},
		{
			name:     "a time-out that is none",
			in:       map[string]string{"portico.dev/request-timeout": "-5s"},
			findings: []string{`portico.dev/request-timeout: the value "-5s" is no time`},
		},
		{name: "no limit on the request", in: map[string]string{"portico.dev/request-timeout": "0"}},
		{
			name: "ours wins over the alias",
			in:   map[string]string{"nginx.ingress.kubernetes.io/ssl-redirect": "false", "portico.dev/ssl-redirect": "true"},
			findings: []string{
				`nginx.ingress.kubernetes.io/ssl-redirect: portico.dev/ssl-redirect says "true" and wins`,
			},
		},
		{
			name:     "bad value",
			in:       map[string]string{"portico.dev/ssl-redirect": "nope"},
			findings: []string{`portico.dev/ssl-redirect: the value "nope" is neither "true" nor "false"; the default "true" is used`},
		},
		{
			name:     "misspelled",
			in:       map[string]string{"portico.dev/sslredirect": "false"},
			findings: []string{"portico.dev/sslredirect: unknown annotation, ignored; did you mean portico.dev/ssl-redirect?"},
		},
		{
			name:     "unlike any",
			in:       map[string]string{"portico.dev/frobnicate": "false"},
			findings: []string{"portico.dev/frobnicate: unknown annotation, ignored; the manual lists those that are supported"},
		},
		{
			name:     "not supported",
			in:       map[string]string{"nginx.ingress.kubernetes.io/rewrite-target": "/"},
			findings: []string{"nginx.ingress.kubernetes.io/rewrite-target: not supported yet: ignored"},
		},
		{
			name:     "global auth off",
			in:       map[string]string{"nginx.ingress.kubernetes.io/enable-global-auth": "false"},
			findings: []string{"nginx.ingress.kubernetes.io/enable-global-auth: not supported yet: ignored"},
		},
		{
			name:     "waf off",
			in:       map[string]string{"nginx.ingress.kubernetes.io/enable-modsecurity": "false"},
			findings: []string{"nginx.ingress.kubernetes.io/enable-modsecurity: not supported yet: ignored"},
		},
		{
			name:     "canary",
			in:       map[string]string{"nginx.ingress.kubernetes.io/canary": "true"},
			want:     Options{Ignore: "canary Ingresses are not supported yet"},
			findings: []string{"nginx.ingress.kubernetes.io/canary: canaries are not supported yet"},
		},
		{
			name:     "no canary",
			in:       map[string]string{"nginx.ingress.kubernetes.io/canary": "false"},
			findings: []string{"nginx.ingress.kubernetes.io/canary: not supported yet: ignored"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, findings := Read(tt.in)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			checkFindings(t, findings, tt.findings)
		})
	}
}

func TestReadClientAuth(t *testing.T) {
	nginx := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[NginxPrefix+"auth-tls-"+pairs[i]] = pairs[i+1]
		}
		return m
	}
	const key = "nginx.ingress.kubernetes.io/auth-tls-"
	for _, tt := range []struct {
		name     string
		in       map[string]string
		want     ClientAuth
		refuse   string // a part of it
		findings []string
	}{
		{name: "secret", in: nginx("secret", "ns/ca"), want: ClientAuth{Secret: "ns/ca"}},
		{
			name: "all",
			in: nginx("secret", "ns/ca", "verify-client", "optional", "verify-depth", "3", "pass-certificate-to-upstream", "true",
				"error-page", "https://a.example/why", "match-cn", "CN=(a|b)"),
			want: ClientAuth{Secret: "ns/ca", Verify: "optional", Depth: 2, PassCertificate: true, ErrorPage: "https://a.example/why", MatchCN: "CN=(a|b)"},
		},
		{name: "off", in: nginx("secret", "ns/ca", "verify-client", "off", "verify-depth", "2")},
		{name: "off without a secret", in: nginx("verify-client", "off")},
		{name: "our spelling", in: map[string]string{"portico.dev/auth-tls-secret": "ns/ca"}, want: ClientAuth{Secret: "ns/ca"}},
		{
			name: "no secret", in: nginx("verify-client", "on"), refuse: "auth-tls-verify-client needs auth-tls-secret",
			findings: []string{key + "verify-client: needs auth-tls-secret, which is not there; the paths of this Ingress answer 503"},
		},
		{
			name: "off, and a name", in: nginx("secret", "ns/ca", "verify-client", "off", "match-cn", "CN=a"), refuse: "match-cn",
			findings: []string{key + "match-cn: needs auth-tls-secret, and auth-tls-verify-client not to be off; "},
		},
		{
			name: "a secret without namespace", in: nginx("secret", "ca"), refuse: "is not of the form namespace/name",
			findings: []string{key + `secret: the value "ca" is not of the form namespace/name; the paths of this Ingress answer 503 until it is corrected`},
		},
		{
			name: "a wrong mode is on", in: nginx("secret", "ns/ca", "verify-client", "maybe"), want: ClientAuth{Secret: "ns/ca"},
			findings: []string{key + `verify-client: the value "maybe" is none of "on", "optional", "optional_no_ca" and "off"; the default "on" is used`},
		},
		{
			name: "a wrong name", in: nginx("secret", "ns/ca", "match-cn", "CN=("), want: ClientAuth{Secret: "ns/ca"}, refuse: "match-cn",
			findings: []string{key + `match-cn: the value "CN=(" is not a regular expression`},
		},
		{
			name: "a page that is a path", in: nginx("secret", "ns/ca", "error-page", "/why"), want: ClientAuth{Secret: "ns/ca"},
			findings: []string{key + `error-page: the value "/why" is not an absolute http or https URL; the default "" is used`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, findings := Read(tt.in)
			if o.ClientAuth != tt.want || (o.Refuse != "") != (tt.refuse != "") || !strings.Contains(o.Refuse, tt.refuse) {
				t.Errorf("got %+v, want %+v, refused with %q", o, tt.want, tt.refuse)
			}
			checkFindings(t, findings, tt.findings)
		})
	}
}

func checkFindings(t *testing.T, got []Finding, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got findings %q, want %q", got, want)
	}
	for i, f := range got {
		if text := f.Key + ": " + f.Text; !strings.HasPrefix(text, want[i]) {
			t.Errorf("got %q, want it to begin with %q", text, want[i])
		}
	}
}

// What protects must not be ignored.
func TestProtectionThatIsMissingRefuses(t *testing.T) {
	for _, name := range []string{
		"auth-url", "auth-type", "auth-secret", "auth-realm", "auth-signin", "auth-snippet",
		"auth-tls-secret", "auth-tls-match-cn", "auth-tls-anything", "satisfy",
		"whitelist-source-range", "allowlist-source-range", "denylist-source-range",
		"enable-modsecurity", "enable-owasp-core-rules",
	} {
		value := "10.0.0.0/8/"
		if strings.HasPrefix(name, "enable-") {
			value = "true"
		}
		o, findings := Read(map[string]string{NginxPrefix + name: value})
		if !strings.Contains(o.Refuse, name) || len(findings) != 1 || !strings.Contains(findings[0].Text, "503") {
			t.Errorf("%s: got %+v and %v, want it to refuse and to say so", name, o, findings)
		}
	}
}

func TestRegistryIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range All() {
		if a.Help == "" || a.Phase == "" || a.Validate == nil || a.Apply == nil || !strings.HasPrefix(a.Keys[0], Prefix) {
			t.Errorf("%v is not complete", a.Keys)
		}
		if err := a.Validate(a.Default); err != nil {
			t.Errorf("%v: the default %v", a.Keys, err)
		}
		for _, key := range a.Keys {
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("portico.dev/ssl-redirect", "true")
	f.Add("nginx.ingress.kubernetes.io/auth-url", "")
	f.Add("portico.dev/"+strings.Repeat("x", 300), "")
	f.Fuzz(func(t *testing.T, key, value string) {
		o, findings := Read(map[string]string{key: value})
		if o != (Options{}) && !strings.HasPrefix(key, Prefix) && !strings.HasPrefix(key, NginxPrefix) {
			t.Errorf("%q=%q: %+v from an annotation of somebody else", key, value, o)
		}
		for _, found := range findings {
			if found.Key != key || found.Text == "" {
				t.Errorf("%q=%q: finding %+v", key, value, found)
			}
		}
	})
}
