package nft

import (
	"errors"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// mend repairs what is damaged, and reads no more of the kernel than that takes: of elements
// nothing at all, because the kernel has told which they were; of rules the rules. What it cannot
// mend, Repair does.
func (p *Plane) mend(d *damage) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.unsure && p.table == "" && len(p.entries) == 0:
		return nil // nothing is wanted yet
	case len(d.tables) == 0 && !d.unknown:
		return nil // it was taken together with what came before
	}
	if !p.unsure && d.onlyOf(p.table) {
		n, err := p.mendAll(d)
		if err == nil {
			p.mended(n)
			return nil
		}
		p.log.Info("the nftables table is read, because it could not be repaired without", zap.Error(err))
	}
	p.unsure = true
	return p.reconcile()
}

func (p *Plane) mended(changes int) {
	if changes == 0 {
		return
	}
	p.stats.Repairs++
	p.stats.Drift += uint64(changes)
	p.log.Info("nftables table repaired", zap.String("table", p.table), zap.Int("changes", changes))
}

func (p *Plane) mendAll(d *damage) (changes int, err error) {
	if d.rules {
		if changes, err = p.mendRules(); err != nil {
			return changes, err
		}
	}
	if len(d.elements) == 0 {
		return changes, nil
	}
	n, err := p.mendRanges(d)
	if err != nil {
		return changes, err
	}
	ops := p.mendElements(d)
	return changes + n + len(ops), p.writeOps(ops)
}

// errNotOurs: a table by the name of ours is another one than was left there.
var errNotOurs = errors.New("nft: the table is not as it was made")

// mendRules makes chains and rules again that are not as wanted, and deletes those of others, in
// one transaction: at every moment packets meet all rules of a chain, or those that were found.
func (p *Plane) mendRules() (changes int, err error) {
	t, err := p.readTable(p.table)
	switch {
	case err != nil:
		return 0, err
	case t == nil || !t.ours || !t.current || t.flags != 0:
		return 0, errNotOurs
	}
	want := wantedChains(p.shapes)
	b := newBatch(p.conn, p.table)
	var again, foreign []chain
	for _, c := range want {
		have, there := t.chains[c.name]
		if there && have.hooked == (c.hook != nil) && have.accepts && slices.Equal(have.rules, c.comments()) {
			delete(t.chains, c.name)
			continue
		}
		if there && have.hooked != (c.hook != nil) {
			return 0, errNotOurs
		}
		if there {
			b.flushChain(c.name)
		}
		again = append(again, c)
		delete(t.chains, c.name)
	}
	for name := range t.chains {
		b.flushChain(name)
		foreign = append(foreign, chain{name: name})
	}
	b.addChains(again)
	for _, c := range foreign {
		b.deleteChain(c.name)
	}
	return len(again) + len(foreign), p.write(b)
}

// readTable reads one table and its rules; nil if there is none of that name.
func (p *Plane) readTable(name string) (*table, error) {
	all, err := p.listTables()
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if t.name == name {
			return t, nil
		}
	}
	return nil, nil
}

// mendRanges fills sets of ranges again as a whole: in those an element is half of a range.
func (p *Plane) mendRanges(d *damage) (changes int, err error) {
	damaged := map[setID][]element{}
	for k := range d.elements {
		if sets[k.set].flags&unix.NFT_SET_INTERVAL != 0 {
			damaged[k.set] = nil
			delete(d.elements, k)
		}
	}
	if len(damaged) == 0 {
		return 0, nil
	}
	collect := func(all []element) {
		for _, e := range all {
			if list, ok := damaged[e.set]; ok {
				damaged[e.set] = append(list, e)
			}
		}
	}
	collect(p.node.elements())
	for _, e := range p.entries {
		collect(e.sources())
	}
	b := newBatch(p.conn, p.table)
	for id, all := range damaged {
		b.flushSet(sets[id])
		for _, e := range all {
			b.addElement(e)
		}
		changes += 1 + len(all)
	}
	return changes, p.write(b)
}

// mendElements gives what makes the elements that were touched what they should be. It holds
// whatever has been written since: what is there already is added once more, and what is not there
// destroyed, and neither is an error to the kernel.
func (p *Plane) mendElements(d *damage) (ops []op) {
	group := 0
	p.eachWanted(d.elements, func(e element) {
		t, ok := d.elements[e.elementKey()]
		if !ok {
			return
		}
		delete(d.elements, e.elementKey())
		group++
		switch {
		case t.lost > 0 && counted(e.set):
			p.counts[countKeyOf(e)] += t.lost
		case t.there && t.data == e.data:
			return
		}
		if t.there {
			found := e
			found.data = t.data
			ops = append(ops, op{element: found, remove: true, lenient: true, group: group})
		}
		ops = append(ops, op{element: e, group: group})
	})
	group++
	for k, t := range d.elements {
		if t.there {
			ops = append(ops, op{element: k.element(t.data), remove: true, lenient: true, group: group})
		}
	}
	return ops
}

// eachWanted gives all elements that are wanted of those that were touched, and others.
func (p *Plane) eachWanted(all map[elementKey]touched, each func(element)) {
	give := func(elements []element) {
		for _, e := range elements {
			each(e)
		}
	}
	give(staticElements())
	for s := range p.shapes {
		for _, f := range families {
			give(f.pickElements(s))
		}
	}
	for k := range all {
		if e := k.element(""); p.shared[e] > 0 {
			each(e)
		}
	}
	ids, frontends := leadingTo(all)
	for _, e := range p.entries {
		_, cluster := ids[e.id]
		_, local := ids[e.id|localBit]
		if cluster || local || e.meets(frontends) {
			give(e.elements())
		}
	}
}

// leadingTo are the ids and the keys of frontends that elements belong to.
func leadingTo(all map[elementKey]touched) (ids map[uint32]struct{}, frontends map[string]struct{}) {
	ids, frontends = map[uint32]struct{}{}, map[string]struct{}{}
	for k := range all {
		switch k.set % ipv6 {
		case services, nodePorts, backends, nodePortBackends:
			frontends[k.key] = struct{}{}
		case shapes, endpoints, slots, members:
			ids[native.Uint32([]byte(k.key))] = struct{}{}
		}
	}
	return ids, frontends
}

// meets tells whether the Service has a frontend with one of these keys.
func (e *entry) meets(keys map[string]struct{}) bool {
	if len(keys) == 0 {
		return false
	}
	for _, f := range e.service.Frontends {
		if _, ok := keys[string(frontendKey(f.Addr, e.service.Protocol, f.Port))]; ok {
			return true
		}
	}
	return false
}
