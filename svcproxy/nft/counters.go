package nft

import "net/netip"

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

// keepCounts reads the counters of elements that are about to be removed.
func (p *Plane) keepCounts(ops []op) {}

// keepAllCounts reads all counters of a table that is about to be removed.
func (p *Plane) keepAllCounts(table string) {}
