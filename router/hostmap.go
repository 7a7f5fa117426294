package router

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strings"
)

// fanout is the number of shards of a hostMap. An edit copies their list, 8 KB, and one of
// them: 1 KB with 10,000 hosts, about 8 KB with 100,000.
const fanout = 256

// hostMap is a persistent hash map of Hosts: a fixed list of small open-addressed tables.
// Edits copy the list and the shards they change, and share the rest with the map before.
//
// With 100,000 hosts a lookup is as long as the cache and TLB misses it waits for, so the
// slots are dense: chains of one node a host took a fifth longer.
//
// A wildcard stands under its suffix: "*.a.example" under ".a.example". A request's suffix
// is then a slice of its host, and nothing has to be put together to look for it.
type hostMap struct {
	// seed is secret: tenants choose host names, and must not be able to choose their slots.
	seed   maphash.Seed
	shards *[fanout]hostShard
	len    int
}

func newHostMap() hostMap {
	m := hostMap{seed: maphash.MakeSeed(), shards: new([fanout]hostShard)}
	for i := range m.shards {
		m.shards[i].slots = emptySlots
	}
	return m
}

// exact returns the Host whose name is that of the request.
func (m *hostMap) exact(host []byte) *Host {
	hash := maphash.Bytes(m.seed, host)
	shard := &m.shards[hash%fanout]
	for i := hash / fanout; ; i++ {
		slot := shard.at(i)
		if slot.host == nil || slot.hash == hash && slot.host.name == string(host) {
			return slot.host
		}
	}
}

// wildcard returns the wildcard Host exactly one label up from the request's.
func (m *hostMap) wildcard(host []byte) *Host {
	dot := bytes.IndexByte(host, '.')
	if dot <= 0 { // no label above, or an empty first label, which "*" does not stand for
		return nil
	}
	suffix := host[dot:]
	hash := maphash.Bytes(m.seed, suffix)
	shard := &m.shards[hash%fanout]
	for i := hash / fanout; ; i++ {
		slot := shard.at(i)
		if slot.host == nil || slot.hash == hash && isWildcardOf(slot.host.name, suffix) {
			return slot.host
		}
	}
}

func isWildcardOf(name string, suffix []byte) bool {
	return name[0] == '*' && name[1:] == string(suffix)
}

// get returns the Host of that very name.
func (m *hostMap) get(name string) *Host {
	hash := m.hash(name)
	return m.shards[hash%fanout].find(hash, name).host
}

// hash is where the Host of that name stands.
func (m *hostMap) hash(name string) uint64 {
	return maphash.String(m.seed, strings.TrimPrefix(name, "*"))
}

func (m *hostMap) appendTo(all []*Host) []*Host {
	for i := range m.shards {
		for _, slot := range m.shards[i].slots {
			if slot.host != nil {
				all = append(all, slot.host)
			}
		}
	}
	return all
}

// hostMapEdit changes a hostMap. The first change in a shard copies it, the next ones find
// it marked as the edit's own: building 10,000 hosts in one edit copies nothing twice.
type hostMapEdit struct {
	hostMap
	ownList bool
	own     [fanout]bool
}

// freeze returns the map as it is now; later edits leave it alone.
func (e *hostMapEdit) freeze() hostMap {
	e.ownList, e.own = false, [fanout]bool{}
	return e.hostMap
}

func (e *hostMapEdit) put(h *Host) {
	hash := e.hash(h.name)
	if e.shard(hash).put(hostSlot{hash, h}) {
		e.len++
	}
}

func (e *hostMapEdit) remove(name string) {
	h := e.get(name)
	if h == nil {
		return
	}
	e.shard(e.hash(name)).remove(h)
	e.len--
}

// shard returns the shard of a hash, as the edit's own.
func (e *hostMapEdit) shard(hash uint64) *hostShard {
	if !e.ownList {
		list := *e.shards
		e.shards, e.ownList = &list, true
	}
	i := hash % fanout
	if !e.own[i] {
		e.shards[i].slots, e.own[i] = slices.Clone(e.shards[i].slots), true
	}
	return &e.shards[i]
}
