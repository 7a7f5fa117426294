package nft

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"go.uber.org/zap"
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
	n, err := p.mendRanges(d.ranges)
	if err != nil {
		return changes + n, err
	}
	m, err := p.mendElements(d.elements)
	return changes + n + m, err
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
	want := p.conn.layout.wantedChains(p.shapes)
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
func (p *Plane) mendRanges(which map[setID]struct{}) (changes int, err error) {
	if len(which) == 0 {
		return 0, nil
	}
	b := newBatch(p.conn, p.table)
	for id := range which {
		b.flushSet(sets[id])
		changes++
	}
	fill := func(all []element) {
		for _, e := range all {
			if _, ok := which[e.set]; ok {
				b.addElement(e)
				changes++
			}
		}
	}
	fill(p.node.elements(p.conn.layout))
	for _, e := range p.entries {
		fill(e.sources())
	}
	return changes, p.write(b)
}

// mendElements makes the elements that were touched what they should be: small sets first, because
// a packet needs one of each. It holds whatever has been written since: what is there already is
// added once more, and what is not there destroyed, and neither is an error to the kernel.
func (p *Plane) mendElements(damaged map[setID]map[string]touched) (changes int, err error) {
	total := 0
	for _, keys := range damaged {
		total += len(keys)
	}
	order := slices.SortedFunc(maps.Keys(damaged), func(a, b setID) int {
		return cmp.Or(cmp.Compare(len(damaged[a]), len(damaged[b])), cmp.Compare(a, b))
	})
	w := p.wanted(damaged)
	b, n, size := newBatch(p.conn, p.table), 0, firstSize(total)
	for _, id := range order {
		for key, t := range damaged[id] {
			made := p.mendElement(b, w, element{set: id, key: key}, t)
			changes, n = changes+made, n+made
			if n < size {
				continue
			}
			if err := p.write(b); err != nil {
				return changes, err
			}
			p.stats.Elements += uint64(n)
			b, n, size = newBatch(p.conn, p.table), 0, min(2*size, maxTransaction)
		}
	}
	p.stats.Elements += uint64(n)
	return changes, p.write(b)
}

// mendElement writes what it takes for one element that was touched.
func (p *Plane) mendElement(b *batch, w *wanted, e element, t touched) (changes int) {
	data, ok := w.data(e.set, e.key)
	found := e
	e.data, found.data = data, t.data
	counts := counted(e.set) && !e.catchAll()
	switch {
	case ok && counts && t.lost > 0:
		p.counts[countKeyOf(e)] += t.lost
	case ok && t.there && t.data == data:
		return 0
	}
	if t.there {
		if counts {
			p.keepCounts(replacement(found, e, ok))
		}
		b.destroyElement(found)
		changes++
	}
	if ok {
		b.addElement(e)
		changes++
	}
	return changes
}

// replacement takes out what was found, and puts in its place what is wanted, if anything is.
func replacement(found, want element, wanted bool) []op {
	ops := []op{{element: found, remove: true}}
	if wanted {
		ops = append(ops, op{element: want})
	}
	return ops
}
