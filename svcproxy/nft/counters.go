package nft

import (
	"encoding/binary"
	"maps"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Count is how many new connections a Frontend has seen, by what was done with them. First packets
// that are repeated count again.
type Count struct {
	Protocol uint8
	IPv6     bool
	// Addr is not valid for a NodePort.
	Addr netip.Addr
	Port uint16
	Kind Kind
	// Connections since the first Plane; those before a table was made anew by another process are lost.
	Connections uint64
}

// Counters counts what came to each Frontend. It reads the kernel: its cost is that of the number of
// Services.
func (p *Plane) Counters() ([]Count, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := maps.Clone(p.counts)
	if p.table != "" {
		if err := p.eachCount(p.table, func(k countKey, n uint64) { sum[k] += n }); err != nil {
			return nil, err
		}
	}
	all := make([]Count, 0, len(sum))
	for k, n := range sum {
		c := Count{Protocol: k.protocol, IPv6: k.ipv6, Addr: k.addr, Port: k.port, Kind: k.kind, Connections: n}
		all = append(all, c)
	}
	return all, nil
}

// countKey is a frontend, and what was done with those who came.
type countKey struct {
	protocol uint8
	ipv6     bool
	addr     netip.Addr
	port     uint16
	kind     Kind
}

// counts are what elements had seen that are not there any more.
type counts map[countKey]uint64

func countKeyOf(e element) countKey {
	k := countKey{ipv6: e.set >= ipv6, kind: Kind(parseNumberData(e.data)>>kindShift) &^ restricted}
	rest := []byte(e.key)
	if len(rest) > 8 {
		k.addr, _ = netip.AddrFromSlice(rest[:len(rest)-8])
		rest = rest[len(rest)-8:]
	}
	k.protocol, k.port = rest[0], binary.BigEndian.Uint16(rest[4:])
	return k
}

// counted are the sets whose elements are frontends.
func counted(id setID) bool { return sets[id].counted && sets[id].mirrored }

func (p *Plane) eachCount(table string, each func(countKey, uint64)) error {
	for id := range p.conn.layout.sets() {
		if !counted(setID(id)) {
			continue
		}
		err := p.eachKernelElement(table, setID(id), func(e element, c Counters) {
			if !e.catchAll() {
				each(countKeyOf(e), c.Connections)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keepCounts reads the counters of elements that are about to be replaced by others of the same
// frontend, one by one. Those of frontends that go are forgotten: so that Services that come and go
// cost no memory.
func (p *Plane) keepCounts(ops []op) {
	replaced := map[elementKey]struct{}{}
	for _, o := range ops {
		if !o.remove && counted(o.set) {
			replaced[o.elementKey()] = struct{}{}
		}
	}
	for _, o := range ops {
		if !o.remove || !counted(o.set) || o.catchAll() {
			continue
		}
		if _, ok := replaced[o.elementKey()]; ok {
			p.keepCount(o.element)
			continue
		}
		k := countKeyOf(o.element)
		for k.kind = ClusterIP; k.kind <= Drop; k.kind++ {
			delete(p.counts, k)
		}
	}
}

// keepCount asks for one element. A counter that cannot be read begins anew.
func (p *Plane) keepCount(e element) {
	_ = p.ask(p.table, e, func(found element, c Counters) { p.counts[countKeyOf(found)] += c.Connections })
}

// ask asks the kernel for one element by its key.
func (p *Plane) ask(table string, e element, each func(element, Counters)) error {
	b := &batch{conn: p.conn}
	b.beginNFT(unix.NFT_MSG_GETSETELEM, unix.NLM_F_ACK)
	seq := b.conn.seq
	b.buf = appendAttrName(b.buf, unix.NFTA_SET_ELEM_LIST_TABLE, table)
	b.buf = appendAttrName(b.buf, unix.NFTA_SET_ELEM_LIST_SET, sets[e.set].name)
	var at int
	b.buf, at = beginNest(b.buf, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	e.data = ""
	b.buf = e.appendTo(b.buf)
	endNest(b.buf, at)
	b.end()
	return p.conn.ask(b.buf, seq, func(m message) { eachElementOf(e.set, m, each) })
}

// countsOf reads all counters of those tables of ours that are about to be removed. Those that cannot be
// read begin anew.
func (p *Plane) countsOf(tables []*table) counts {
	all := counts{}
	for _, t := range tables {
		if t.ours {
			_ = p.eachCount(t.name, func(k countKey, n uint64) { all[k] += n })
		}
	}
	return all
}

// add keeps them.
func (c counts) add(others counts) {
	for k, n := range others {
		c[k] += n
	}
}

// eachElementOf walks the elements in one message.
func eachElementOf(id setID, m message, each func(element, Counters)) {
	for typ, v := range attrs(m.body[genHead:]) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for typ, v := range attrs(v) {
			if typ != unix.NFTA_LIST_ELEM {
				continue
			}
			if e, c, ok := parseElement(id, v); ok {
				each(e, c)
			}
		}
	}
}
