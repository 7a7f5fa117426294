package annotation

import (
	"errors"

	"github.com/portico-ingress/portico/router/engine"
)

// proxyProtocolToBackend tells backends who the client is without a field of HTTP.
var proxyProtocolToBackend = Annotation{
	Keys:    []string{Prefix + "proxy-protocol-to-backend"},
	Help:    "v1 or v2: begin each connection to the backend with a header of the PROXY protocol, also where TLS is passed through. Connections are not used again then, because each says who its one client is. Not supported with backends that are spoken to in HTTP/2.",
	Phase:   PhaseUpstream,
	Default: "",
	Validate: func(value string) error {
		if value != "" && value != "v1" && value != "v2" {
			return errors.New(`is neither "v1" nor "v2"`)
		}
		return nil
	},
	Apply: func(value string, o *Options) {
		switch value {
		case "v1":
			o.ProxyProtocol = engine.ProxyV1
		case "v2":
			o.ProxyProtocol = engine.ProxyV2
		}
	},
}
