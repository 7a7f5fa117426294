package certs

import (
	"cmp"
	"slices"
	"time"
)

// Info is what may be told about a certificate in use: all but its private key.
type Info struct {
	Name        string    `json:"name"`              // "namespace/secret", or "self-signed"
	Hosts       []string  `json:"hosts"`             // the host patterns it is served for, sorted
	Default     bool      `json:"default,omitempty"` // it is the fallback
	Names       []string  `json:"names"`             // its subject alternative names
	Issuer      string    `json:"issuer"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	KeyType     string    `json:"keyType"`
	Fingerprint string    `json:"fingerprintSHA256"`
}

// Certificates lists what the set serves, sorted by name, then fingerprint. It is made anew at each call.
func (s *Set) Certificates() []Info {
	hosts := make(map[*Certificate][]string)
	for host, certs := range s.exact {
		for _, c := range certs {
			hosts[c] = append(hosts[c], host)
		}
	}
	for parent, certs := range s.wildcard {
		for _, c := range certs {
			hosts[c] = append(hosts[c], "*."+parent)
		}
	}
	if s.fallback != nil && hosts[s.fallback] == nil {
		hosts[s.fallback] = []string{}
	}
	list := make([]Info, 0, len(hosts))
	for c, served := range hosts {
		slices.Sort(served)
		list = append(list, Info{
			Name:        c.Name,
			Hosts:       served,
			Default:     c == s.fallback,
			Names:       append([]string{}, c.Names()...), // never null in JSON
			Issuer:      c.Leaf.Issuer.String(),
			NotBefore:   c.Leaf.NotBefore,
			NotAfter:    c.Leaf.NotAfter,
			KeyType:     c.keyType,
			Fingerprint: c.fingerprint,
		})
	}
	slices.SortFunc(list, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return list
}
