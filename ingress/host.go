package ingress

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Errors of normalHost, as the end of "the host ... ".
var (
	errHostEmpty    = errors.New("is empty")
	errHostPort     = errors.New("has a port; write the name alone")
	errHostAddress  = errors.New("is an IP address; leave the host out to match any")
	errHostWildcard = errors.New(`has a wildcard that is not its whole first label; write "*.example.com"`)
	errHostName     = errors.New("is not a DNS name")
	errHostTooLong  = errors.New("is longer than a DNS name can be")
)

const (
	maxHost  = 253
	maxLabel = 63
)

// normalHost gives the form that hosts of requests are compared in: lower case, no trailing
// dot, international names in punycode. The host may begin with "*.". Like the API server
// it takes DNS names only, so that the same YAML means the same from a folder.
func normalHost(host string) (string, error) {
	name, wildcard := strings.CutPrefix(host, "*.")
	name = strings.TrimSuffix(name, ".")
	if !isDNSName(name) { // the usual case needs no more
		var err error
		if name, err = foreignHost(name); err != nil {
			return "", err
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", errHostAddress
	}
	if wildcard {
		name = "*." + name
	}
	if len(name) > maxHost {
		return "", errHostTooLong
	}
	return name, nil
}

// foreignHost handles upper case and other alphabets, and finds what is wrong with the rest.
func foreignHost(name string) (string, error) {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "", errHostAddress
	}
	switch {
	case name == "":
		return "", errHostEmpty
	case strings.Contains(name, "*"):
		return "", errHostWildcard
	case hasPort(name):
		return "", errHostPort
	case !utf8.ValidString(name):
		return "", errHostName
	}
	ascii, err := idna.Lookup.ToASCII(name)
	ascii = strings.TrimSuffix(ascii, ".") // a full stop of another script
	if err != nil || !isDNSName(ascii) {
		return "", errHostName
	}
	return ascii, nil
}

func hasPort(name string) bool {
	_, port, err := net.SplitHostPort(name)
	return err == nil && strings.Trim(port, "0123456789") == ""
}

// isDNSName tells whether name is labels of lower-case letters, digits and inner hyphens.
func isDNSName(name string) bool {
	if name == "" || len(name) > maxHost {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
