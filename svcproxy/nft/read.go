package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Live is a frontend as the kernel has it: what packets meet, whatever was wanted.
type Live struct {
	Protocol uint8
	IPv6     bool
	Frontend Frontend
	// Cluster and Local are the endpoints of the two traffic policies, by their place.
	Cluster, Local []netip.AddrPort
	Affinity       time.Duration
	// Broken says what is not as packets need it, or is "".
	Broken string
}

// Read gives all frontends that the kernel has, by address, port and protocol. It reads all
// elements: at 100,000 of them that takes about a second.
func (p *Plane) Read() ([]Live, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table == "" {
		return nil, nil
	}
	have, err := p.readElements(p.table)
	if err != nil {
		return nil, err
	}
	var all []Live
	for k, data := range have {
		if counted(k.set) && k.key != "" {
			all = append(all, readLive(have, element{set: k.set, key: k.key, data: data}))
		}
	}
	slices.SortFunc(all, func(a, b Live) int {
		return cmp.Or(a.Frontend.Addr.Compare(b.Frontend.Addr), cmp.Compare(a.Frontend.Port, b.Frontend.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all, nil
}

func readLive(have map[elementKey]string, e element) Live {
	k := countKeyOf(e)
	live := Live{Protocol: k.protocol, IPv6: k.ipv6, Frontend: Frontend{
		Addr: k.addr, Port: k.port, Kind: k.kind, Restricted: parseNumberData(e.data)>>kindShift&restricted != 0,
	}}
	translate := backends
	if !k.addr.IsValid() {
		translate = nodePortBackends
	}
	first := setID(0)
	if k.ipv6 {
		first = ipv6
	}
	to, ok := have[elementKey{set: first + translate, key: e.key}]
	if !ok {
		live.Broken = "nothing translates it"
		return live
	}
	if got := Kind(parseNumberData(to) >> kindShift); got != k.kind {
		live.Broken = "it is decided as " + k.kind.String() + " and translated as " + got.String()
	}
	id := parseNumberData(to) & idMask
	r := reader{have: have, first: first, live: &live, missing: func(setID, string) {}}
	live.Cluster, live.Local = r.endpoints(id), r.endpoints(id|localBit)
	return live
}

// reader follows what packets follow.
type reader struct {
	have  map[elementKey]string
	first setID
	live  *Live
	// missing is told what is not there although something leads to it.
	missing func(id setID, key string)
}

func (r *reader) endpoints(id uint32) []netip.AddrPort {
	data, ok := r.have[elementKey{set: r.first + shapes, key: string(appendNumber(nil, id))}]
	if !ok {
		r.missing(shapes, strconv.FormatUint(uint64(id), 10))
		return nil
	}
	s := shape(parseNumberData(data))
	r.live.Affinity = s.affinity()
	var all []netip.AddrPort
	for i := range s.endpoints() {
		a, ok := r.endpoint(id, i, s.affinity() > 0)
		if !ok {
			r.live.Broken = "an endpoint is missing"
			continue
		}
		all = append(all, a)
	}
	return all
}

func (r *reader) endpoint(id, place uint32, numbered bool) (netip.AddrPort, bool) {
	if !numbered {
		return r.addrPort(endpoints, id, place)
	}
	number, ok := r.have[elementKey{set: r.first + slots, key: numbersKey(id, place)}]
	if !ok {
		r.missing(slots, fmt.Sprintf("%d . %d", id, place))
		return netip.AddrPort{}, false
	}
	return r.addrPort(members, id, parseNumberData(number))
}

func (r *reader) addrPort(set setID, id, n uint32) (netip.AddrPort, bool) {
	a, ok := parseAddrPort(r.have[elementKey{set: r.first + set, key: numbersKey(id, n)}])
	if !ok {
		r.missing(set, fmt.Sprintf("%d . %d", id, n))
	}
	return a, ok
}
