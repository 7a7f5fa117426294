package nft

import (
	"cmp"
	"maps"
	"slices"

	"go.uber.org/zap"
)

// maxSpareShapes is about how many shapes stay that no Service has any more: a Service that is scaled
// down and up finds its own again. But the more chains there are, the longer it takes the kernel to add one,
// so that whoever changes an affinity again and again must not leave all of them behind.
const maxSpareShapes = 32

// maxRemovedShapes is how many go at once: an earlier version may have left thousands.
const maxRemovedShapes = 256

// removeSpareShapes removes the chains of shapes that no Service has, if there are too many. It is called
// before a change is noted, and removes what it has found before the change before: so no packet
// is on its way there.
//
// It is one transaction, and not one for the verdicts and one for the chains: a packet walks the rules
// that were there when it came, and the kernel remembers those of one transaction before, not of two.
func (p *Plane) removeSpareShapes() {
	switch {
	case p.unsure:
		p.spare = nil
	case len(p.spare) > 0:
		p.removeFoundShapes()
	case len(p.shapes) > p.usedShapes+maxSpareShapes:
		spare := p.spareShapes()
		p.usedShapes = len(p.shapes) - len(spare)
		if len(spare) > maxSpareShapes {
			p.spare = slices.Sorted(maps.Keys(spare))
		}
	}
}

func (p *Plane) removeFoundShapes() {
	still := p.spareShapes()
	p.spare = slices.DeleteFunc(p.spare, func(s shape) bool { _, ok := still[s]; return !ok })
	gone := p.spare[:min(len(p.spare), maxRemovedShapes)]
	b := newBatch(p.conn, p.table)
	b.removeShapes(gone)
	if err := p.write(b); err != nil {
		// Somebody else may hold one of them: it is tried again when there are that many more.
		p.usedShapes, p.spare = len(p.shapes), nil
		p.log.Warn("chains that no Service needs could not be removed", zap.Int("shapes", len(gone)), zap.Error(err))
		return
	}
	for _, s := range gone {
		delete(p.shapes, s)
	}
	p.spare = p.spare[len(gone):]
}

// spareShapes are those that no Service has.
func (p *Plane) spareShapes() map[shape]struct{} {
	spare := maps.Clone(p.shapes)
	for _, e := range p.entries {
		for _, s := range e.shapes() {
			delete(spare, s)
		}
	}
	return spare
}

// removeShapes deletes what leads to chains before the chains.
func (b *batch) removeShapes(all []shape) {
	var verdicts []element
	var chains []chain
	for _, s := range all {
		verdicts = append(verdicts, b.conn.layout.pickElements(s)...)
		chains = append(chains, b.conn.layout.pickChains(s)...)
	}
	slices.SortStableFunc(verdicts, func(a, b element) int { return cmp.Compare(a.set, b.set) })
	for _, e := range verdicts {
		b.deleteElement(e)
	}
	for _, c := range chains {
		b.flushChain(c.name)
		b.deleteChain(c.name)
	}
}
