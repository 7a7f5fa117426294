package annotation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// guard is a family of annotations of ingress-nginx that protect what is behind them, or
// change who answers. Portico does not have them, so it must not serve as if they were not
// there.
type guard struct {
	matches func(name, value string) bool
	asks    string // "asks for ..."
}

var guards = []guard{
	{matches: named("enable-modsecurity", "enable-owasp-core-rules").and(isOn), asks: "a web application firewall"},
	{matches: named("whitelist-source-range", "allowlist-source-range", "denylist-source-range").and(isSet), asks: "a limit on client addresses"},
	{matches: named("satisfy"), asks: "access control"},
	{matches: prefixed("auth-tls-"), asks: "client certificates"},
	{matches: prefixed("auth-"), asks: "authentication"},
}

// foreign judges an annotation of ingress-nginx that is not in the registry, and returns
// what to tell about it.
func foreign(key, value string, o *Options) string {
	name := strings.TrimPrefix(key, NginxPrefix)
	if name == "canary" && isOn(value) {
		o.Ignore = "canary Ingresses are not supported yet"
		return "canaries are not supported yet; this Ingress makes no routes, because it would take the place of the one it is a canary of; remove the Ingress, or the annotation"
	}
	for _, g := range guards {
		if !g.matches(name, value) {
			continue
		}
		if o.Refuse == "" {
			o.Refuse = fmt.Sprintf("annotation %s asks for %s, which is not supported yet", key, g.asks)
		}
		return fmt.Sprintf("asks for %s, which is not supported yet; the paths of this Ingress answer 503, because Portico does not serve without the protection; protect the application itself and remove the annotation", g.asks)
	}
	return "not supported yet: ignored; remove it if the application works without"
}

type match func(name, value string) bool

func named(names ...string) match {
	return func(name, _ string) bool { return slices.Contains(names, name) }
}

func prefixed(prefix string) match {
	return func(name, _ string) bool { return strings.HasPrefix(name, prefix) }
}

// and narrows a match to some values.
func (m match) and(value func(string) bool) func(name, value string) bool {
	return func(name, v string) bool { return m(name, v) && value(v) }
}

// isOn is also true of what is no boolean: who wrote it did not mean off.
func isOn(value string) bool {
	on, err := strconv.ParseBool(value)
	return on || err != nil
}

func isSet(value string) bool { return strings.TrimSpace(value) != "" }
