// Package filter holds what a route may do to a request and its answer, one feature a
// file, each written against engine.Exchange alone. A filter is prepared once, when its
// route is compiled, and then used by many requests at the same time: it has no state of
// its own that changes without being safe for that.
package filter

import "github.com/portico-ingress/portico/router/engine"

// Filter is one prepared feature of a route.
type Filter interface {
	// Request sees the request before an endpoint is picked. It may change the request, or
	// answer it (x.Reply) and return true; then nothing after it runs.
	Request(x *engine.Exchange) (answered bool)
	// Response sees the head of the answer before it is written to the client, of
	// whichever origin. It may change x.Response.
	Response(x *engine.Exchange)
}
