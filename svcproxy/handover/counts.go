package handover

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Counts are what the tables have done since they were made: by the first Set of a Table, or after somebody else took
// them away.
type Counts struct {
	// Connections are those of which segments were passed on; one that was idle for an hour counts again, and those that
	// are more than 16,384 at once do not count.
	Connections uint64
	// Passed are segments that were passed on to another node.
	Passed uint64
	// Reset are segments of connections that nobody knows: their sender was reset.
	Reset uint64
	// Repairs is how often the tables were made again because somebody else had changed them.
	Repairs uint64
}

// The names of counters in the kernel.
const (
	countConnections = "connections"
	countPassed      = "passed"
	countReset       = "reset"
)

// Counts reads the kernel.
func (t *Table) Counts() (Counts, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := Counts{Repairs: t.repairs}
	if err := t.connect(); err != nil {
		return all, err
	}
	for i := range families {
		objects, err := t.conn.GetObjects(&nftables.Table{Family: families[i].table, Name: TableName})
		if err != nil {
			t.hangUp()
			return all, fmt.Errorf("handover: counters: %w", err)
		}
		for _, o := range objects {
			c, ok := o.(*nftables.CounterObj)
			if !ok {
				continue
			}
			switch c.Name {
			case countConnections:
				all.Connections += c.Packets
			case countPassed:
				all.Passed += c.Packets
			case countReset:
				all.Reset += c.Packets
			}
		}
	}
	return all, nil
}

func addCounters(c *nftables.Conn, table *nftables.Table) {
	for _, name := range []string{countConnections, countPassed, countReset} {
		c.AddObj(&nftables.CounterObj{Table: table, Name: name})
	}
}

func count(name string) expr.Any { return &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name} }
