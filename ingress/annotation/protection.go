package annotation

import (
	"errors"
	"time"

	"github.com/portico-ingress/portico/router"
)

// What protects backends from more than they can do, and requests from endpoints that are ill.

var maxConnections = policyAnnotation(
	Annotation{
		Keys:    ours("max-connections"),
		Help:    "How many requests each endpoint has at the same time at most (over HTTP/1.1, connections); what is over that waits or is answered 503. 0 is no limit.",
		Default: "0",
	},
	number(0, 1_000_000),
	func(p *router.Policy, n int) { p.Limits.Connections = int64(n) },
)

var maxRequests = policyAnnotation(
	Annotation{
		Keys:    ours("max-requests"),
		Help:    "How many requests the backend has at the same time at most. 0 is no limit.",
		Default: "0",
	},
	number(0, 10_000_000),
	func(p *router.Policy, n int) { p.Limits.Requests = int64(n) },
)

var maxPending = policyAnnotation(
	Annotation{
		Keys:    ours("max-pending"),
		Help:    "How many requests may wait for room under max-connections and max-requests.",
		Default: "0",
	},
	number(0, 10_000),
	func(p *router.Policy, n int) { p.Limits.Pending = n },
)

var pendingTimeout = policyAnnotation(
	Annotation{Keys: ours("pending-timeout"), Help: "How long they wait.", Default: "5s"},
	span(time.Millisecond, 10*time.Minute),
	func(p *router.Policy, d time.Duration) { p.Limits.PendingTimeout = d },
)

var ejectAfter = policyAnnotation(
	Annotation{
		Keys:    ours("eject-after"),
		Help:    "After how many bad answers in a row (5xx, too late, broken off, not HTTP) an endpoint is left alone for a while. 0: never.",
		Default: "0",
	},
	number(0, 1_000),
	func(p *router.Policy, n int) { p.Ejection.Consecutive = n },
)

var ejectTime = policyAnnotation(
	Annotation{Keys: ours("eject-time"), Help: "How long that is the first time; it doubles with each time that follows.", Default: "30s"},
	span(time.Second, time.Hour),
	func(p *router.Policy, d time.Duration) { p.Ejection.Base = d },
)

var ejectMaxTime = policyAnnotation(
	Annotation{Keys: ours("eject-max-time"), Help: "How long that is at most.", Default: "5m"},
	span(time.Second, 24*time.Hour),
	func(p *router.Policy, d time.Duration) { p.Ejection.Max = d },
)

var ejectMaxPercent = policyAnnotation(
	Annotation{Keys: ours("eject-max-percent"), Help: "How much of the backend may be out with it.", Default: "50"},
	number(1, 100),
	func(p *router.Policy, n int) { p.Ejection.MaxPercent = n },
)

var healthCheck = policyAnnotation(
	Annotation{
		Keys:    ours("health-check"),
		Help:    "Ask each endpoint whether it is well: http, tcp, grpc or off. http and grpc speak as requests do, TLS included (proxy-ssl-*); to a health-check-port of its own they speak without TLS. Of different checks of one backend the most frequent one counts.",
		Default: "off",
	},
	word([]string{"http", "tcp", "grpc", "off"}, router.CheckHTTP, router.CheckTCP, router.CheckGRPC, router.CheckOff),
	func(p *router.Policy, k router.CheckKind) { p.Check.Kind = k },
)

var healthCheckPath = policyAnnotation(
	Annotation{Keys: ours("health-check-path"), Help: "What is asked for with GET; an answer of 200 to 399 is well.", Default: "/"},
	func(value string) (string, error) {
		if value == "" || value[0] != '/' || !isPlain(value, "#") || len(value) > 1024 {
			return "", errors.New(`is no path (it begins with "/", and has no "#" and space)`)
		}
		return value, nil
	},
	func(p *router.Policy, v string) { p.Check.Path = v },
)

var healthCheckHost = policyAnnotation(
	Annotation{Keys: ours("health-check-host"), Help: "The Host that is asked for; empty is the address.", Default: ""},
	func(value string) (string, error) {
		if value != "" && !isHostname(value) {
			return "", errors.New("is no host name")
		}
		return value, nil
	},
	func(p *router.Policy, v string) { p.Check.Host = v },
)

var healthCheckService = policyAnnotation(
	Annotation{Keys: ours("health-check-service"), Help: "The service that a grpc check asks about; empty is the server.", Default: ""},
	func(value string) (string, error) {
		if !isPlain(value, "") || len(value) > 256 {
			return "", errors.New("is no name of a gRPC service")
		}
		return value, nil
	},
	func(p *router.Policy, v string) { p.Check.Service = v },
)

var healthCheckPort = policyAnnotation(
	Annotation{Keys: ours("health-check-port"), Help: "The port of the endpoint that is asked; 0 is the one that requests go to.", Default: "0"},
	number(0, 65535),
	func(p *router.Policy, n int) { p.Check.Port = uint16(n) },
)

var healthCheckInterval = policyAnnotation(
	Annotation{Keys: ours("health-check-interval"), Help: "Time between two checks of an endpoint.", Default: "10s"},
	span(time.Second, time.Hour),
	func(p *router.Policy, d time.Duration) { p.Check.Interval = d },
)

var healthCheckTimeout = policyAnnotation(
	Annotation{Keys: ours("health-check-timeout"), Help: "Time a check may take.", Default: "1s"},
	span(10*time.Millisecond, time.Minute),
	func(p *router.Policy, d time.Duration) { p.Check.Timeout = d },
)

var healthCheckRise = policyAnnotation(
	Annotation{Keys: ours("health-check-rise"), Help: "How many checks in a row have to succeed for an endpoint to come back.", Default: "2"},
	number(1, 100),
	func(p *router.Policy, n int) { p.Check.Rise = n },
)

var healthCheckFall = policyAnnotation(
	Annotation{Keys: ours("health-check-fall"), Help: "How many checks in a row have to fail for an endpoint to be taken out.", Default: "3"},
	number(1, 100),
	func(p *router.Policy, n int) { p.Check.Fall = n },
)
