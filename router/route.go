package router

import "github.com/portico-ingress/portico/router/engine"

// PathType says how a Route's path is compared with the request's.
type PathType uint8

const (
	// Prefix matches by whole path elements: /foo matches /foo, /foo/ and /foo/bar, not
	// /foobar. A trailing slash on either side does not matter.
	Prefix PathType = iota
	// Exact matches the whole path, byte by byte, trailing slash included.
	Exact
)

// String gives the word people write in a manifest.
func (t PathType) String() string {
	if t == Exact {
		return "Exact"
	}
	return "Prefix"
}

// Route says what happens to the requests of one host and path. It is immutable once it
// stands in a Table.
type Route struct {
	// Host is the pattern the route stands under: "a.example", "*.example", or "" for
	// requests of any host.
	Host string
	// Path is in normal form (engine.NormalizePath).
	Path     string
	PathType PathType
	// Origin names, for people and metrics, the object that asked for the route:
	// "namespace/name".
	Origin string
	// Service names, for people and metrics, what the route leads to: "namespace/name:port".
	Service string
	// Backend is where requests go. If it is nil the proxy answers Status itself.
	Backend *Backend
	// Status is the answer of a route without a Backend; 0 means 404.
	Status int
	// Reason says, for people, why there is no Backend. It is never sent to a client.
	Reason string
	// ProxyProtocol, if not 0, begins each connection to the Backend with a header of the PROXY
	// protocol. No connection is used for two requests then.
	ProxyProtocol engine.ProxyVersion
	// Timeouts are what its requests may wait for; the zero value is the defaults.
	Timeouts engine.Timeouts
	// MaxBody is the largest request body in bytes, above which the answer is 413; 0: any.
	MaxBody int64
	// BufferBody is how many bytes of a request body are taken before an endpoint is asked;
	// 0: none, bodies are streamed.
	BufferBody int64
	// BufferAnswer is how many bytes of an answer may be held for a client that takes it more
	// slowly than the endpoint sends it; 0: none.
	BufferAnswer int64
	// Policy says how requests are spread over the endpoints of Backend. Nil is the default.
	Policy *Policy
	// Filters run in order before the request is sent, and in reverse order on the answer.
	Filters []Filter
	// Stats counts what the route does. It outlives the Table. Nil is allowed: nothing is counted.
	Stats *Stats
}
