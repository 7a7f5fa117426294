package balancer

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
	"github.com/portico-ingress/portico/svcproxy/announce"
)

// settings are everything that is watched besides Services and their endpoints.
type settings struct {
	nodes      []*corev1.Node
	pools      []addresses.IPAddressPool
	l2         []addresses.L2Advertisement
	configMaps []*corev1.ConfigMap
}

// pooled are the pools ready to be given out, and all that is wrong with them.
type pooled struct {
	pools    []*addresses.Pool
	problems []manifests.Problem
	// needs are the pools that an L2Advertisement has to be about.
	needs map[string]bool
	uids  map[manifests.Ref]types.UID
}

// pooled reads the pools wherever they are written.
func (s *settings) pooled(flags []string) pooled {
	p := pooled{needs: map[string]bool{}, uids: map[manifests.Ref]types.UID{}}
	all := slices.Clone(s.pools)
	for i := range s.pools {
		m := &s.pools[i].ObjectMeta
		p.needs[m.Name] = true
		p.uids[manifests.Ref{Kind: addresses.KindPool, Namespace: m.Namespace, Name: m.Name}] = m.UID
	}
	for i := range s.l2 {
		m := &s.l2[i].ObjectMeta
		p.uids[manifests.Ref{Kind: addresses.KindL2Advertisement, Namespace: m.Namespace, Name: m.Name}] = m.UID
	}
	for _, cm := range s.configMaps {
		p.uids[manifests.Ref{Kind: manifests.KindConfigMap, Namespace: cm.Namespace, Name: cm.Name}] = cm.UID
		more, problems := addresses.PoolsOf(cm)
		all = append(all, more...)
		p.problems = append(p.problems, problems...)
	}
	pools, problems := addresses.NewPools(all, flags)
	p.pools, p.problems = pools, append(p.problems, problems...)
	return p
}

// advertised says from where the addresses of a pool are announced. A pool that is gone, whose
// addresses are kept, is treated by its name.
func (s *settings) advertised(p *pooled, name string) (addresses.Advertised, []manifests.Problem) {
	at := slices.IndexFunc(p.pools, func(o *addresses.Pool) bool { return o.Name == name })
	labels := map[string]map[string]string{}
	for _, n := range s.nodes {
		labels[n.Name] = n.Labels
	}
	if at < 0 {
		return addresses.Advertisements(&addresses.Pool{Name: name}, s.l2, labels, len(s.l2) > 0)
	}
	return addresses.Advertisements(p.pools[at], s.l2, labels, p.needs[name])
}

// desired is what the nodes are to announce, for which Services each address is, and what
// keeps addresses from being announced.
func (s *settings) desired(p *pooled, claims map[string]serviceClaim) (announce.Desired, map[netip.Addr][]corev1.ObjectReference, []manifests.Problem) {
	d := announce.Desired{Claims: map[netip.Addr]announce.Claim{}, Addresses: map[string]netip.Addr{}, NextHops: map[string][]netip.Addr{}}
	for _, n := range s.nodes {
		if all := addressesOf(n); len(all) > 0 {
			d.Nodes = append(d.Nodes, nodeOf(n))
			d.Addresses[n.Name], d.NextHops[n.Name] = all[0], all
		}
	}
	by := map[netip.Addr][]corev1.ObjectReference{}
	var problems []manifests.Problem
	advertised := map[string]addresses.Advertised{}
	for _, key := range slices.Sorted(maps.Keys(claims)) {
		c := claims[key]
		from, known := advertised[c.pool]
		if !known {
			var wrong []manifests.Problem
			from, wrong = s.advertised(p, c.pool)
			advertised[c.pool] = from
			problems = append(problems, wrong...)
		}
		if !from.By {
			problems = append(problems, unannounced(c))
			continue
		}
		for _, addr := range c.addresses {
			one := announce.Claim{Key: c.addresses[0], Local: c.local, Serving: c.servingFor(addr), Nodes: from.Nodes, Interfaces: from.Interfaces}
			if other, shared := d.Claims[addr]; shared {
				one = merge(other, one)
			}
			d.Claims[addr] = one
			by[addr] = append(by[addr], c.object)
		}
	}
	return d, by, unique(problems)
}

func unannounced(c serviceClaim) manifests.Problem {
	return manifests.Problem{
		Object: manifests.Ref{Kind: manifests.KindService, Namespace: c.object.Namespace, Name: c.object.Name},
		Field:  "status.loadBalancer.ingress",
		Text:   "no L2Advertisement is about pool " + c.pool + ", so no node announces the address; make one, for all pools with spec: {}",
	}
}

// unique leaves out what is said twice: an L2Advertisement is read once for each pool.
func unique(problems []manifests.Problem) []manifests.Problem {
	seen := map[manifests.Problem]bool{}
	return slices.DeleteFunc(problems, func(p manifests.Problem) bool {
		was := seen[p]
		seen[p] = true
		return was
	})
}
