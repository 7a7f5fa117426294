package annotation

import (
	"errors"
	"strconv"
)

// sslRedirect sends plain HTTP to https where the host has TLS.
var sslRedirect = Annotation{
	Keys:     []string{Prefix + "ssl-redirect", NginxPrefix + "ssl-redirect"},
	Help:     "Answer plain HTTP with 308 to https when the host has TLS.",
	Default:  "true",
	Phase:    PhaseRedirect,
	Validate: validateBool,
	Apply: func(value string, o *Options) {
		on, _ := strconv.ParseBool(value) // validated
		o.NoSSLRedirect = !on
	},
}

// forceSSLRedirect does so for the paths of one Ingress, whatever TLS there is: the redirect of
// those who end TLS in front of Portico, or have a default certificate for the host.
var forceSSLRedirect = Annotation{
	Keys:     []string{Prefix + "force-ssl-redirect", NginxPrefix + "force-ssl-redirect"},
	Help:     "Answer plain HTTP with 308 to https on all paths of the Ingress, even when the host has no TLS section; ssl-redirect does not turn it off.",
	Default:  "false",
	Phase:    PhaseRedirect,
	Validate: validateBool,
	Apply: func(value string, o *Options) {
		o.ForceSSLRedirect, _ = strconv.ParseBool(value) // validated
	},
}

// validateBool takes what ingress-nginx takes.
func validateBool(value string) error {
	if _, err := strconv.ParseBool(value); err != nil {
		return errors.New(`is neither "true" nor "false"`)
	}
	return nil
}
