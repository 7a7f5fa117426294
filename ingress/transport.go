package ingress

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/ingress/annotation"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/engine"
)

// transport looks at what only the whole Ingress can tell about its transport: a Secret has to
// be in its own namespace, or one tenant could show another's certificate.
func (r *specReader) transport(o *annotation.Options) {
	namespace, name, ok := strings.Cut(o.Transport.Secret, "/")
	if !ok {
		return
	}
	if namespace == r.ing.Namespace {
		o.Transport.Secret = name
		return
	}
	key := annotation.Prefix + "proxy-ssl-secret"
	if _, ours := r.ing.Annotations[key]; !ours {
		key = annotation.NginxPrefix + "proxy-ssl-secret"
	}
	o.Transport.Secret = ""
	if o.Refuse == "" {
		o.Refuse = "annotation " + key + " names a Secret of another namespace"
	}
	r.problem(reasonAnnotation, fmt.Sprintf("metadata.annotations[%s]", key),
		"the Secret %.260q is not in the Ingress's own namespace (%s): the paths of this Ingress answer 503; copy the Secret here", namespace+"/"+name, r.ing.Namespace)
}

// speech is what a port is spoken to in.
type speech struct{ http2, tls bool }

// speechOf lets the annotation decide, then the appProtocol of the Service's port (KEP-3726,
// and "grpc"). Others are none of ours: plain HTTP/1.1.
func speechOf(p annotation.Protocol, appProtocol string) speech {
	switch p {
	case annotation.ProtocolHTTP:
		return speech{}
	case annotation.ProtocolHTTPS:
		return speech{tls: true}
	case annotation.ProtocolGRPC:
		return speech{http2: true}
	case annotation.ProtocolGRPCS:
		return speech{http2: true, tls: true}
	}
	switch strings.ToLower(appProtocol) {
	case "https", "kubernetes.io/wss":
		return speech{tls: true}
	case "kubernetes.io/h2c", "grpc":
		return speech{http2: true}
	case "grpcs":
		return speech{http2: true, tls: true}
	}
	return speech{}
}

func (s speech) String() string {
	switch {
	case s.http2 && s.tls:
		return "h2"
	case s.http2:
		return "h2c"
	case s.tls:
		return "https"
	}
	return ""
}

// resolve finds what a port comes to, the way it is spoken to included: each way is a backend
// of its own, so that what one Ingress wants changes nothing for another.
func (c *compiler) resolve(p *portState) resolution {
	r := resolve(p.service, c.objects.Service(p.service.Namespace, p.service.Name), p.ref)
	s := speechOf(p.ref.via.Protocol, r.protocol)
	r.protocol, r.http2, r.tls = "", s.http2, s.tls // what it comes to is what counts
	switch {
	case r.backend == "" || s == speech{}:
		return r
	case !s.tls:
		r.backend += " " + s.String()
		c.backends.GetVia(r.backend, router.Transport{Protocol: engine.ProtocolHTTP2, Name: s.String()})
		return r
	}
	return c.resolveTLS(p, r, s)
}

// proxyOverHTTP2 is why a port is not led to: one connection of HTTP/2 is for all clients, and
// cannot begin with the address of one.
const proxyOverHTTP2 = "the PROXY protocol is not supported with HTTP/2 to the backend"

// mixes tells whether an Ingress asks for both. TLS that is passed through has a connection for
// each client, whatever is spoken in it.
func (st *ingressState) mixes(p *portState) bool {
	o := &st.spec.options
	return o.ProxyProtocol != 0 && !o.SSLPassthrough && p.http2 && p.backend != ""
}

// plainly tells about the annotations for TLS to backends of an Ingress that has backends and
// speaks TLS to none of them. With ssl-passthrough that was told.
func (st *ingressState) plainly(ports []*portState) (all []problem) {
	speaks := func(p *portState) bool { return p.tls || p.backend == "" }
	if len(ports) == 0 || slices.ContainsFunc(ports, speaks) || st.spec.options.SSLPassthrough {
		return nil
	}
	for _, key := range annotation.PlainKeys(st.object.Annotations) {
		all = append(all, problem{reason: reasonAnnotation, Problem: manifests.Problem{
			Object: refOf(st.object), Field: fmt.Sprintf("metadata.annotations[%s]", key),
			Text: "has no effect, because the Services of this Ingress are spoken to without TLS; add the annotation backend-protocol: HTTPS or GRPCS (or the appProtocol of the port), or remove this one",
		}})
	}
	return all
}

// resolveTLS makes a backend that TLS is spoken to. Its name has all that the connections
// depend on, down to the text of the Secret: a new one makes a new backend, and what the old
// one was at comes to its end there.
func (c *compiler) resolveTLS(p *portState, r resolution, s speech) resolution {
	via := p.ref.via
	name := via.Name
	switch {
	case name != "":
	case r.external != "":
		name = strings.TrimSuffix(r.external, ".")
	default:
		name = p.service.Name + "." + p.service.Namespace + ".svc"
	}
	u := certs.Upstream{Verify: via.Verify, Depth: via.Depth + annotation.DefaultDepth, HTTP2: s.http2}
	words := []string{s.String()}
	if via.Verify {
		u.Name = name
		words = append(words, fmt.Sprintf("verify=%s depth=%d", name, u.Depth))
	}
	if via.ServerName {
		u.ServerName = name
		words = append(words, "sni="+name)
	}
	text := strings.Join(words, " ")
	identity := text
	if via.Secret != "" {
		secret := upstreamSecretOf(p)
		if us := c.upstreams[secret]; us == nil || !us.asked || c.waiting.has(secretRef(secret), c.now()) {
			return resolution{reason: fmt.Sprintf("Secret %s is being fetched", secret)}
		}
		object := c.objects.Secret(secret.Namespace, secret.Name)
		if reason := readUpstreamSecret(&u, secret, object); reason != "" {
			return unusable("%s", reason).fix("correct it")
		}
		text += " secret=" + secret.String()
		identity = text + " " + secretDigest(object)
	}
	r.backend += " " + identity
	t := router.Transport{TLS: u.Config(), Name: text}
	if s.http2 {
		t.Protocol = engine.ProtocolHTTP2
	}
	c.backends.GetVia(r.backend, t)
	return r
}

// readUpstreamSecret takes what a Secret has, or says what is wrong with it.
func readUpstreamSecret(u *certs.Upstream, name types.NamespacedName, object *corev1.Secret) (reason string) {
	if object == nil {
		return fmt.Sprintf("Secret %s (proxy-ssl-secret) does not exist", name)
	}
	crt, key, ca := object.Data[certs.FieldCertificate], object.Data[certs.FieldKey], object.Data[certs.FieldCA]
	if len(crt)+len(key)+len(ca) == 0 {
		return fmt.Sprintf("Secret %s (proxy-ssl-secret) has none of tls.crt, tls.key and ca.crt", name)
	}
	var err error
	if len(crt)+len(key) > 0 {
		if u.Client, err = certs.Parse(name.String(), crt, key); err != nil {
			return fmt.Sprintf("Secret %s (proxy-ssl-secret) cannot be used: %s", name, parseReason(err))
		}
	}
	switch {
	case len(ca) > 0:
		if u.Roots, err = certs.ParseRoots(name.String(), ca); err != nil {
			return fmt.Sprintf("Secret %s (proxy-ssl-secret) cannot be used: %s", name, parseReason(err))
		}
	case u.Verify: // whoever names a Secret does not mean the CAs of the system
		return fmt.Sprintf("Secret %s (proxy-ssl-secret) has no ca.crt, which proxy-ssl-verify needs", name)
	}
	return ""
}

// secretDigest tells one text of a Secret from another.
func secretDigest(object *corev1.Secret) string {
	h := sha256.New()
	for _, field := range []string{certs.FieldCertificate, certs.FieldKey, certs.FieldCA} {
		fmt.Fprintf(h, "%d ", len(object.Data[field]))
		h.Write(object.Data[field])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// upstreamSecret is a Secret that ports are spoken to with.
type upstreamSecret struct {
	users []*portState
	// asked is set once the Source has been asked for it: before that, one that is not there
	// may only not have been fetched.
	asked bool
}

func upstreamSecretOf(p *portState) types.NamespacedName {
	return types.NamespacedName{Namespace: p.service.Namespace, Name: p.ref.via.Secret}
}

func (c *compiler) useUpstreamSecret(p *portState) {
	if p.ref.via.Secret == "" {
		return
	}
	name := upstreamSecretOf(p)
	s := c.upstreams[name]
	if s == nil {
		s = &upstreamSecret{}
		c.upstreams[name] = s
		c.wants = true
	}
	s.users = append(s.users, p)
}

func (c *compiler) releaseUpstreamSecret(p *portState) {
	name := upstreamSecretOf(p)
	s := c.upstreams[name]
	if s == nil {
		return
	}
	if i := slices.Index(s.users, p); i >= 0 {
		s.users = slices.Delete(s.users, i, i+1)
	}
	if len(s.users) == 0 {
		delete(c.upstreams, name)
		c.wants = true
	}
}

// judgeUpstreams looks at the Secrets that have become wanted, once they were asked for.
func (c *compiler) judgeUpstreams() {
	for name, s := range c.upstreams {
		if !s.asked {
			s.asked = true
			c.noteUpstreamSecret(name)
		}
	}
}

// noteUpstreamSecret finds out anew what the ports come to that are spoken to with a Secret.
func (c *compiler) noteUpstreamSecret(name types.NamespacedName) {
	if s := c.upstreams[name]; s != nil {
		for _, p := range s.users {
			c.refreshPort(p)
		}
	}
}

// upstreamsWait tells whether a route of a host needs a Secret that is not known yet.
func (c *compiler) upstreamsWait(host string) bool {
	h := c.hosts[host]
	return h != nil && slices.ContainsFunc(h.askers, c.transportWaits)
}

// fallbackWaits is the same for the default backend.
func (c *compiler) fallbackWaits() bool {
	return len(c.catchAll) > 0 && c.transportWaits(c.catchAll[0])
}

func (c *compiler) transportWaits(st *ingressState) bool {
	secret := st.spec.options.Transport.Secret
	return secret != "" && c.waiting.has(secretRef(types.NamespacedName{Namespace: st.object.Namespace, Name: secret}), c.now())
}
