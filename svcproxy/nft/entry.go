package nft

import (
	"cmp"
	"net/netip"
	"slices"
)

// entry is what is known of one Service: what is wanted, and where in the kernel it is.
type entry struct {
	// service has its endpoints by their place.
	service *Service
	// id stands for Cluster, id+1 for Local; 0: it has none yet.
	id uint32
	// numbers name the endpoints for the clients that stay with one; only with affinity.
	numbers map[netip.AddrPort]uint32
}

// newEntry puts s in the place of old, which may be nil.
func newEntry(s *Service, old *entry) *entry {
	e, was := &entry{service: s}, &entry{service: &Service{}}
	if old != nil {
		was = old
	}
	e.id = was.id
	e.settle(was.service.Cluster, was.service.Local, was.numbers)
	return e
}

// settle gives endpoints the places and numbers that they had. The Service that was given is not
// kept beside it: the addresses are most of what this package remembers.
func (e *entry) settle(cluster, local []netip.AddrPort, numbers map[netip.AddrPort]uint32) {
	s := *e.service
	s.Cluster, s.Local = place(cluster, s.Cluster), place(local, s.Local)
	e.service = &s
	e.number(numbers)
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

// number gives each endpoint a number, the one that it had in old if it was there.
func (e *entry) number(old map[netip.AddrPort]uint32) {
	if e.service.Affinity == 0 {
		return
	}
	var last uint32
	for _, n := range old {
		last = max(last, n)
	}
	e.numbers = make(map[netip.AddrPort]uint32, len(e.service.Cluster))
	for _, a := range slices.Concat(e.service.Cluster, e.service.Local) {
		if _, ok := e.numbers[a]; ok {
			continue
		}
		if n, ok := old[a]; ok {
			e.numbers[a] = n
			continue
		}
		last++
		e.numbers[a] = last
	}
}

// elements are all of this Service's own, without those that it shares with others.
func (e *entry) elements() []element {
	s := e.service
	all := make([]element, 0, 2*len(s.Frontends)+2+2*(len(e.service.Cluster)+len(e.service.Local)))
	for _, f := range s.Frontends {
		all = append(all, e.frontendElements(f)...)
	}
	all = e.appendEndpoints(all, e.id, e.service.Cluster)
	all = e.appendEndpoints(all, e.id|localBit, e.service.Local)
	return append(all, e.sources()...)
}

// sources are who may come in.
func (e *entry) sources() (all []element) {
	s := e.service
	if !slices.ContainsFunc(s.Frontends, func(f Frontend) bool { return f.Restricted }) {
		return nil
	}
	for _, r := range mergeRanges(s.Sources, s.IPv6) {
		all = append(all, element{
			set: e.family().sets + sources,
			key: string(append(appendNumber(nil, e.id), r.first.AsSlice()...)),
			end: string(append(appendNumber(nil, e.id), r.last.AsSlice()...)),
		})
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
	key := string(frontendKey(f.Addr, e.service.Protocol, f.Port))
	return []element{
		{set: decide, key: key, data: numberData(word(f.Kind, f.Restricted, 0))},
		{set: translate, key: key, data: numberData(word(f.Kind, false, e.id))},
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

func (e *entry) appendEndpoints(all []element, id uint32, placed []netip.AddrPort) []element {
	first := e.family().sets
	if len(placed) > 0 {
		all = append(all, element{set: first + shapes, key: string(appendNumber(nil, id)), data: numberData(uint32(newShape(len(placed), e.service.Affinity)))})
	}
	for i, p := range placed {
		slot, to := numbersKey(id, uint32(i)), addrPort(p)
		if e.numbers == nil {
			all = append(all, element{set: first + endpoints, key: slot, data: to})
			continue
		}
		n := e.numbers[p]
		all = append(all,
			element{set: first + slots, key: slot, data: numberData(n)},
			element{set: first + members, key: numbersKey(id, n), data: to})
	}
	return all
}

func numbersKey(a, b uint32) string { return string(appendNumber(appendNumber(nil, a), b)) }

// shared are elements that several Services may want.
func (e *entry) shared() []element {
	first := e.family().sets
	all := make([]element, 0, len(e.service.OnNode)+len(e.service.ClusterIPs)+len(e.service.Elsewhere))
	for _, a := range e.service.OnNode {
		all = append(all, element{set: first + hairpins, key: string(appendAddr(appendAddr(nil, a), a))})
	}
	for _, a := range e.service.ClusterIPs {
		all = append(all, element{set: first + clusterIPs, key: string(appendAddr(nil, a))})
	}
	for _, a := range e.service.Elsewhere {
		all = append(all, element{set: first + elsewhere, key: string(appendAddr(nil, a))})
	}
	return all
}

// shapes are those that the Service's frontends lead to.
func (e *entry) shapes() [2]shape {
	return [2]shape{newShape(len(e.service.Cluster), e.service.Affinity), newShape(len(e.service.Local), e.service.Affinity)}
}

// addrRange is all addresses from first to last. Those of IPv6 may begin or end among the IPv4-mapped ones, as ::/80 does: they
// are 16 bytes all the same.
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
func (n *Node) elements(of *layout) []element {
	var all []element
	for _, f := range of.families {
		v6 := f.words == 4
		for id, prefixes := range map[setID][]netip.Prefix{
			nodePortCIDRs: n.NodePorts, podCIDRs: n.Pods, unmasqueraded: n.Unmasqueraded,
			dropInvalid: n.DropInvalid, serviceCIDRs: n.ServiceCIDRs,
		} {
			for _, r := range mergeRanges(prefixes, v6) {
				all = append(all, intervalElements(f.sets+id, r)...)
			}
		}
	}
	return all
}

// intervalElements are where a range begins, and where it is over; the last address of all has
// nothing after it.
func intervalElements(id setID, r addrRange) []element {
	all := []element{{set: id, key: string(r.first.AsSlice())}}
	if after := r.last.Next(); after.IsValid() {
		all = append(all, element{set: id, key: string(after.AsSlice()), intervalEnd: true})
	}
	return all
}
