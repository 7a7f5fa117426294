package balancer

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
	"github.com/portico-ingress/portico/svcproxy/announce"
)

// settings are everything that is watched besides Services and their endpoints.
type settings struct {
	// self is the name of this node.
	self       string
	nodes      []*corev1.Node
	pools      []addresses.IPAddressPool
	l2         []addresses.L2Advertisement
	configMaps []*corev1.ConfigMap
	// unreadable are pools of which the metadata alone is known.
	unreadable []metav1.ObjectMeta
	// problems are those of resources that could not be read.
	problems []manifests.Problem
	uids     map[manifests.Ref]types.UID
}

// within leaves out the resources of namespaces that do not count, and says so on each.
func within[T any](s *settings, kind string, namespaces []string, all []resource[T]) []resource[T] {
	return slices.DeleteFunc(all, func(r resource[T]) bool {
		ref := manifests.Ref{Kind: kind, Namespace: r.meta.Namespace, Name: r.meta.Name}
		s.uid(ref, r.meta.UID)
		if slices.Contains(namespaces, ref.Namespace) {
			return false
		}
		s.problems = append(s.problems, manifests.Problem{
			Object: ref, Field: "metadata.namespace", Text: fmt.Sprintf("%s is not a namespace whose %ss count: those are %s; move it there, or start svcproxy with --lb-pool-namespace",
				ref.Namespace, kind, strings.Join(namespaces, " and ")),
		})
		return true
	})
}

func (s *settings) setPools(all []resource[addresses.IPAddressPool]) {
	for _, r := range all {
		if r.err != nil {
			s.unreadable = append(s.unreadable, r.meta)
			s.problems = append(s.problems, manifests.Problem{
				Object: manifests.Ref{Kind: addresses.KindPool, Namespace: r.meta.Namespace, Name: r.meta.Name}, Text: fmt.Sprintf("cannot be read: %v; no address of this pool is given out until that is corrected", r.err),
			})
			continue
		}
		s.pools = append(s.pools, r.value)
	}
}

// wrong notes what is wrong with an L2Advertisement, and whether it counts as it was before.
func (s *settings) wrong(ref manifests.Ref, field string, err error, before bool) {
	what := "it is left out until that is corrected"
	if before {
		what = "it counts as it was before, until that is corrected"
	}
	s.problems = append(s.problems, manifests.Problem{Object: ref, Field: field, Text: fmt.Sprintf("%v; %s", err, what)})
}

func (s *settings) uid(ref manifests.Ref, uid types.UID) {
	if s.uids == nil {
		s.uids = map[manifests.Ref]types.UID{}
	}
	s.uids[ref] = uid
}

// pooled are the pools ready to be given out, and all that is wrong with them.
type pooled struct {
	pools    []*addresses.Pool
	problems []manifests.Problem
	// resources has the labels of the IPAddressPools, right or wrong, by name: those that an L2Advertisement has to be about.
	resources map[string]map[string]string
	// others are the names of pools that need none. unread says that these are not all, because a ConfigMap cannot be read.
	others map[string]bool
	unread bool
}

// pooled reads the pools wherever they are written.
func (s *settings) pooled(flags []string) pooled {
	p := pooled{resources: map[string]map[string]string{}, others: map[string]bool{addresses.FlagPool: true}}
	all := slices.Clone(s.pools)
	for _, cm := range s.configMaps {
		s.uid(manifests.Ref{Kind: manifests.KindConfigMap, Namespace: cm.Namespace, Name: cm.Name}, cm.UID)
		more, problems := addresses.PoolsOf(cm)
		for i := range more {
			p.others[more[i].Name] = true
		}
		all = append(all, more...)
		p.problems = append(p.problems, problems...)
		p.unread = p.unread || len(problems) > 0
	}
	pools, problems := addresses.NewPools(all, flags)
	p.pools, p.problems = pools, append(p.problems, problems...)
	p.label(s, flags)
	return p
}

// label notes what is known of IPAddressPools that are not somebody else's by name.
func (p *pooled) label(s *settings, flags []string) {
	for i := range s.unreadable {
		p.resources[s.unreadable[i].Name] = s.unreadable[i].Labels
	}
	youngestFirst := slices.Clone(s.pools) // of two of one name the older one counts
	slices.SortFunc(youngestFirst, func(a, b addresses.IPAddressPool) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(b.Namespace, a.Namespace))
	})
	for i := range youngestFirst {
		p.resources[youngestFirst[i].Name] = youngestFirst[i].Labels
	}
	for name := range p.others {
		if name != addresses.FlagPool || len(flags) > 0 {
			delete(p.resources, name)
		}
	}
}

// advertised says from where the addresses of a pool are announced. What counts is what its IPAddressPool is called and
// labelled, also while it cannot be given out from, because something else about it is wrong. A pool that is gone, whose
// addresses are kept, is treated by its name.
func (s *settings) advertised(p *pooled, name string) addresses.Advertised {
	labels := map[string]map[string]string{}
	for _, n := range s.nodes {
		labels[n.Name] = n.Labels
	}
	set, needed := p.resources[name]
	if !needed && !p.others[name] && !p.unread {
		needed = len(s.l2) > 0
	}
	return addresses.Advertisements(&addresses.Pool{Name: name, Labels: set}, s.l2, labels, s.self, needed)
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
	nodes := s.byAddress()
	for _, key := range slices.Sorted(maps.Keys(claims)) {
		c := claims[key]
		from, known := advertised[c.pool]
		if !known {
			from = s.advertised(p, c.pool)
			advertised[c.pool] = from
		}
		if !from.By {
			problems = append(problems, unannounced(c))
			continue
		}
		for _, addr := range c.addresses {
			if node, own := nodes[addr]; own {
				problems = append(problems, ofNode(c, addr, node))
				continue
			}
			one := announce.Claim{Key: c.addresses[0], Local: c.local, Serving: c.servingFor(addr), Nodes: from.Nodes, Interfaces: from.Interfaces}
			if other, shared := d.Claims[addr]; shared {
				one = merge(other, one)
			}
			d.Claims[addr] = one
			by[addr] = append(by[addr], c.object)
		}
	}
	return d, by, problems
}

// byAddress has the names of the nodes by all of their addresses.
func (s *settings) byAddress() map[netip.Addr]string {
	all := map[netip.Addr]string{}
	for _, n := range s.nodes {
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				all[addr.Unmap()] = n.Name
			}
		}
	}
	return all
}

// ofNode: whoever announced it would take it from the node.
func ofNode(c serviceClaim, addr netip.Addr, node string) manifests.Problem {
	return manifests.Problem{
		Object: manifests.Ref{Kind: manifests.KindService, Namespace: c.object.Namespace, Name: c.object.Name},
		Field:  "status.loadBalancer.ingress",
		Text:   fmt.Sprintf("%s is an address of node %s, so no node announces it; take it out of pool %s, and ask for another one", addr, node, c.pool),
	}
}

func unannounced(c serviceClaim) manifests.Problem {
	return manifests.Problem{
		Object: manifests.Ref{Kind: manifests.KindService, Namespace: c.object.Namespace, Name: c.object.Name},
		Field:  "status.loadBalancer.ingress",
		Text:   "no L2Advertisement is about pool " + c.pool + ", so no node announces the address; make one, for all pools with spec: {}",
	}
}

// unique leaves out what is said twice.
func unique(problems []manifests.Problem) []manifests.Problem {
	seen := map[manifests.Problem]bool{}
	return slices.DeleteFunc(problems, func(p manifests.Problem) bool {
		was := seen[p]
		seen[p] = true
		return was
	})
}
