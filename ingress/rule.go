package ingress

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portico-ingress/portico/ingress/annotation"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/engine"
)

// spec is what an Ingress asks for, in normal form, whatever else there is. It is immutable.
type spec struct {
	hosts    []hostSpec // each host once, in the order of the rules
	fallback *backendRef
	// catchAll is true without rules: the fallback is for everything.
	catchAll bool
	// any is true if it answers for hosts that it does not name.
	any      bool
	tls      []tlsSpec
	options  annotation.Options
	problems []problem
}

// hostSpec is what an Ingress asks for on one host pattern.
type hostSpec struct {
	name  string
	paths []pathSpec
}

// pathSpec is one path of a rule.
type pathSpec struct {
	path     string
	pathType router.PathType
	backend  backendRef
	// rule and index say where it stands.
	rule, index int
}

// field is where the path stands, as kubectl explain spells it.
func (p *pathSpec) field() string {
	return fmt.Sprintf("spec.rules[%d].http.paths[%d]", p.rule, p.index)
}

// backendRef is what a path leads to.
type backendRef struct {
	service string
	port    portRef
	// unusable says why it leads nowhere: a resource, or nothing at all.
	unusable string
}

// portRef names a port of a Service: by name, or by number if the name is empty.
type portRef struct {
	name   string
	number int32
	// via is how it is to be spoken to: two Ingresses may want one port in two ways.
	via annotation.Transport
}

// String is what the user wrote.
func (p portRef) String() string {
	if p.name != "" {
		return p.name
	}
	return strconv.Itoa(int(p.number))
}

// fallbackField is where the default backend of an Ingress stands.
const fallbackField = "spec.defaultBackend"

// specOf reads one Ingress. What is wrong in it is left out and told; the rest stays.
func specOf(ing *networkingv1.Ingress) *spec {
	r := specReader{ing: ing, spec: &spec{}, index: map[string]int{}}
	r.annotations()
	if r.spec.options.Ignore != "" {
		return r.spec
	}
	if ing.Spec.DefaultBackend != nil {
		ref := r.backend(fallbackField, ing.Spec.DefaultBackend)
		r.spec.fallback = &ref
	}
	r.spec.catchAll = len(ing.Spec.Rules) == 0
	for i := range ing.Spec.Rules {
		r.rule(i, &ing.Spec.Rules[i])
	}
	if r.spec.catchAll && r.spec.fallback == nil {
		r.problem(reasonRejected, "spec", "there are neither rules nor a defaultBackend, so nothing is served; add one of them")
	}
	_, anyHost := r.index[""]
	r.spec.any = anyHost || r.spec.catchAll
	for i := range ing.Spec.TLS {
		r.tls(i, &ing.Spec.TLS[i])
	}
	return r.spec
}

type specReader struct {
	ing   *networkingv1.Ingress
	spec  *spec
	index map[string]int // of spec.hosts
}

func (r *specReader) problem(reason, field, format string, args ...any) {
	r.spec.problems = append(r.spec.problems, problem{reason: reason, Problem: manifests.Problem{
		Object: refOf(r.ing), Field: field, Text: fmt.Sprintf(format, args...),
	}})
}

func (r *specReader) annotations() {
	options, findings := annotation.Read(r.ing.Annotations)
	r.spec.options = options
	r.transport(&r.spec.options)
	for _, f := range findings {
		reason := reasonAnnotation
		if options.Refuse != "" && strings.Contains(options.Refuse, f.Key) {
			reason = reasonUnprotected
		}
		r.problem(reason, fmt.Sprintf("metadata.annotations[%s]", f.Key), "%s", f.Text)
	}
}

func (r *specReader) rule(i int, rule *networkingv1.IngressRule) {
	host := rule.Host
	if host != "" {
		var err error
		if host, err = normalHost(host); err != nil {
			r.problem(reasonRejected, fmt.Sprintf("spec.rules[%d].host", i), "the host %.260q %v; this rule is not served", rule.Host, err)
			return
		}
	}
	h := r.host(host)
	if rule.HTTP == nil || len(rule.HTTP.Paths) == 0 {
		if r.spec.fallback == nil {
			r.problem(reasonRejected, fmt.Sprintf("spec.rules[%d]", i), "the rule has no paths and the Ingress no defaultBackend, so the host answers 404; add one of them")
		}
		return
	}
	for j := range rule.HTTP.Paths {
		if p, ok := r.path(i, j, &rule.HTTP.Paths[j]); ok {
			h.paths = append(h.paths, p)
		}
	}
}

// host returns the entry of a host, which several rules may share.
func (r *specReader) host(name string) *hostSpec {
	i, ok := r.index[name]
	if !ok {
		i = len(r.spec.hosts)
		r.index[name] = i
		r.spec.hosts = append(r.spec.hosts, hostSpec{name: name})
	}
	return &r.spec.hosts[i]
}

func (r *specReader) path(i, j int, in *networkingv1.HTTPIngressPath) (p pathSpec, ok bool) {
	p = pathSpec{rule: i, index: j}
	var err error
	if p.path, err = normalPath(in.Path); err != nil {
		r.problem(reasonRejected, p.field()+".path", "the path %.260q cannot be matched (%v); this path is not served; %s", in.Path, err, pathFix(in.Path))
		return p, false
	}
	if p.pathType, ok = pathTypeOf(in.PathType); !ok {
		r.problem(reasonRejected, p.field()+".pathType", "%.80q is no path type; this path is not served; write Exact, Prefix or ImplementationSpecific", *in.PathType)
		return p, false
	}
	p.backend = r.backend(p.field()+".backend", &in.Backend)
	return p, true
}

// pathTypeOf takes ImplementationSpecific, and no type, for Prefix.
func pathTypeOf(t *networkingv1.PathType) (pathType router.PathType, ok bool) {
	if t == nil {
		return router.Prefix, true
	}
	switch *t {
	case networkingv1.PathTypeExact:
		return router.Exact, true
	case networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific, "":
		return router.Prefix, true
	}
	return router.Prefix, false
}

var errPathQuery = fmt.Errorf("a request's path ends before %q and %q", '?', '#')

// pathFix says what to do about a path that normalPath refuses.
func pathFix(path string) string {
	switch {
	case path[0] != '/':
		return fmt.Sprintf("begin it with %q", '/')
	case strings.ContainsAny(path, "?#"):
		return `write the path alone, without a query ("?" and "#" as parts of a path are "%3F" and "%23")`
	case strings.Contains(path, `\`):
		return `write "/" for "\"`
	case strings.ContainsFunc(path, unicode.IsControl):
		return "remove the control characters"
	case strings.Contains(path, "%00"):
		return `remove "%00"`
	case strings.Contains(path, "/."), strings.Contains(strings.ToLower(path), "%2e"):
		return `write it without the segments "." and ".."`
	}
	return `write every "%" with two hexadecimal digits after it; "%" itself is "%25"`
}

// normalPath gives a path the form that paths of requests are matched in. It is lenient with
// spaces: clients send them escaped.
func normalPath(path string) (string, error) {
	if path == "" || path == "/" {
		return "/", nil
	}
	if strings.ContainsAny(path, "?#") {
		return "", errPathQuery
	}
	path = strings.ReplaceAll(path, " ", "%20")
	normal, err := engine.NormalizePath(nil, []byte(path))
	if err != nil {
		return "", err
	}
	if string(normal) == path && !bytes.Contains(normal, []byte("//")) {
		return path, nil // shared with the object
	}
	return collapseSlashes(string(normal)), nil
}

// collapseSlashes makes runs of slashes one, as the router does when it matches.
func collapseSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

func (r *specReader) backend(field string, in *networkingv1.IngressBackend) backendRef {
	switch {
	case in.Resource != nil:
		r.problem(reasonNotSupported, field+".resource", "resource backends are not supported: the path answers 503; name a Service")
		return backendRef{unusable: "resource backends are not supported"}
	case in.Service == nil || in.Service.Name == "":
		r.problem(reasonRejected, field, "no Service is named: the path answers 503; name one")
		return backendRef{unusable: "no Service is named"}
	}
	return backendRef{
		service: in.Service.Name,
		port:    portRef{name: in.Service.Port.Name, number: in.Service.Port.Number, via: r.spec.options.Transport},
	}
}
