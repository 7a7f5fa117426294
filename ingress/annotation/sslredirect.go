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

// validateBool takes what ingress-nginx takes.
func validateBool(value string) error {
	if _, err := strconv.ParseBool(value); err != nil {
		return errors.New(`is neither "true" nor "false"`)
	}
	return nil
}
