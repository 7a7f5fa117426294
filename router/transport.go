package router

import (
	"crypto/tls"

	"github.com/portico-ingress/portico/router/engine"
)

// Transport says how the endpoints of a Backend are spoken to. The zero value is plain
// HTTP/1.1.
type Transport struct {
	Protocol engine.Protocol
	// TLS is shared by all connections; nil: they are plain.
	TLS *tls.Config
	// Name says it for people: "h2c", "https".
	Name string
}
