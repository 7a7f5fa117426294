package annotation

import "strconv"

// sslPassthrough leaves the TLS of a host to its endpoints.
var sslPassthrough = Annotation{
	Keys:     []string{Prefix + "ssl-passthrough", NginxPrefix + "ssl-passthrough"},
	Help:     "Pass the TLS connections of the Ingress's hosts through to the Service of path / without ending them, by the name in the ClientHello. It holds for the whole host, which has to be the namespace's own; rules for other paths are for plain HTTP then.",
	Default:  "false",
	Phase:    PhaseConnection,
	Validate: validateBool,
	Apply: func(value string, o *Options) {
		o.SSLPassthrough, _ = strconv.ParseBool(value) // validated
	},
}
