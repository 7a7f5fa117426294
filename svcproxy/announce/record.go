package announce

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// record says which node holds which address. There is one, in the API server, and every
// change is a compare-and-swap. Values are never changed once they are in use.
type record struct {
	// epoch counts the changes.
	epoch  uint64
	nodes  map[string]nodeEntry
	grants map[netip.Addr]grant
}

// nodeEntry is what the record knows about a node.
type nodeEntry struct {
	// Term counts how often something was taken from the node against its will.
	Term uint64 `json:"term"`
	// Voters are those whose word lets the node answer without the API server. The node
	// alone changes them.
	Voters []string `json:"voters,omitempty"`
}

// grant is an address in the hands of a node, or of nobody who is to remember who had it.
type grant struct {
	// holder is "" after a node gave the address away when it heard nobody who could have it.
	holder string
	// fences are the nodes that the address was taken from, until it is certain that they have stopped.
	fences []fence
	// past are the nodes that had the address before, the latest first, none twice and not the
	// holder: connections that one does not know may be known by the next.
	past []string
}

// MaxRing is how many nodes an address has at most that may know its connections: its holder, and those before it
// that are remembered (see Fence.Past).
const MaxRing = 5

// maxPast bounds past.
const maxPast = MaxRing - 1

// to gives the address to another node, or to nobody ("").
func (g grant) to(holder string, fences []fence) grant {
	var past []string
	for _, p := range g.ring() {
		if p != holder && !slices.Contains(past, p) && len(past) < maxPast {
			past = append(past, p)
		}
	}
	return grant{holder: holder, fences: fences, past: past}
}

// ring is the holder, if there is one, and those before it.
func (g grant) ring() []string {
	if g.holder == "" {
		return g.past
	}
	return append([]string{g.holder}, g.past...)
}

// fence is a node that must be known to have stopped.
type fence struct {
	Node string `json:"node"`
	// Term is the first one in which the node does not have the address.
	Term   uint64   `json:"term"`
	Voters []string `json:"voters,omitempty"`
}

// majority is how many voters, itself among them, let a node answer.
func majority(voters []string) int { return len(voters)/2 + 1 }

// blocking is how many voters have to turn away from a node so that no majority is left for it.
func blocking(voters []string) int { return len(voters) - majority(voters) + 1 }

func (r record) clone() record {
	c := record{epoch: r.epoch + 1, nodes: maps.Clone(r.nodes), grants: maps.Clone(r.grants)}
	if c.nodes == nil {
		c.nodes = map[string]nodeEntry{}
	}
	if c.grants == nil {
		c.grants = map[netip.Addr]grant{}
	}
	return c
}

// keepPast makes grants forget the past of nodes that are not wanted. It is for a record that is not yet in use.
func (r record) keepPast(wanted func(node string) bool) {
	unwanted := func(node string) bool { return !wanted(node) }
	for addr, g := range r.grants {
		if !slices.ContainsFunc(g.past, unwanted) {
			continue
		}
		g.past = slices.DeleteFunc(slices.Clone(g.past), unwanted)
		if len(g.past) == 0 {
			g.past = nil
		}
		r.grants[addr] = g
	}
}

// marshalToFit gives up all past if the record is too large with it: connections that are open may break
// when their address moves, but addresses move. It gives the record that it has written.
func (r record) marshalToFit() (record, []byte, error) {
	b, err := r.marshal()
	if !errors.Is(err, errRecordTooLarge) {
		return r, b, err
	}
	short := record{epoch: r.epoch, nodes: r.nodes, grants: maps.Clone(r.grants)}
	short.keepPast(func(string) bool { return false })
	b, err = short.marshal()
	return short, b, err
}

// The form in which a record is stored: addresses by holder, because there may be thousands.
type storedRecord struct {
	Epoch uint64                  `json:"epoch"`
	Nodes map[string]nodeEntry    `json:"nodes,omitempty"`
	Held  map[string][]netip.Addr `json:"held,omitempty"`
	// Fenced are those that were held by others before.
	Fenced []fencedGrants `json:"fenced,omitempty"`
}

type fencedGrants struct {
	Holder    string       `json:"holder"`
	Fences    []fence      `json:"fences"`
	Past      []string     `json:"past,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
}

// maxRecord is what fits into the annotations of one object (256 KiB for all of them).
const maxRecord = 240 << 10

var errRecordTooLarge = errors.New("announce: more addresses than one Lease can list (some 10,000)")

func (r record) marshal() ([]byte, error) {
	s := storedRecord{Epoch: r.epoch, Nodes: r.nodes, Held: map[string][]netip.Addr{}}
	groups := map[string]*fencedGrants{}
	for _, addr := range slices.SortedFunc(maps.Keys(r.grants), netip.Addr.Compare) {
		g := r.grants[addr]
		if len(g.fences) == 0 && len(g.past) == 0 {
			s.Held[g.holder] = append(s.Held[g.holder], addr)
			continue
		}
		key := g.key()
		if groups[key] == nil {
			groups[key] = &fencedGrants{Holder: g.holder, Fences: g.fences, Past: g.past}
		}
		groups[key].Addresses = append(groups[key].Addresses, addr)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		s.Fenced = append(s.Fenced, *groups[key])
	}
	b, err := json.Marshal(s)
	if err == nil && len(b) > maxRecord {
		err = errRecordTooLarge
	}
	return b, err
}

func (g grant) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%q", g.holder, g.past)
	for _, f := range g.fences {
		fmt.Fprintf(&b, "|%s@%d%q", f.Node, f.Term, f.Voters)
	}
	return b.String()
}

// parseRecord reads what marshal wrote. Nothing at all is an empty record.
func parseRecord(b []byte) (record, error) {
	r := record{nodes: map[string]nodeEntry{}, grants: map[netip.Addr]grant{}}
	if len(b) == 0 {
		return r, nil
	}
	var s storedRecord
	if err := json.Unmarshal(b, &s); err != nil {
		return record{}, fmt.Errorf("announce: the record of who answers for what: %w", err)
	}
	r.epoch = s.Epoch
	maps.Copy(r.nodes, s.Nodes)
	for holder, addrs := range s.Held {
		for _, a := range addrs {
			r.grants[a] = grant{holder: holder}
		}
	}
	for _, f := range s.Fenced {
		for _, a := range f.Addresses {
			r.grants[a] = grant{holder: f.Holder, fences: f.Fences, past: f.Past}
		}
	}
	return r, nil
}
