package svcproxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// claims say which Service has an address and port that several ask for. A cluster IP goes before
// the address of a load balancer, and that before an external IP; then the oldest Service. So
// nobody can take what another one has. Only one that is being deleted gives way: its load balancer's
// address may have been given out again while somebody's finalizer holds it.
type claims map[claimKey][]claim

type claimKey struct {
	addr     netip.Addr
	port     uint16
	protocol corev1.Protocol
	ipv6     bool
}

type claim struct {
	rank    int
	ending  int // 1 if the Service is being deleted
	created time.Time
	service string
}

func (a claim) compare(b claim) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.ending, b.ending), a.created.Compare(b.created), strings.Compare(a.service, b.service))
}

// yields says why another Service has what this one asks for.
func (s *Service) yields() string {
	if s.ending {
		return "has it as its cluster IP, or is not being deleted as this one is"
	}
	return "is older or has it as its cluster IP"
}

func (p *Port) claimKey(f *Frontend) claimKey {
	return claimKey{addr: f.Addr, port: f.Port, protocol: p.Protocol, ipv6: p.IPv6}
}

// replace takes the claims of old away and enters those of next; both may be nil. It gives the
// other Services that gain or lose something by that.
func (c claims) replace(old, next *Service) (others []string) {
	before := map[claimKey]string{}
	c.each(old, func(k claimKey, mine claim) {
		before[k] = c.owner(k)
		c[k] = slices.DeleteFunc(c[k], func(o claim) bool { return o.service == mine.service })
		if len(c[k]) == 0 {
			delete(c, k)
		}
	})
	c.each(next, func(k claimKey, mine claim) {
		if _, ok := before[k]; !ok {
			before[k] = c.owner(k)
		}
		at, _ := slices.BinarySearchFunc(c[k], mine, claim.compare)
		c[k] = slices.Insert(c[k], at, mine)
	})
	for k, was := range before {
		now := c.owner(k)
		if was == now {
			continue
		}
		for _, name := range []string{was, now} {
			if name != "" && (old == nil || name != old.Key()) && (next == nil || name != next.Key()) {
				others = append(others, name)
			}
		}
	}
	slices.Sort(others)
	return slices.Compact(others)
}

// each walks the claims of a Service, one for each address and port.
func (c claims) each(s *Service, visit func(claimKey, claim)) {
	if s == nil {
		return
	}
	ending := 0
	if s.ending {
		ending = 1
	}
	seen := map[claimKey]struct{}{}
	for _, p := range s.Ports {
		for i := range p.Frontends {
			f := &p.Frontends[i]
			k := p.claimKey(f)
			if _, ok := seen[k]; ok {
				continue
			}
			seen[k] = struct{}{}
			visit(k, claim{f.Source.rank(), ending, s.created.Time, s.Key()})
		}
	}
}

func (c claims) owner(k claimKey) string {
	if all := c[k]; len(all) > 0 {
		return all[0].service
	}
	return ""
}
