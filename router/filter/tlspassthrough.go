package filter

import (
	"net/http"

	"github.com/portico-ingress/portico/router/engine"
)

// TLSPassthrough stands before the routes of a host whose TLS is passed through. A request
// for it over TLS that was ended here came on a connection made for another host: it gets 421
// (RFC 9110 section 15.5.20), because its endpoint wants to see the client's TLS itself.
type TLSPassthrough struct{}

// Request answers what comes over TLS.
func (TLSPassthrough) Request(x *engine.Exchange) (answered bool) {
	if !x.TLS() {
		return false
	}
	x.Reply(http.StatusMisdirectedRequest, textPlain, []byte("This connection was made for another host.\n"))
	return true
}

// Response changes nothing.
func (TLSPassthrough) Response(*engine.Exchange) {}

// String names the filter in dumps.
func (TLSPassthrough) String() string { return "tls-passthrough" }
