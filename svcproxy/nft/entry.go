package nft

import (
	"cmp"
	"net/netip"
	"slices"
)

// entry is what is known of one Service: what is wanted, and where in the kernel it is.
type entry struct {
	service *Service
	// id stands for Cluster, id+1 for Local; 0: it has none yet.
	id uint32
	// cluster and local are the endpoints by their place.
	cluster, local []netip.AddrPort
}

func (e *entry) family() *family {
	if e.service.IPv6 {
		return families[1]
	}
	return families[0]
}

// place gives each endpoint its place among len(want): those that have one of the first keep it,
// the others fill what is free, in order. So that a change of one endpoint is a change of one element.
func place(old, want []netip.AddrPort) []netip.AddrPort {
	missing := make(map[netip.AddrPort]struct{}, len(want))
	for _, w := range want {
		missing[w] = struct{}{}
	}
	placed := make([]netip.AddrPort, len(missing))
	for i, o := range old {
		if _, wanted := missing[o]; wanted && i < len(placed) {
			placed[i] = o
			delete(missing, o)
		}
	}
	free := 0
	for _, w := range want {
		if _, ok := missing[w]; !ok {
			continue
		}
		delete(missing, w)
		for placed[free].IsValid() {
			free++
		}
		placed[free] = w
	}
	return placed
}

// elements are all of this Service's own, without those that it shares with others.
func (e *entry) elements() []element {
	s := e.service
	all := make([]element, 0, 2*len(s.Frontends)+2*(len(e.cluster)+len(e.local)))
	for _, f := range s.Frontends {
		all = append(all, e.frontendElements(f)...)
	}
	all = e.appendEndpoints(all, e.id, e.cluster)
	all = e.appendEndpoints(all, e.id+1, e.local)
	if slices.ContainsFunc(s.Frontends, func(f Frontend) bool { return f.Restricted }) {
		for _, r := range mergeRanges(s.Sources, s.IPv6) {
			all = append(all, element{
				set: e.family().sets + sources,
				key: string(appendAddr(appendNumber(nil, e.id), r.first)),
				end: string(appendAddr(appendNumber(nil, e.id), r.last)),
			})
		}
	}
	return all
}

// frontendElements are the one that decides and counts, and the one that translates.
func (e *entry) frontendElements(f Frontend) []element {
	first := e.family().sets
	decide, translate := first+services, first+backends
	if !f.Addr.IsValid() {
		decide, translate = first+nodePorts, first+nodePortBackends
	}
	decision := uint32(f.Kind)
	if f.Restricted {
		decision += restricted
	}
	key := string(frontendKey(f.Addr, e.service.Protocol, f.Port))
	return []element{
		{set: decide, key: key, data: string(appendNumber(nil, decision))},
		{set: translate, key: key, data: string(e.backend(f.Kind))},
	}
}

// frontendKey is the key of a frontend; without an address it is that of a NodePort.
func frontendKey(addr netip.Addr, protocol uint8, port uint16) []byte {
	key := make([]byte, 0, 24)
	if addr.IsValid() {
		key = appendAddr(key, addr)
	}
	return appendPort(appendProtocol(key, protocol), port)
}

// backend are the five words that a frontend leads to.
func (e *entry) backend(k Kind) []byte {
	b := appendNumber(make([]byte, 0, 20), uint32(k))
	b = appendNumber(b, e.id)
	b = appendNumber(b, uint32(newShape(len(e.cluster), e.service.Affinity)))
	b = appendNumber(b, e.id+1)
	return appendNumber(b, uint32(newShape(len(e.local), e.service.Affinity)))
}

func (e *entry) appendEndpoints(all []element, id uint32, placed []netip.AddrPort) []element {
	first := e.family().sets
	for i, p := range placed {
		to := addrPort(p)
		all = append(all, element{set: first + endpoints, key: string(appendNumber(appendNumber(nil, id), uint32(i))), data: to})
		if e.service.Affinity > 0 {
			all = append(all, element{set: first + members, key: string(appendNumber(nil, id)) + to})
		}
	}
	return all
}

// hairpins are elements that several Services may want.
func (e *entry) hairpins() []element {
	all := make([]element, 0, len(e.service.OnNode))
	for _, a := range e.service.OnNode {
		all = append(all, element{set: e.family().sets + hairpins, key: string(appendAddr(appendAddr(nil, a), a))})
	}
	return all
}

// shapes are those that the Service's frontends lead to.
func (e *entry) shapes() [2]shape {
	return [2]shape{newShape(len(e.cluster), e.service.Affinity), newShape(len(e.local), e.service.Affinity)}
}

// addrRange is all addresses from first to last.
type addrRange struct{ first, last netip.Addr }

// mergeRanges are the ranges of one family, in order, without overlap: the kernel takes no others.
func mergeRanges(prefixes []netip.Prefix, ipv6 bool) []addrRange {
	var all []addrRange
	for _, p := range prefixes {
		if p.IsValid() && p.Addr().Is6() == ipv6 {
			p = p.Masked()
			all = append(all, addrRange{p.Addr(), lastAddr(p)})
		}
	}
	slices.SortFunc(all, func(a, b addrRange) int { return cmp.Or(a.first.Compare(b.first), a.last.Compare(b.last)) })
	merged := all[:0]
	for _, r := range all {
		if n := len(merged); n > 0 && (r.first.Compare(merged[n-1].last) <= 0 || merged[n-1].last.Next() == r.first) {
			if merged[n-1].last.Less(r.last) {
				merged[n-1].last = r.last
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// elements are those of what all Services share.
func (n *Node) elements() []element {
	var all []element
	for _, f := range families {
		v6 := f.words == 4
		for id, prefixes := range map[setID][]netip.Prefix{
			nodePortCIDRs: n.NodePorts, podCIDRs: n.Pods, unmasqueraded: n.Unmasqueraded,
			dropInvalid: n.DropInvalid, serviceCIDRs: n.ServiceCIDRs,
		} {
			for _, r := range mergeRanges(prefixes, v6) {
				all = append(all, intervalElements(f.sets+id, r)...)
			}
		}
		for _, a := range n.ClusterIPs {
			if a.Is6() == v6 {
				all = append(all, element{set: f.sets + clusterIPs, key: string(appendAddr(nil, a))})
			}
		}
	}
	return all
}

// intervalElements are where a range begins, and where it is over; the last address of all has
// nothing after it.
func intervalElements(id setID, r addrRange) []element {
	all := []element{{set: id, key: string(appendAddr(nil, r.first))}}
	if after := r.last.Next(); after.IsValid() {
		all = append(all, element{set: id, key: string(appendAddr(nil, after)), intervalEnd: true})
	}
	return all
}
