package ingress

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/filter"
)

// Whatever the Ingresses of several namespaces ask for: the certificate of a host with a rule
// comes from the namespace of the oldest Ingress with a rule for it, or is the default one;
// and nobody else's tls makes it redirect.
func TestCertificatesStayInTheirNamespace(t *testing.T) {
	served := 0
	for seed := range uint64(60) {
		w := newWorld(t, 2000+seed)
		c := testCompiler(testConfig())
		for range 40 {
			w.step()
			change, _ := w.store.Take()
			settle(c, change, w.names)
			for name, h := range c.hosts {
				if name == "" {
					continue
				}
				host := h.askers[0].object.Namespace
				owner, sni := host, strings.Replace(name, "*", "free", 1)
				if h := c.hosts[sni]; h != nil {
					owner = h.askers[0].object.Namespace
				}
				cert := c.set.Choose(&tls.ClientHelloInfo{ServerName: sni})
				if ns, _, _ := strings.Cut(cert.Name, "/"); cert != c.common {
					served++
					if ns != owner {
						t.Fatalf("seed %d: %s belongs to %s and gets %s", seed, sni, owner, cert.Name)
					}
				}
				for _, r := range h.routes {
					if redirects(c, r) && h.stream == nil && !c.ingresses[r.Origin].spec.options.ForceSSLRedirect && !redirectAsked(c, host) {
						t.Fatalf("seed %d: %s %s belongs to %s, which asks for no TLS, and redirects", seed, name, r.Path, host)
					}
				}
			}
		}
	}
	if served == 0 {
		t.Error("no certificate was served")
	}
}

// redirects tells whether there are requests that the route redirects: those for a host that
// has routes of its own never come to its wildcard's.
func redirects(c *compiler, r *router.Route) bool {
	return slices.ContainsFunc(r.Filters, func(f router.Filter) bool {
		redirect, ok := f.(*filter.HTTPSRedirect)
		if !ok {
			return false
		}
		_, list, some := strings.Cut(strings.TrimSuffix(redirect.String(), ")"), "(")
		return !some || slices.ContainsFunc(strings.Split(list, ","), func(host string) bool { return c.hosts[host] == nil })
	})
}

// What holds for all of a host comes from the namespace that has it: where its TLS goes, and
// what its clients have to show. And who asks for protection has it, or is not served.
func TestHostsAreProtectedByTheirNamespace(t *testing.T) {
	var passed, protected, refused int
	for seed := range uint64(60) {
		w := newWorld(t, 3000+seed)
		c := testCompiler(testConfig())
		for range 40 {
			w.step()
			change, _ := w.store.Take()
			settle(c, change, w.names)
			for name, h := range c.hosts {
				owner := h.askers[0].object.Namespace
				if h.stream != nil {
					passed++
					if ns, _, _ := strings.Cut(h.stream.Origin, "/"); ns != owner || name == "" {
						t.Fatalf("seed %d: TLS of %q of %s goes where %s says", seed, name, owner, h.stream.Origin)
					}
				}
				if h.auth != nil {
					protected++
					if ns, _, _ := strings.Cut(h.auth.policy.Authority.Name, "/"); ns != owner {
						t.Fatalf("seed %d: the CA of %q of %s is %s", seed, name, owner, h.auth.policy.Authority.Name)
					}
					if got := c.set.Policy(strings.Replace(name, "*", "free", 1)); got != h.auth.policy {
						t.Fatalf("seed %d: handshakes for %q ask by %v, and its routes by %v", seed, name, got, h.auth.policy)
					}
				}
				for _, r := range h.routes {
					asked := c.ingresses[r.Origin].spec.options.ClientAuth
					guarded := h.auth != nil && slices.Contains(r.Filters, router.Filter(h.auth.filter))
					if h.auth != nil && !guarded && !strings.HasPrefix(r.Path, acmePath) {
						t.Fatalf("seed %d: %q %s is open", seed, name, r.Path)
					}
					switch {
					case asked.Secret == "":
					case r.Backend == nil:
						refused++
					case h.auth == nil || h.auth.asked != asked:
						t.Fatalf("seed %d: %q %s of %s is served without what it asks for", seed, name, r.Path, r.Origin)
					}
				}
			}
		}
	}
	if passed == 0 || protected == 0 || refused == 0 {
		t.Errorf("passed %d, protected %d, refused %d: too little to tell", passed, protected, refused)
	}
}

// redirectAsked tells whether any Ingress of a namespace has a tls section.
func redirectAsked(c *compiler, namespace string) bool {
	for _, st := range c.ingresses {
		if st.spec != nil && st.object.Namespace == namespace && len(st.object.Spec.TLS) > 0 {
			return true
		}
	}
	return false
}

// A Secret that one namespace waits for does not hold up the hosts of another.
func TestOthersSecretsAreNotWaitedFor(t *testing.T) {
	const objects = `
kind: Ingress
apiVersion: networking.k8s.io/v1
metadata: {name: own, namespace: shop, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {ingressClassName: portico, rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
kind: Ingress
apiVersion: networking.k8s.io/v1
metadata: {name: grab, namespace: evil, creationTimestamp: "2026-01-02T00:00:00Z"}
spec:
  ingressClassName: portico
  tls: [{hosts: ["%s"], secretName: never}]
  rules: [{host: "%s", http: {paths: [{path: /evil, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
`
	for _, host := range []string{"a.example", "*.example"} {
		cfg := testConfig()
		cfg.ImplicitClass = true
		c := testCompiler(cfg)
		change := takeYAML(t, strings.ReplaceAll(objects, "%s", host))
		change.Pending = map[manifests.Ref]struct{}{{Kind: manifests.KindSecret, Namespace: "evil", Name: "never"}: {}}
		c.note(change)
		c.build()
		if c.table.Host("a.example") == nil {
			t.Errorf("tls for %s: a.example is not served", host)
		}
	}
}
