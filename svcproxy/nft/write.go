package nft

import (
	"cmp"
	"slices"
)

// maxTransaction is about how many elements one transaction has at most. A longer one would hold
// the lock of all nftables users for too long.
const maxTransaction = 20_000

// firstTransaction is how many the first one of several has, each of the next twice as many: of a
// great damage something is put right at once.
const firstTransaction = 2_500

// writeOps makes a difference live. After an error the kernel has to be read again.
func (p *Plane) writeOps(ops []op) error {
	shapes := p.neededShapes(ops)
	for size := firstSize(len(ops)); len(ops) > 0 || len(shapes) > 0; size = min(2*size, maxTransaction) {
		n := chunk(ops, size)
		b := newBatch(p.conn, p.table)
		for _, s := range shapes {
			b.addShape(s)
		}
		p.keepCounts(ops[:n])
		b.addOps(ops[:n])
		if err := p.write(b); err != nil {
			return err
		}
		for _, s := range shapes {
			p.shapes[s] = struct{}{}
		}
		p.stats.Elements += uint64(n)
		ops, shapes = ops[n:], nil
	}
	return nil
}

// neededShapes are those that a difference leads to and that have no chain yet.
func (p *Plane) neededShapes(ops []op) []shape {
	missing := map[shape]struct{}{}
	for _, o := range ops {
		if o.remove || o.set%ipv6 != shapes {
			continue
		}
		s := shape(parseNumberData(o.data))
		if _, ok := p.shapes[s]; !ok {
			missing[s] = struct{}{}
		}
	}
	all := make([]shape, 0, len(missing))
	for s := range missing {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// firstSize is how many of n elements the first transaction has: all, if they fit.
func firstSize(n int) int {
	if n <= maxTransaction/2 {
		return maxTransaction
	}
	return firstTransaction
}

// chunk is how many of ops, whole groups, go into one transaction.
func chunk(ops []op, size int) int {
	if len(ops) <= size {
		return len(ops)
	}
	n := size
	for n < len(ops) && ops[n].group == ops[n-1].group {
		n++
	}
	return n
}

// addOps puts removals first, so that what replaces an element finds its place free.
func (b *batch) addOps(ops []op) {
	bySet := func(a, b op) int {
		if a.remove != b.remove {
			if a.remove {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.set, b.set)
	}
	if !slices.IsSortedFunc(ops, bySet) {
		slices.SortStableFunc(ops, bySet)
	}
	for _, o := range ops {
		if o.remove {
			b.deleteElement(o.element)
		} else {
			b.addElement(o.element)
		}
	}
}

func (b *batch) addChains(all []chain) {
	for _, c := range all {
		b.addChain(c)
	}
	for _, c := range all {
		for _, r := range c.rules {
			b.addRule(c.name, r)
		}
	}
}

func (b *batch) addShapeChains(s shape) {
	b.addChains(b.conn.layout.pickChains(s))
}

func (b *batch) addShape(s shape) {
	b.addShapeChains(s)
	for _, e := range b.conn.layout.pickElements(s) {
		b.addElement(e)
	}
}

// write sends a transaction. An error says that the kernel has to be read before the next one.
func (p *Plane) write(b *batch) error {
	if b.empty() {
		return nil
	}
	p.stats.Writes++
	err := p.conn.transact(b.finish())
	if err != nil {
		p.stats.Failures++
		p.unsure = true
	}
	return err
}
