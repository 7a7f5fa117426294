package certs

import (
	"cmp"
	"crypto/tls"
	"slices"
)

// Entry says: serve these certificates for this host, or for all of these hosts. Host is "a.b" or "*.b".
type Entry struct {
	Host         string
	Certificates []*Certificate
}

// Set is one generation of certificates, chosen by SNI. It never changes and is safe for concurrent use.
type Set struct {
	exact        map[string][]*Certificate // "a.b"
	wildcard     map[string][]*Certificate // "*.a.b" under "a.b"
	fallback     *Certificate
	policies     map[string]*ClientPolicy // by host; nil keeps it from its wildcard's
	wildPolicies map[string]*ClientPolicy // by the domain of the wildcard
}

// NewSet builds a set. fallback answers when nothing else does; without one (nil) such handshakes fail.
//
// Entries with the same host are merged. A host keeps one certificate of each key type: the first that
// covers the host, or else the first. So the order of entries is the caller's order of precedence (for
// Ingresses, the oldest first). Hosts are taken in lower case and without a trailing dot; an entry without
// host or without certificates says nothing. NewSet keeps neither entries nor their slices.
func NewSet(fallback *Certificate, entries []Entry) *Set {
	s := &Set{
		exact:    make(map[string][]*Certificate, len(entries)),
		wildcard: make(map[string][]*Certificate),
		fallback: fallback,
	}
	total := 0
	for _, e := range entries {
		total += len(e.Certificates)
	}
	room := make([]*Certificate, total) // of which every host gets a slice: one allocation instead of thousands
	var several []string                // hosts with a choice to order, in normal form
	for _, e := range entries {
		host := normalHost(e.Host)
		table, key := s.place(host)
		if key == "" {
			continue
		}
		have, merging := table[key]
		if !merging {
			have = room[:0:len(e.Certificates)]
			room = room[len(e.Certificates):]
		}
		for _, c := range e.Certificates {
			have = merge(have, c, host)
		}
		if len(have) > 0 {
			table[key] = have
		}
		if len(have) > 1 {
			several = append(several, host)
		}
	}
	for _, host := range several {
		table, key := s.place(host)
		slices.SortStableFunc(table[key], func(a, b *Certificate) int {
			return cmp.Compare(rank(a, host), rank(b, host))
		})
	}
	return s
}

// place is where a host pattern in normal form is kept; no key means that it matches nothing.
func (s *Set) place(host string) (table map[string][]*Certificate, key string) {
	if parent, ok := wildcardParent(host); ok {
		return s.wildcard, parent
	}
	return s.exact, host
}

// merge adds c to the certificates of a host unless its key type has a better one already.
func merge(have []*Certificate, c *Certificate, host string) []*Certificate {
	if c == nil {
		return have
	}
	i := slices.IndexFunc(have, func(h *Certificate) bool { return h.keyType == c.keyType })
	switch {
	case i < 0:
		return append(have, c)
	case have[i] != c && !have[i].Covers(host) && c.Covers(host):
		have[i] = c
	}
	return have
}

// rank orders the certificates of a host, best first. One that does not cover the host comes last, because
// clients refuse it. ECDSA before RSA: a signature costs a tenth and the handshake is shorter. Ed25519 comes
// second: the few clients that accept it accept ECDSA as well.
func rank(c *Certificate, host string) int {
	r := 0
	switch c.keyType {
	case KeyEd25519:
		r = 1
	case KeyRSA:
		r = 2
	}
	if !c.Covers(host) {
		r += 3
	}
	return r
}

// Choose picks the certificate for a handshake: that of the very host, else that of the wildcard one label
// above (*.a.b for x.a.b, not for a.b or x.y.a.b), else the fallback, which also answers clients that send no
// name or an IP address. It is nil only when the set has no fallback. Of a host with several it is the first,
// in the order of [rank], that the client can verify.
func (s *Set) Choose(hello *tls.ClientHelloInfo) *Certificate {
	certs := s.lookup(hello.ServerName)
	switch len(certs) {
	case 0:
		return s.fallback
	case 1:
		return certs[0]
	}
	// Whether a certificate covers the name is settled: it was ranked by it. Asking again would cost more
	// than the rest, and would make us refuse where the owner of the host said what to serve.
	nameless := *hello
	nameless.ServerName = ""
	for _, c := range certs {
		if nameless.SupportsCertificate(&c.pair) == nil {
			return c
		}
	}
	// None will do. Let crypto/tls say so, about the kind of key most clients know.
	return certs[len(certs)-1]
}

// Lookup returns the certificates a host or a pattern "*.a.b" is served with, best first; nil if it is left
// to the fallback.
func (s *Set) Lookup(host string) []*Certificate {
	return slices.Clone(s.lookup(host))
}

func (s *Set) lookup(host string) []*Certificate {
	host = normalHost(host)
	if certs, ok := s.exact[host]; ok {
		return certs
	}
	if parent, ok := parentOf(host); ok {
		return s.wildcard[parent]
	}
	return nil
}
