package router

import "github.com/portico-ingress/portico/router/engine"

// Filter is one prepared feature of a route. It is made once, when its route is
// compiled, and then used by many requests at the same time. Package filter has them.
type Filter interface {
	// Request sees the request before an endpoint is picked. It may change the request, or
	// answer it (x.Reply) and return true; then nothing after it runs.
	Request(x *engine.Exchange) (answered bool)
	// Response sees the head of the answer before it is written to the client, whichever
	// side it comes from. It may change x.Response.
	Response(x *engine.Exchange)
}
