package certs

import (
	"bytes"
	"slices"
	"strings"
)

// Coalesces reports whether a connection whose handshake asked for serverName may carry a request for
// another host (RFC 9113, section 9.1.1), given in lower case, without port and trailing dot. Clients of HTTP/2
// ask whenever the certificate they were shown covers the host and its address is the same one; where the
// answer is no, they get 421 Misdirected Request, and make a connection of its own.
//
// It may if a handshake for the host would have come to the same certificates, or if nobody has put one in
// place for the host and the one that was shown covers it. So a host that has its own certificate is only
// reached by who was shown that one, also where the wildcard of somebody else covers it.
//
// A client that sends no name asks for nobody's certificate in particular, and cannot be sent to another
// connection: it may ask for any host, as health checks and `curl -k https://192.0.2.1 -H 'Host: a.example'` do.
//
// Hosts whose clients are asked for different things in the handshake (a [ClientPolicy]) do not coalesce,
// whatever their certificates: the connection of one says nothing about what the other asks for.
func (s *Set) Coalesces(serverName string, host []byte) bool {
	serverName = normalHost(serverName)
	if serverName == "" || serverName == string(host) {
		return true
	}
	if s.policyOf(host) != s.Policy(serverName) {
		return false
	}
	shown := s.lookup(serverName)
	own, ok := s.lookupBytes(host)
	switch {
	case slices.Equal(shown, own):
		return true
	case len(shown) == 0: // the fallback, which the host may name as well
		return len(own) == 1 && own[0] == s.fallback
	case ok:
		return false
	}
	return !slices.ContainsFunc(shown, func(c *Certificate) bool { return c != s.fallback && !c.coversName(host) })
}

// lookupBytes is lookup for a host in normal form, without making a string of it.
func (s *Set) lookupBytes(host []byte) (certs []*Certificate, ok bool) {
	if certs, ok = s.exact[string(host)]; ok {
		return certs, true
	}
	if label, parent, found := bytes.Cut(host, dot); found && len(label) > 0 && len(parent) > 0 {
		certs, ok = s.wildcard[string(parent)]
	}
	return certs, ok
}

var dot = []byte{'.'}

// coversName is [Certificate.Covers] for a DNS name in normal form.
func (c *Certificate) coversName(host []byte) bool {
	label, parent, _ := bytes.Cut(host, dot)
	for _, n := range c.dnsNames {
		if n == string(host) {
			return len(host) > 0
		}
		if over, ok := strings.CutPrefix(n, "*."); ok && len(label) > 0 && over != "" && over == string(parent) {
			return true
		}
	}
	return false
}

// Coalesces asks the current set, see [Set.Coalesces].
func (l *Live) Coalesces(serverName string, host []byte) bool {
	s := l.set.Load()
	return s == nil || s.Coalesces(serverName, host)
}
