package nft

import (
	"maps"
	"slices"

	"go.uber.org/zap"
)

// probeTable is made and removed in one transaction, so that nobody ever sees it.
const probeTable = "portico-probe"

// Probe tells whether the kernel takes the table that a Plane makes, and why not. It changes nothing in
// it. A kernel whose nf_tables has no IPv6 is served in IPv4 alone from then on, see Unserved.
func (p *Plane) Probe() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	both := p.probe()
	if both == nil || !lacking(both) || p.table != "" || len(p.entries) > 0 {
		return both
	}
	p.conn.layout = only4
	if p.probe() != nil {
		p.conn.layout = dual
		return both
	}
	p.withoutIPv6 = both
	p.log.Warn("Services are served in IPv4 alone, because the kernel has no nf_tables for IPv6 (CONFIG_NF_TABLES_INET, CONFIG_NFT_FIB_INET)", zap.NamedError("why", both))
	return nil
}

// Unserved names the Services that the kernel cannot serve because it has no nf_tables for IPv6, and
// gives its error; nil if it has.
func (p *Plane) Unserved() (names []string, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.unserved)), p.withoutIPv6
}

func (p *Plane) probe() error {
	b := newBatch(p.conn, probeTable)
	b.addTable(tableComment + p.conn.layout.fingerprint)
	for _, s := range p.conn.layout.sets() {
		b.addSet(s)
	}
	b.addChains(p.conn.layout.plainChains())
	b.addChains(p.conn.layout.baseChains())
	b.deleteTable(probeTable)
	return p.conn.transact(b.finish())
}
