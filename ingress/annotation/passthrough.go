package annotation

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// sslPassthrough leaves the TLS of a host to its endpoints.
var sslPassthrough = Annotation{
	Keys:     []string{Prefix + "ssl-passthrough", NginxPrefix + "ssl-passthrough"},
	Help:     "Pass the TLS connections of the Ingress's hosts through to the Service of path / without ending them, by the name in the ClientHello. It holds for the whole host, which has to be the namespace's own; rules for other paths are for plain HTTP then.",
	Default:  "false",
	Phase:    PhaseConnection,
	Validate: validateBool,
	Apply: func(value string, o *Options) {
		o.SSLPassthrough, _ = strconv.ParseBool(value) // validated
	},
}

// settlePassthrough tells which annotations do nothing for TLS that is passed through. What is
// about redirects, checks and the PROXY protocol does; backend-protocol is often there from
// habit, and harmless.
func settlePassthrough(annotations map[string]string, o *Options) (findings []Finding) {
	if !o.SSLPassthrough {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		a := byKey[key]
		if a == nil || a.Phase == PhaseRedirect {
			continue
		}
		switch name := strings.TrimPrefix(a.Keys[0], Prefix); {
		case name == "ssl-passthrough", name == "proxy-protocol-to-backend", name == "backend-protocol", strings.HasPrefix(name, "health-check"):
		case strings.HasPrefix(name, "auth-tls-"):
			findings = append(findings, Finding{key, "has no effect on TLS that ssl-passthrough passes through: the endpoints have to ask for client certificates; remove one of the two"})
		default:
			findings = append(findings, Finding{key, "has no effect on TLS that ssl-passthrough passes through, only on plain HTTP; remove one of the two"})
		}
	}
	return findings
}
