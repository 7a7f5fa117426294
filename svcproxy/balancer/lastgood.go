package balancer

import (
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
)

// lastGood remembers L2Advertisements as they were when they were last right: one that is changed to something that cannot be read
// counts as it was, so that a slip of the pen takes no address off the air. What it was before this process began nobody
// knows; such a one is left out. It is for one goroutine at a time, and for what is newer each time.
type lastGood struct {
	l2 map[manifests.Ref]addresses.L2Advertisement
}

// heed gives the L2Advertisements that count, and tells settings what is wrong with the others.
func (g *lastGood) heed(s *settings, now []resource[addresses.L2Advertisement]) (all []addresses.L2Advertisement) {
	before := g.l2
	g.l2 = make(map[manifests.Ref]addresses.L2Advertisement, len(now))
	for _, r := range now {
		ref := manifests.Ref{Kind: addresses.KindL2Advertisement, Namespace: r.meta.Namespace, Name: r.meta.Name}
		field, err := "", r.err
		if err == nil {
			field, err = r.value.Validate()
		}
		counts, known := r.value, true
		if err != nil {
			counts, known = before[ref]
			s.wrong(ref, field, err, known)
		}
		if known {
			g.l2[ref] = counts
			all = append(all, counts)
		}
	}
	return all
}
