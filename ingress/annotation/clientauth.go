package annotation

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// ClientAuth is what is asked of the certificates of clients. The zero value asks for none.
type ClientAuth struct {
	// Secret is the namespace/name of the Secret whose ca.crt has the CAs.
	Secret string
	// Verify is on, optional, optional_no_ca or off; "" means on.
	Verify string
	// Depth is how many more intermediates there may be than DefaultVerifyDepth.
	Depth int
	// PassCertificate sends the certificate on to the upstream.
	PassCertificate bool
	// ErrorPage is the URL to send clients to whose certificate is missing or bad.
	ErrorPage string
	// MatchCN is a regular expression for "CN=" and the common name.
	MatchCN string
}

// DefaultVerifyDepth is nginx's ssl_verify_depth in ingress-nginx.
const DefaultVerifyDepth = 1

const authTLS = "auth-tls-"

func authTLSKeys(name string) []string {
	return []string{Prefix + authTLS + name, NginxPrefix + authTLS + name}
}

var authTLSSecret = Annotation{
	Keys:     authTLSKeys("secret"),
	Help:     "Ask the clients of the Ingress's hosts for a certificate of one of the CAs in ca.crt of this Secret, namespace/name, which has to be in the Ingress's own namespace. It holds for the whole host, which has to be the namespace's own.",
	Phase:    PhaseConnection,
	Protects: true,
	Validate: func(value string) error {
		if ns, name, ok := strings.Cut(value, "/"); value != "" && (!ok || ns == "" || name == "" || strings.Contains(name, "/")) {
			return errors.New("is not of the form namespace/name")
		}
		return nil
	},
	Apply: func(value string, o *Options) { o.ClientAuth.Secret = value },
}

var authTLSVerifyClient = Annotation{
	Keys:    authTLSKeys("verify-client"),
	Help:    "on: a client certificate has to be there and valid; optional: it has to be valid if it is there; optional_no_ca: its issuer does not matter; off: none is asked for.",
	Default: "on",
	Phase:   PhaseConnection,
	Validate: func(value string) error {
		switch value {
		case "on", "off", "optional", "optional_no_ca":
			return nil
		}
		return errors.New(`is none of "on", "optional", "optional_no_ca" and "off"`)
	},
	Apply: func(value string, o *Options) { o.ClientAuth.Verify = value },
}

var authTLSVerifyDepth = Annotation{
	Keys:    authTLSKeys("verify-depth"),
	Help:    "How many intermediate certificates there may be between a client's and a CA's.",
	Default: strconv.Itoa(DefaultVerifyDepth),
	Phase:   PhaseConnection,
	Validate: func(value string) error {
		if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 10 {
			return errors.New("is not a number from 0 to 10")
		}
		return nil
	},
	Apply: func(value string, o *Options) {
		n, _ := strconv.Atoi(value) // validated
		o.ClientAuth.Depth = n - DefaultVerifyDepth
	},
}

var authTLSPassCertificate = Annotation{
	Keys:     authTLSKeys("pass-certificate-to-upstream"),
	Help:     "Send the client's certificate to the backend in ssl-client-cert, as URL-encoded PEM. What was made of it, and its names, are sent anyway (ssl-client-verify, ssl-client-subject-dn, ssl-client-issuer-dn).",
	Default:  "false",
	Phase:    PhaseAccess,
	Validate: validateBool,
	Apply: func(value string, o *Options) {
		o.ClientAuth.PassCertificate, _ = strconv.ParseBool(value) // validated
	},
}

var authTLSErrorPage = Annotation{
	Keys:     authTLSKeys("error-page"),
	Help:     "The URL to which clients are sent (302) whose certificate is missing or bad, instead of being answered 400.",
	Phase:    PhaseAccess,
	Validate: validateURL,
	Apply:    func(value string, o *Options) { o.ClientAuth.ErrorPage = value },
}

var authTLSMatchCN = Annotation{
	Keys:     authTLSKeys("match-cn"),
	Help:     `A regular expression (RE2) that begins with "CN=" and has to match all of "CN=" and the common name of the client's certificate; else the answer is 403.`,
	Phase:    PhaseAccess,
	Protects: true,
	Validate: func(value string) error {
		if value == "" {
			return nil
		}
		if !strings.HasPrefix(value, "CN=") || len(value) > maxPattern {
			return fmt.Errorf(`does not begin with "CN=", or is longer than %d bytes`, maxPattern)
		}
		if _, err := regexp.Compile(value); err != nil {
			return errors.New("is not a regular expression (RE2 syntax: no backreferences, no lookaround)")
		}
		return nil
	},
	Apply: func(value string, o *Options) { o.ClientAuth.MatchCN = value },
}

// maxPattern bounds what is compiled.
const maxPattern = 1024

// validateURL takes absolute URLs that can stand in a Location. A path would lead back to
// where the client was refused.
func validateURL(value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return errors.New("is not an absolute http or https URL")
	}
	return nil
}

// settle judges what the annotations say together.
func (c *ClientAuth) settle(annotations map[string]string, o *Options) (findings []Finding) {
	if c.Secret != "" && c.Verify != "off" {
		return nil
	}
	off := c.Verify == "off" && c.MatchCN == ""
	*c = ClientAuth{}
	if off || o.Refuse != "" {
		return nil
	}
	why := "needs " + authTLS + "secret, which is not there"
	for _, a := range needSecret {
		for _, key := range a.Keys {
			if annotations[key] == "" {
				continue
			}
			if a == &authTLSMatchCN {
				why = "needs " + authTLS + "secret, and " + authTLS + "verify-client not to be off"
			}
			o.Refuse = fmt.Sprintf("annotation %s %s", key, why)
			return []Finding{{key, why + "; the paths of this Ingress answer 503, because Portico does not serve without the protection; add it, or remove the annotation"}}
		}
	}
	return nil
}

// needSecret are the annotations that say nothing without auth-tls-secret.
var needSecret = []*Annotation{&authTLSMatchCN, &authTLSVerifyClient, &authTLSVerifyDepth, &authTLSPassCertificate, &authTLSErrorPage}
