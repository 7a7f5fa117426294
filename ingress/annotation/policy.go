package annotation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portico-ingress/portico/router"
)

// policyAnnotation completes an Annotation that sets a part of a router.Policy.
func policyAnnotation[T any](a Annotation, parse func(value string) (T, error), set func(p *router.Policy, v T)) Annotation {
	a.Phase = PhaseBalance
	a.Validate = func(value string) error {
		_, err := parse(value)
		return err
	}
	a.Apply = func(value string, o *Options) {
		v, _ := parse(value) // validated
		if o.Policy == nil {
			o.Policy = new(router.Policy)
		}
		set(o.Policy, v)
	}
	return a
}

// ours is the key of an annotation that only Portico has; both are those of one that
// ingress-nginx has, too.
func ours(name string) []string { return []string{Prefix + name} }
func both(name string) []string { return []string{Prefix + name, NginxPrefix + name} }

// dependents are annotations that say more about what another one turns on.
var dependents = []struct {
	prefixes []string
	needs    string
	on       func(p *router.Policy) bool
}{
	{[]string{"affinity-mode", "session-cookie-"}, `affinity: "cookie"`, func(p *router.Policy) bool { return p.Sticky.Mode != router.StickyOff }},
	{[]string{"eject-time", "eject-max-"}, Prefix + "eject-after", func(p *router.Policy) bool { return p.Ejection.Consecutive > 0 }},
	{[]string{"max-pending", "pending-timeout"}, Prefix + "max-connections or max-requests", func(p *router.Policy) bool { return p.Limits.Connections > 0 || p.Limits.Requests > 0 }},
	{[]string{"health-check-"}, Prefix + "health-check", func(p *router.Policy) bool { return p.Check.Kind != router.CheckOff }},
}

// settlePolicy takes out of the policy what has no effect, and tells which annotations have none.
func settlePolicy(annotations map[string]string, o *Options) (findings []Finding) {
	p := o.Policy
	if p == nil {
		return nil // nor is there one that was wrong: its own finding says enough
	}
	for _, d := range dependents {
		if d.on(p) {
			continue
		}
		for key := range annotations {
			name, _ := strings.CutPrefix(strings.TrimPrefix(key, NginxPrefix), Prefix)
			matches := slices.ContainsFunc(d.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
			if matches && byKey[key] != nil {
				findings = append(findings, Finding{key, fmt.Sprintf("has no effect without the annotation %s; add that, or remove this one", d.needs)})
			}
		}
	}
	if p.Sticky.Mode == router.StickyOff {
		p.Sticky = router.Sticky{}
	} else if p.Sticky.Cookie == "" {
		p.Sticky.Cookie = defaultCookie
	}
	if p.Ejection.Consecutive == 0 {
		p.Ejection = router.Ejection{}
	}
	if p.Limits.Connections == 0 && p.Limits.Requests == 0 {
		p.Limits = router.Limits{}
	}
	if p.Check.Kind == router.CheckOff {
		p.Check = router.HealthCheck{}
	}
	if *p == (router.Policy{}) {
		o.Policy = nil
	}
	return findings
}
