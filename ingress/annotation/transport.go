package annotation

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Protocol is what an upstream speaks, as backend-protocol spells it.
type Protocol string

// The protocols of upstreams; "" leaves it to the Service's appProtocol.
const (
	ProtocolHTTP  Protocol = "HTTP"
	ProtocolHTTPS Protocol = "HTTPS"
	ProtocolGRPC  Protocol = "GRPC"
	ProtocolGRPCS Protocol = "GRPCS"
)

// Transport is how an Ingress wants its Services to be spoken to. It is comparable.
type Transport struct {
	Protocol Protocol
	// What follows counts where TLS is spoken.

	// Secret is "namespace/name", or "name" in the namespace of the Ingress: tls.crt and tls.key
	// are shown to the upstream, ca.crt is what its certificate is verified against.
	Secret string
	// Verify asks for a certificate of the upstream that holds.
	Verify bool
	// Depth is how many intermediate CAs there may be.
	Depth int
	// Name is what the certificate has to be for, and the server name that is sent; "" is the
	// name of the Service in the cluster.
	Name string
	// ServerName sends it.
	ServerName bool
}

var backendProtocol = Annotation{
	Keys:     []string{Prefix + "backend-protocol", NginxPrefix + "backend-protocol"},
	Help:     "What the Services speak: HTTP, HTTPS (HTTP/1.1 over TLS), GRPC (HTTP/2 without TLS) or GRPCS (HTTP/2 over TLS); it wins over the appProtocol of the Service's port.",
	Default:  "HTTP",
	Phase:    PhaseUpstream,
	Protects: true,
	Validate: func(value string) error {
		switch Protocol(strings.ToUpper(value)) {
		case ProtocolHTTP, ProtocolHTTPS, ProtocolGRPC, ProtocolGRPCS:
			return nil
		case "FCGI":
			return errors.New("(FastCGI) is not supported; put a web server in front of the application")
		case "AUTO_HTTP":
			return errors.New("is not supported; write HTTP or HTTPS, whichever the Service speaks")
		}
		return errors.New("is none of HTTP, HTTPS, GRPC and GRPCS")
	},
	Apply: func(value string, o *Options) { o.Transport.Protocol = Protocol(strings.ToUpper(value)) },
}

var proxySSLSecret = Annotation{
	Keys:     []string{Prefix + "proxy-ssl-secret", NginxPrefix + "proxy-ssl-secret"},
	Help:     "The Secret (namespace/name, in the namespace of the Ingress) whose tls.crt and tls.key are shown to an upstream that speaks TLS, and whose ca.crt its certificate is verified against.",
	Phase:    PhaseUpstream,
	Protects: true,
	Validate: func(value string) error {
		if strings.Count(value, "/") > 1 || strings.HasPrefix(value, "/") || strings.HasSuffix(value, "/") || strings.ContainsAny(value, " \t\n") {
			return errors.New("is not namespace/name")
		}
		return nil
	},
	Apply: func(value string, o *Options) { o.Transport.Secret = value },
}

var proxySSLVerify = Annotation{
	Keys:     []string{Prefix + "proxy-ssl-verify", NginxPrefix + "proxy-ssl-verify"},
	Help:     "Verify the certificate of an upstream that speaks TLS: against ca.crt of proxy-ssl-secret, or the CAs of the system.",
	Default:  "off",
	Phase:    PhaseUpstream,
	Protects: true,
	Validate: validateSwitch,
	Apply:    func(value string, o *Options) { o.Transport.Verify = value == "on" },
}

var proxySSLVerifyDepth = Annotation{
	Keys:     []string{Prefix + "proxy-ssl-verify-depth", NginxPrefix + "proxy-ssl-verify-depth"},
	Help:     "How many intermediate CAs the certificate of an upstream may have.",
	Default:  "1",
	Phase:    PhaseUpstream,
	Protects: true,
	Validate: func(value string) error {
		if n, err := strconv.Atoi(value); err != nil || n < 0 || n > maxDepth {
			return fmt.Errorf("is no number from 0 to %d", maxDepth)
		}
		return nil
	},
	Apply: func(value string, o *Options) {
		n, _ := strconv.Atoi(value) // validated
		o.Transport.Depth = n - DefaultDepth
	},
}

// DefaultDepth is what Transport.Depth is counted from, so that its zero value is the default.
const DefaultDepth = 1

const maxDepth = 100

var proxySSLName = Annotation{
	Keys:     []string{Prefix + "proxy-ssl-name", NginxPrefix + "proxy-ssl-name"},
	Help:     "The name that the certificate of an upstream has to be for, and that is sent to it with proxy-ssl-server-name; without it <service>.<namespace>.svc, or the externalName.",
	Phase:    PhaseUpstream,
	Protects: true,
	Validate: func(value string) error {
		if _, err := netip.ParseAddr(value); err == nil || value == "" || isDNSName(value) {
			return nil
		}
		return errors.New("is neither a DNS name nor an IP address")
	},
	Apply: func(value string, o *Options) { o.Transport.Name = value },
}

var proxySSLServerName = Annotation{
	Keys:     []string{Prefix + "proxy-ssl-server-name", NginxPrefix + "proxy-ssl-server-name"},
	Help:     "Send the server name (SNI) to an upstream that speaks TLS.",
	Default:  "off",
	Phase:    PhaseUpstream,
	Protects: true,
	Validate: validateSwitch,
	Apply:    func(value string, o *Options) { o.Transport.ServerName = value == "on" },
}

// validateSwitch takes what ingress-nginx takes.
func validateSwitch(value string) error {
	if value != "on" && value != "off" {
		return errors.New(`is neither "on" nor "off"`)
	}
	return nil
}

// PlainKeys are the annotations about TLS to upstreams that are given and have no effect where
// none of them speaks it, sorted. Values that turn off what is off are no matter.
func PlainKeys(annotations map[string]string) (keys []string) {
	for key, value := range annotations {
		a := byKey[key]
		if a != nil && value != "off" && strings.HasPrefix(a.Keys[0], Prefix+"proxy-ssl-") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
