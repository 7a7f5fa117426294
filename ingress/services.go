package ingress

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/manifests"
)

// serviceState is a Service that Ingresses name, whether it exists or not.
type serviceState struct {
	ports map[portRef]*portState
}

// portState is one port of a Service, as Ingresses spell it.
type portState struct {
	service types.NamespacedName
	ref     portRef
	resolution
	users []*ingressState
	// permanent is set for the port that a setting names.
	permanent bool
}

func (c *compiler) useServices(st *ingressState) {
	st.spec.eachBackend(func(_ func() string, _ string, ref *backendRef) {
		if ref.unusable != "" {
			return
		}
		p := c.port(st.service(ref), ref.port)
		// All uses by one Ingress come in a row.
		if len(p.users) == 0 || p.users[len(p.users)-1] != st {
			p.users = append(p.users, st)
		}
	})
}

func (c *compiler) releaseServices(st *ingressState) {
	st.spec.eachBackend(func(_ func() string, _ string, ref *backendRef) {
		name := st.service(ref)
		s := c.services[name]
		if s == nil || s.ports[ref.port] == nil {
			return
		}
		p := s.ports[ref.port]
		if i := slices.Index(p.users, st); i >= 0 {
			p.users = slices.Delete(p.users, i, i+1)
		}
		c.garbage = true
		c.dropUnused(s, p)
	})
}

func (c *compiler) dropUnused(s *serviceState, p *portState) {
	if len(p.users) > 0 || p.permanent {
		return
	}
	c.releaseExternal(p)
	c.releaseUpstreamSecret(p)
	delete(s.ports, p.ref)
	if len(s.ports) == 0 {
		delete(c.services, p.service)
	}
}

// port returns what a port of a Service comes to, and finds out if nobody has asked before.
func (c *compiler) port(name types.NamespacedName, ref portRef) *portState {
	s := c.services[name]
	if s == nil {
		s = &serviceState{ports: make(map[portRef]*portState, 1)}
		c.services[name] = s
	}
	p := s.ports[ref]
	if p == nil {
		p = &portState{service: name, ref: ref}
		s.ports[ref] = p
		c.useUpstreamSecret(p)
		p.resolution = c.resolve(p)
		c.useExternal(p)
		c.setTargets(p)
	}
	return p
}

// noteService reads a Service that was put or deleted. Routes differ only if what their port
// comes to does; else the change is one of endpoints at most.
func (c *compiler) noteService(name types.NamespacedName) {
	if name == c.settings.defaultBackend {
		c.dirty.fallback = true // the first port may be another
	}
	s := c.services[name]
	if s == nil {
		return
	}
	for _, p := range s.ports {
		c.refreshPort(p)
	}
}

// refreshPort finds out what a port comes to now, and marks what that changes.
func (c *compiler) refreshPort(p *portState) {
	next := c.resolve(p)
	if next == p.resolution {
		return
	}
	before := p.resolution
	c.setResolution(p, next)
	c.garbage = true
	for _, st := range p.users {
		if !next.sameRoute(before) {
			c.markUses(st, p)
		}
		c.setBackendProblems(st)
	}
}

func (c *compiler) setResolution(p *portState, next resolution) {
	if next.external == p.external { // what is known about the name stays known
		p.resolution = next
	} else {
		c.releaseExternal(p)
		p.resolution = next
		c.useExternal(p)
	}
	c.setTargets(p)
}

// markUses marks the hosts on which an Ingress leads to a port.
func (c *compiler) markUses(st *ingressState, p *portState) {
	st.spec.eachBackend(func(_ func() string, host string, ref *backendRef) {
		if ref.service != p.service.Name || ref.port != p.ref {
			return
		}
		if ref != st.spec.fallback {
			c.dirty.hosts[host] = struct{}{}
			return
		}
		for i := range st.spec.hosts {
			c.dirty.hosts[st.spec.hosts[i].name] = struct{}{}
		}
		if st.spec.catchAll {
			c.dirty.fallback = true
		}
	})
}

// noteEndpoints reads the EndpointSlices of a Service. No route changes.
func (c *compiler) noteEndpoints(name types.NamespacedName) (changed bool) {
	s := c.services[name]
	if s == nil {
		return false
	}
	for _, p := range s.ports {
		changed = c.setTargets(p) || changed
	}
	return changed
}

// setTargets tells the backend of a port which endpoints it has.
func (c *compiler) setTargets(p *portState) (changed bool) {
	switch {
	case p.backend == "":
		return false
	case p.external != "":
		return c.setExternalTargets(p)
	}
	slices := c.objects.EndpointSlices(p.service.Namespace, p.service.Name)
	return c.backends.SetTargets(p.backend, usedTargets(judgeEndpoints(slices, p.portName)))
}

// setBackendProblems tells about the Services and ports of an Ingress that are not there.
func (c *compiler) setBackendProblems(st *ingressState) {
	if st.spec == nil {
		c.problems.set(ofBackends, st.key, nil)
		return
	}
	var all []problem
	var ports []*portState
	st.spec.eachBackend(func(field func() string, host string, ref *backendRef) {
		if ref.unusable != "" {
			return
		}
		if h := c.hosts[host]; h != nil && h.lost[ref] != nil {
			return // another path is served in its place, and that is told
		}
		p := c.port(st.service(ref), ref.port)
		ports = append(ports, p)
		text := p.text
		if st.mixes(p) {
			text = proxyOverHTTP2 + ": the path answers 503; remove the annotation proxy-protocol-to-backend, or choose another backend-protocol (appProtocol of the port)"
		}
		if text != "" {
			all = append(all, problem{reason: reasonService, Problem: manifests.Problem{
				Object: refOf(st.object), Field: field() + ".service", Text: text,
			}})
		}
	})
	c.problems.set(ofBackends, st.key, append(all, st.plainly(ports)...))
}
