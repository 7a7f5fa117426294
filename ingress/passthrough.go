package ingress

import (
	"fmt"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// passThrough finds where the TLS connections of the host go as they are: to what the oldest
// Ingress that asks for it has for path /. It is for the namespace that has the host to ask.
func (m *hostMaker) passThrough(askers []*ingressState) {
	for _, st := range askers {
		if !st.spec.options.SSLPassthrough {
			continue
		}
		ref := m.rootOf(st)
		switch {
		case m.name == "":
			m.notPassed(st, "rules without a host have no name that TLS could be passed through by; name one")
		case askers[0].object.Namespace != st.object.Namespace:
			m.notPassed(st, "host %s belongs to namespace %s (Ingress %s is the oldest with a rule for it), so its TLS is not passed through for this one; use a host of your own",
				m.name, askers[0].object.Namespace, askers[0].key)
		case ref == nil:
			m.notPassed(st, "the TLS of host %s is not passed through, because this Ingress has nothing for its path /; add that", m.name)
		case m.stream == nil:
			m.stream = &router.Route{Host: m.name, Path: "/", Origin: st.key}
			m.lead(m.stream, st, ref)
			m.stream.Stats = m.stats.Get(statsKey(m.stream))
		}
	}
}

// rootOf is what an Ingress has for path / of the host.
func (m *hostMaker) rootOf(st *ingressState) *backendRef {
	for i := range st.spec.hosts {
		h := &st.spec.hosts[i]
		if h.name != m.name {
			continue
		}
		for j := range h.paths {
			if h.paths[j].path == "/" {
				return &h.paths[j].backend
			}
		}
	}
	return st.spec.fallback
}

func (m *hostMaker) notPassed(st *ingressState, format string, args ...any) {
	m.problems = append(m.problems, problem{reason: reasonRejected, Problem: manifests.Problem{
		Object: refOf(st.object), Field: "metadata.annotations", Text: "ssl-passthrough: " + fmt.Sprintf(format, args...),
	}})
}
