package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The types of flags, each of which knows what is right (pflag.Value).

// address is host:port to listen on; empty for not at all.
type address string

// String is what was given.
func (a *address) String() string { return string(*a) }

// Type is what help shows.
func (a *address) Type() string { return "host:port" }

// Set checks s.
func (a *address) Set(s string) error {
	if s == "" {
		*a = ""
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New(`want host:port, where host may be empty, like ":8080"`)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("the port is not a number from 0 to 65535")
	}
	if !isHost(host) {
		return fmt.Errorf("%q is not an IP address or a host name", host)
	}
	*a = address(s)
	return nil
}

// isGiven tells whether a says which port, so that it cannot be listened on twice.
func (a *address) isGiven() bool { return *a != "" && !strings.HasSuffix(string(*a), ":0") }

func isHost(s string) bool {
	if s == "" {
		return true
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return looksLikeName(s)
}

// looksLikeName also refuses what is meant to be an IP address and is not one.
func looksLikeName(s string) bool {
	return len(validation.IsDNS1123Subdomain(strings.ToLower(s))) == 0 && strings.Trim(s, "0123456789.") != ""
}

// objectName is namespace/name of one object; empty for none.
type objectName types.NamespacedName

// String is what was given.
func (n *objectName) String() string {
	if n.Name == "" {
		return ""
	}
	return n.Namespace + "/" + n.Name
}

// Type is what help shows.
func (n *objectName) Type() string { return "namespace/name" }

// Set checks s.
func (n *objectName) Set(s string) error {
	if s == "" {
		*n = objectName{}
		return nil
	}
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return errors.New("want namespace/name")
	}
	*n = objectName{Namespace: namespace, Name: name}
	return nil
}

// get is nil if the flag was not given.
func (n *objectName) get() types.NamespacedName { return types.NamespacedName(*n) }

// namespaces are the values of a flag that may be repeated.
type namespaces []string

// String is what was given.
func (n *namespaces) String() string { return strings.Join(*n, ",") }

// Type is what help shows.
func (n *namespaces) Type() string { return "namespace" }

// Set checks s, and adds it to those given before.
func (n *namespaces) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		if len(validation.IsDNS1123Label(name)) > 0 {
			return errors.New("want the name of a namespace")
		}
		*n = append(*n, name)
	}
	return nil
}

// publicAddresses are what clients reach Portico by: IP addresses and host names.
type publicAddresses []string

// String is what was given.
func (a *publicAddresses) String() string { return strings.Join(*a, ",") }

// Type is what help shows.
func (a *publicAddresses) Type() string { return "address,..." }

// Set checks s, and adds it to those given before.
func (a *publicAddresses) Set(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		one = strings.TrimSpace(one)
		if one == "" || !isHost(one) {
			return errors.New("want IP addresses or host names, separated by commas")
		}
		*a = append(*a, one)
	}
	return nil
}

// networks are ranges of IP addresses.
type networks []netip.Prefix

// String is what was given.
func (n *networks) String() string {
	words := make([]string, 0, len(*n))
	for _, one := range *n {
		words = append(words, one.String())
	}
	return strings.Join(words, ",")
}

// Type is what help shows.
func (n *networks) Type() string { return "network,..." }

// Set checks s, and adds it to those given before. An address alone is a network of one.
func (n *networks) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		one, err := parseNetwork(strings.TrimSpace(word))
		if err != nil {
			return err
		}
		*n = append(*n, one)
	}
	return nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, errors.New(`want networks like "10.0.0.0/8" or "2001:db8::/32", or addresses, separated by commas`)
	case p.Masked() != p:
		return p, fmt.Errorf("%s is an address in a network; the network is %s", p, p.Masked())
	}
	return p, nil
}

// seconds is a duration; a bare number counts seconds, as it does for ingress-nginx.
type seconds time.Duration

// String is what was given.
func (s *seconds) String() string { return time.Duration(*s).String() }

// Type is what help shows.
func (s *seconds) Type() string { return "duration" }

// Set checks v.
func (s *seconds) Set(v string) error {
	d, err := time.ParseDuration(v)
	if n, errNumber := strconv.Atoi(v); errNumber == nil && n <= int(longest.Seconds()) {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 || d > longest {
		return errors.New(`want a duration like "30s" or "2m", a day at most`)
	}
	*s = seconds(d)
	return nil
}

const longest = 24 * time.Hour

// oneOf is a word out of few.
type oneOf struct {
	value string
	words []string
}

// String is the word.
func (o *oneOf) String() string { return o.value }

// Type is what help shows.
func (o *oneOf) Type() string { return strings.Join(o.words, "|") }

// Set checks s.
func (o *oneOf) Set(s string) error {
	if slices.Contains(o.words, s) {
		o.value = s
		return nil
	}
	return fmt.Errorf("want one of %s", strings.Join(o.words, ", "))
}
