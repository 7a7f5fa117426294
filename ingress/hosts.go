package ingress

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"github.com/portico-ingress/portico/ingress/annotation"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/engine"
	"github.com/portico-ingress/portico/router/filter"
)

// hostState is one host pattern: who asks for it, and what is live for it.
type hostState struct {
	askers   []*ingressState // in order of precedence
	routes   []*router.Route
	fallback *router.Route
	// auth is what its clients have to show, by whose word; nil: nothing.
	auth *clientAuth
	// stream is where its TLS connections go as they are, or nil.
	stream *router.Route
	// lost are the paths that others have, by what they would lead to.
	lost map[*backendRef]*ingressState
}

// each calls f for every live route.
func (h *hostState) each(f func(*router.Route)) {
	for _, r := range h.routes {
		f(r)
	}
	if h.fallback != nil {
		f(h.fallback)
	}
	if h.stream != nil {
		f(h.stream)
	}
}

// buildHost makes one host anew.
func (c *compiler) buildHost(edit *router.Edit, name string) {
	h := c.hosts[name]
	if h == nil {
		return
	}
	h.each(func(r *router.Route) { c.countLive(r, -1) })
	m := hostMaker{compiler: c, name: name, auth: h.auth, taken: map[pathKey]claim{}}
	m.passThrough(h.askers)
	for _, st := range h.askers {
		m.ask(st)
	}
	h.stream = m.stream
	lost := h.lost
	h.routes, h.fallback, h.lost = m.routes, m.fallback, m.lost
	c.noteLost(lost, h.lost)
	h.each(func(r *router.Route) { c.countLive(r, +1) })
	c.problems.set(ofHost, name, m.problems)
	if len(h.askers) == 0 {
		delete(c.hosts, name)
		c.dropName(name)
		edit.Remove(name)
		return
	}
	host := router.NewHost(name, h.routes, h.fallback)
	if h.stream != nil {
		host = host.WithStream(h.stream)
	}
	edit.Put(host)
}

// noteLost tells anew about the Services of Ingresses that lost other paths than before.
func (c *compiler) noteLost(before, now map[*backendRef]*ingressState) {
	for _, pair := range [][2]map[*backendRef]*ingressState{{before, now}, {now, before}} {
		for ref, st := range pair[0] {
			if pair[1][ref] == nil && c.ingresses[st.key] == st {
				c.setBackendProblems(st)
			}
		}
	}
}

func (c *compiler) countLive(r *router.Route, n int) {
	c.countCheck(r, n)
	before := c.live[r.Origin]
	if before+n == 0 {
		delete(c.live, r.Origin)
	} else {
		c.live[r.Origin] = before + n
	}
	if before == 0 || before+n == 0 {
		c.touched[r.Origin] = struct{}{}
	}
}

// pathKey is what only one route of a host can have. To Prefix, which goes by element, a
// slash at the end makes no difference.
type pathKey struct {
	path     string
	pathType router.PathType
}

func keyOf(p *pathSpec) pathKey {
	path := p.path
	if p.pathType == router.Prefix && path != "/" {
		path = strings.TrimSuffix(path, "/")
	}
	return pathKey{path, p.pathType}
}

// claim says who has it.
type claim struct {
	by   *ingressState
	path *pathSpec
}

// hostMaker collects the routes of one host. It is asked in order of precedence.
type hostMaker struct {
	*compiler
	name       string
	auth       *clientAuth
	stream     *router.Route
	taken      map[pathKey]claim
	routes     []*router.Route
	fallback   *router.Route
	fallbackBy *ingressState
	lost       map[*backendRef]*ingressState
	problems   []problem
}

func (m *hostMaker) ask(st *ingressState) {
	for i := range st.spec.hosts {
		if st.spec.hosts[i].name == m.name {
			m.askPaths(st, &st.spec.hosts[i])
		}
	}
	switch {
	case st.spec.fallback == nil:
	case m.fallback != nil:
		m.problem(st, fallbackField, "for unknown paths of host %q the defaultBackend of Ingress %s is used, which %s; remove one of the two, or use a host of its own",
			m.name, m.fallbackBy.key, whyFirst(m.fallbackBy, st))
	default:
		m.fallback, m.fallbackBy = m.guarded(st, m.route(st, m.name, "/", router.Prefix, st.spec.fallback)), st
	}
}

func (m *hostMaker) askPaths(st *ingressState, h *hostSpec) {
	for i := range h.paths {
		p := &h.paths[i]
		key := keyOf(p)
		if first, twice := m.taken[key]; twice {
			m.duplicate(st, p, first)
			continue
		}
		m.taken[key] = claim{by: st, path: p}
		m.routes = append(m.routes, m.guarded(st, m.route(st, m.name, p.path, p.pathType, &p.backend)))
	}
}

func (m *hostMaker) duplicate(st *ingressState, p *pathSpec, first claim) {
	if m.lost == nil {
		m.lost = map[*backendRef]*ingressState{}
	}
	m.lost[&p.backend] = st
	what := p.pathType.String()
	if p.path != first.path.path {
		what += ", which means the same as " + first.path.path
	}
	if first.by == st {
		m.problem(st, p.field(), "host %q and path %s (%s) stand at %s already, which wins; remove this one",
			m.name, p.path, what, first.path.field())
		return
	}
	m.problem(st, p.field(), "host %q and path %s (%s) belong to Ingress %s, which %s, so this path is not served; remove one of the two",
		m.name, p.path, what, first.by.key, whyFirst(first.by, st))
}

func (m *hostMaker) problem(st *ingressState, field, format string, args ...any) {
	m.problems = append(m.problems, problem{reason: reasonDuplicate, Problem: manifests.Problem{
		Object: refOf(st.object), Field: field, Text: fmt.Sprintf(format, args...),
	}})
}

// route makes one route of an Ingress.
func (c *compiler) route(st *ingressState, host, path string, pathType router.PathType, ref *backendRef) *router.Route {
	r := &router.Route{Host: host, Path: path, PathType: pathType, Origin: st.key, Policy: st.spec.options.Policy}
	c.lead(r, st, ref)
	if r.Backend != nil {
		applyOptions(r, &st.spec.options)
	}
	r.Stats = c.stats.Get(statsKey(r))
	if !strings.HasPrefix(path, acmePath) {
		r.Filters = c.redirect(st, host)
	}
	return r
}

// lead says where the route leads.
func (c *compiler) lead(r *router.Route, st *ingressState, ref *backendRef) {
	r.ProxyProtocol = st.spec.options.ProxyProtocol
	if ref.unusable != "" {
		r.Status, r.Reason = http.StatusServiceUnavailable, ref.unusable
	} else if p := c.port(st.service(ref), ref.port); st.mixes(p) {
		r.Service = p.resolution.service
		r.Status, r.Reason = http.StatusServiceUnavailable, proxyOverHTTP2
	} else {
		c.leadTo(r, p)
	}
	if reason := c.refusal(st, r.Host); reason != "" {
		r.Backend, r.Status, r.Reason = nil, http.StatusServiceUnavailable, reason
	}
}

func (c *compiler) leadTo(r *router.Route, p *portState) {
	if p.backend == "" {
		r.Service = p.service.String() + ":" + p.ref.String()
		r.Status, r.Reason = http.StatusServiceUnavailable, p.reason
		return
	}
	r.Service = p.resolution.service
	r.Backend = c.backends.Get(p.backend)
}

// acmePath is never redirected when it is the path of a rule: whoever asks there to see a
// certificate issued may have none yet.
const acmePath = "/.well-known/acme-challenge"

// everyHost redirects whatever comes.
var everyHost = []router.Filter{filter.NewHTTPSRedirect()}

// redirect gives the filter that sends plain HTTP to https. Routes of a host that has TLS
// always do. Those of a wildcard, or of any host, do for the hosts in question that the
// same Ingress has TLS for. Those of an Ingress that forces it always do.
func (c *compiler) redirect(st *ingressState, host string) []router.Filter {
	if st.spec.options.ForceSSLRedirect {
		return everyHost
	}
	if st.spec.options.NoSSLRedirect {
		return nil
	}
	if c.hasTLS(host) {
		return everyHost
	}
	if host != "" && !isWildcard(host) {
		return nil
	}
	var some []string
	for i := range st.spec.tls {
		for _, n := range st.spec.tls[i].names {
			below := host == "" || suffixOf(n.host) == host[1:]
			if below && n.host != "" && n.host != host && c.mayUse(st, n.host) {
				some = append(some, n.host)
			}
		}
	}
	if len(some) == 0 {
		return nil
	}
	return []router.Filter{filter.NewHTTPSRedirect(some...)}
}

func statsKey(r *router.Route) router.StatsKey {
	return router.StatsKey{Host: r.Host, Origin: r.Origin, Service: r.Service}
}

// applyOptions gives a route what the annotations of its Ingress ask for of each request.
func applyOptions(r *router.Route, o *annotation.Options) {
	r.Timeouts = engine.Timeouts{
		Connect: o.ConnectTimeout, Send: o.SendTimeout, Read: o.ReadTimeout,
		FirstByte: o.FirstByteTimeout, Total: o.RequestTimeout,
	}
	r.MaxBody = o.MaxBody
	if o.BufferBody {
		r.BufferBody = cmp.Or(o.BodyBuffer, annotation.DefaultBodyBuffer)
	}
	r.BufferAnswer = o.AnswerBuffer.Bytes()
}
