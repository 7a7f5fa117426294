// Package annotation knows the annotations of an Ingress: which there are, what values they
// take, and what they do. Each family has a file of its own; registry lists them all.
//
// Read turns the annotations of one Ingress into Options, which the compiler of package
// ingress applies, and Findings, which tell the user what was wrong. What asks for
// protection that Portico does not have is never merely ignored: see Options.Refuse.
package annotation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/engine"
)

// Prefixes of the annotations that Read looks at; it leaves all others to their owners.
const (
	Prefix      = "portico.dev/"
	NginxPrefix = "nginx.ingress.kubernetes.io/"
)

// Phase says where in the life of a request an annotation acts.
type Phase string

// The phases, in the order in which a request meets them.
const (
	PhaseConnection Phase = "connection"
	PhaseAccess     Phase = "access"
	PhaseRedirect   Phase = "redirect"
	PhaseBalance    Phase = "balance"
	PhaseUpstream   Phase = "upstream"
)

// Annotation is one setting.
type Annotation struct {
	// Keys are its spellings: ours first, then those of other controllers that mean the
	// same. Of several on one Ingress the first counts.
	Keys []string
	// Help is one sentence for the manual.
	Help string
	// Default is the value that stands where none is given, or a wrong one.
	Default string
	// Phase is where it acts.
	Phase Phase
	// Protects is set where a wrong value must not be ignored, because the default could open, or
	// lead into the void, what the value was meant to set: the paths answer 503 then.
	Protects bool
	// Validate says what is wrong with a value, as the end of the sentence "the value ...".
	Validate func(value string) error
	// Apply puts a valid value into effect.
	Apply func(value string, o *Options)
}

// Options are what the annotations of one Ingress ask for.
type Options struct {
	// NoSSLRedirect serves plain HTTP even where the host has TLS.
	NoSSLRedirect bool
	// ForceSSLRedirect redirects plain HTTP even where the host has no TLS. It wins over
	// NoSSLRedirect.
	ForceSSLRedirect bool
	// SSLPassthrough leaves the TLS of the hosts to their endpoints.
	SSLPassthrough bool
	// ProxyProtocol, if not 0, begins connections to the backend with a PROXY header.
	ProxyProtocol engine.ProxyVersion
	// ClientAuth asks clients for certificates.
	ClientAuth ClientAuth
	// The time-outs of a request; 0 is the default.
	ConnectTimeout, SendTimeout, ReadTimeout, FirstByteTimeout, RequestTimeout time.Duration
	// MaxBody is the largest request body in bytes; 0: any.
	MaxBody int64
	// BufferBody takes BodyBuffer bytes of a request body before an endpoint is asked.
	BufferBody bool
	BodyBuffer int64
	// AnswerBuffer is how much of an answer may be held for a slow client.
	AnswerBuffer AnswerBuffer
	// Policy says how requests are spread over endpoints; nil is the default.
	Policy *router.Policy
	// Transport is how the Services are spoken to.
	Transport Transport
	// Refuse, if not empty, says why the routes of the Ingress answer 503: an annotation
	// asks for protection that Portico does not have, and serving without it would open
	// what was meant to be closed.
	Refuse string
	// Ignore, if not empty, says why the Ingress makes no routes at all.
	Ignore string
}

// Finding is something to tell the owner of an Ingress.
type Finding struct {
	// Key is the annotation.
	Key string
	// Text says what is wrong, what happens instead, and the fix.
	Text string
}

// registry is every Annotation there is.
var registry = []Annotation{
	sslRedirect,
	forceSSLRedirect,
	sslPassthrough,
	authTLSSecret,
	authTLSVerifyClient,
	authTLSVerifyDepth,
	authTLSPassCertificate,
	authTLSErrorPage,
	authTLSMatchCN,
	proxyProtocolToBackend,
	proxyConnectTimeout,
	proxySendTimeout,
	proxyReadTimeout,
	proxyFirstByteTimeout,
	requestTimeout,
	proxyBodySize,
	proxyRequestBuffering,
	clientBodyBufferSize,
	proxyBuffering, proxyBufferSize, proxyBuffersNumber, proxyMaxTempFileSize,

	loadBalance, upstreamHashBy, slowStart,
	affinity, affinityMode,
	sessionCookieName, sessionCookieExpires, sessionCookieMaxAge, sessionCookiePath, sessionCookieDomain,
	sessionCookieSameSite, sessionCookieSecure, sessionCookieChangeOnFailure,
	nextUpstream, nextUpstreamTries, nextUpstreamTimeout, retryBudget, retryBudgetFloor,
	maxConnections, maxRequests, maxPending, pendingTimeout,
	ejectAfter, ejectTime, ejectMaxTime, ejectMaxPercent,
	healthCheck, healthCheckPath, healthCheckHost, healthCheckService, healthCheckPort,
	healthCheckInterval, healthCheckTimeout, healthCheckRise, healthCheckFall,
	backendProtocol,
	proxySSLSecret,
	proxySSLVerify,
	proxySSLVerifyDepth,
	proxySSLName,
	proxySSLServerName,
}

var byKey = func() map[string]*Annotation {
	m := map[string]*Annotation{}
	for i := range registry {
		for _, key := range registry[i].Keys {
			m[key] = &registry[i]
		}
	}
	return m
}()

// All returns every Annotation, for the manual.
func All() []Annotation { return slices.Clone(registry) }

// Read judges the annotations of one Ingress. Findings are in the order of their keys.
func Read(annotations map[string]string) (Options, []Finding) {
	var o Options
	var findings []Finding
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		switch {
		case byKey[key] != nil:
		case strings.HasPrefix(key, Prefix):
			findings = append(findings, Finding{key, unknown(key)})
		case strings.HasPrefix(key, NginxPrefix):
			if text := foreign(key, annotations[key], &o); text != "" {
				findings = append(findings, Finding{key, text})
			}
		}
	}
	for i := range registry {
		findings = append(findings, registry[i].read(annotations, &o)...)
	}
	findings = append(findings, o.ClientAuth.settle(annotations, &o)...)
	findings = append(findings, settlePolicy(annotations, &o)...)
	findings = append(findings, settlePassthrough(annotations, &o)...)
	findings = append(findings, o.AnswerBuffer.settle(annotations)...)
	slices.SortStableFunc(findings, func(a, b Finding) int { return strings.Compare(a.Key, b.Key) })
	return o, findings
}

// read applies the first spelling that is there. What the others say is told, if it differs.
func (a *Annotation) read(annotations map[string]string, o *Options) []Finding {
	var findings []Finding
	used := ""
	for _, key := range a.Keys {
		value, ok := annotations[key]
		switch {
		case !ok:
		case used != "":
			if value != annotations[used] {
				findings = append(findings, Finding{key, fmt.Sprintf("%s says %q and wins; remove one of the two", used, annotations[used])})
			}
		default:
			used = key
			if err := a.Validate(value); err != nil && a.Protects {
				text := fmt.Sprintf("the value %.80q %v", value, err)
				if o.Refuse == "" {
					o.Refuse = "annotation " + key + ": " + text
				}
				findings = append(findings, Finding{key, text + "; the paths of this Ingress answer 503 until it is corrected"})
				continue
			} else if err != nil {
				findings = append(findings, Finding{key, fmt.Sprintf("the value %.80q %v; the default %q is used until it is corrected", value, err, a.Default)})
				continue
			}
			a.Apply(value, o)
		}
	}
	return findings
}

// unknown tells about a key of ours that does not exist.
func unknown(key string) string {
	text := "unknown annotation, ignored"
	if near := nearest(key); near != "" {
		return text + fmt.Sprintf("; did you mean %s?", near)
	}
	return text + "; the manual lists those that are supported"
}
