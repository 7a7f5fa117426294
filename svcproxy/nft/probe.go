package nft

// probeTable is made and removed in one transaction, so that nobody ever sees it.
const probeTable = "portico-probe"

// Probe tells whether the kernel takes the table that a Plane makes, and why not. It changes nothing.
func (p *Plane) Probe() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := newBatch(p.conn, probeTable)
	b.addTable(tableComment + fingerprint)
	for _, s := range sets {
		b.addSet(s)
	}
	b.addChains(plainChains())
	b.addChains(baseChains())
	b.deleteTable(probeTable)
	return p.conn.transact(b.finish())
}
