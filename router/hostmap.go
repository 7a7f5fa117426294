package router

import (
	"bytes"
	"hash/maphash"
	"strings"
)

// fanout is the width of both levels of a hostMap: 65,536 chains. A copy of one node is
// 2 KB, so an edit copies 4 KB; 100,000 hosts are chains of 1.5.
const fanout = 256

// hostMap is a persistent hash map of Hosts: two fixed levels and then a chain. Edits copy
// the nodes on the way to what changes and share the rest with the map before.
//
// A wildcard stands under its suffix: "*.a.example" under ".a.example". A request's suffix
// is then a slice of its host, and nothing has to be put together to look for it.
type hostMap struct {
	// seed is secret: tenants choose host names, and must not be able to choose their chain.
	seed maphash.Seed
	root *hostRoot
	len  int
}

type (
	hostRoot  [fanout]*hostShard
	hostShard [fanout]*hostLink
)

// hostLink is one link of a chain, immutable. It repeats what a lookup needs of its Host, in
// one cache line: with 100,000 hosts a lookup is as long as the misses it waits for, and
// this way the Host is not one of them.
type hostLink struct {
	hash  uint64
	name  string
	paths pathIndex
	host  *Host
	next  *hostLink
}

func newHostLink(hash uint64, h *Host, next *hostLink) *hostLink {
	return &hostLink{hash: hash, name: h.name, paths: h.paths, host: h, next: next}
}

func newHostMap() hostMap {
	return hostMap{seed: maphash.MakeSeed(), root: new(hostRoot)}
}

// exact finds the Host whose name is that of the request.
func (m *hostMap) exact(host []byte) *hostLink {
	hash := maphash.Bytes(m.seed, host)
	for l := m.chain(hash); l != nil; l = l.next {
		if l.hash == hash && l.name == string(host) {
			return l
		}
	}
	return nil
}

// wildcard finds the wildcard Host exactly one label up from the request's.
func (m *hostMap) wildcard(host []byte) *hostLink {
	dot := bytes.IndexByte(host, '.')
	if dot <= 0 { // no label above, or an empty first label, which "*" does not stand for
		return nil
	}
	suffix := host[dot:]
	hash := maphash.Bytes(m.seed, suffix)
	for l := m.chain(hash); l != nil; l = l.next {
		if l.hash == hash && l.name[0] == '*' && l.name[1:] == string(suffix) {
			return l
		}
	}
	return nil
}

// get returns the Host of that very name.
func (m *hostMap) get(name string) *Host {
	for l := m.chain(m.hash(name)); l != nil; l = l.next {
		if l.name == name {
			return l.host
		}
	}
	return nil
}

// hash is where the Host of that name stands.
func (m *hostMap) hash(name string) uint64 {
	return maphash.String(m.seed, strings.TrimPrefix(name, "*"))
}

func (m *hostMap) chain(hash uint64) *hostLink {
	shard := m.root[hash%fanout]
	if shard == nil {
		return nil
	}
	return shard[hash/fanout%fanout]
}

func (m *hostMap) appendTo(all []*Host) []*Host {
	for _, shard := range m.root {
		if shard == nil {
			continue
		}
		for _, l := range shard {
			for ; l != nil; l = l.next {
				all = append(all, l.host)
			}
		}
	}
	return all
}

// hostMapEdit changes a hostMap. The first change under a node copies it, the next ones
// find it marked as the edit's own: building 10,000 hosts in one edit copies no node twice.
type hostMapEdit struct {
	hostMap
	ownRoot  bool
	ownShard [fanout]bool
}

// freeze returns the map as it is now; later edits leave it alone.
func (e *hostMapEdit) freeze() hostMap {
	e.ownRoot, e.ownShard = false, [fanout]bool{}
	return e.hostMap
}

func (e *hostMapEdit) put(h *Host) {
	hash := e.hash(h.name)
	slot := e.slot(hash)
	rest, replaced := (*slot).without(h.name)
	if !replaced {
		e.len++
	}
	*slot = newHostLink(hash, h, rest)
}

func (e *hostMapEdit) remove(name string) {
	if e.get(name) == nil {
		return
	}
	slot := e.slot(e.hash(name))
	*slot, _ = (*slot).without(name)
	e.len--
}

// slot returns the place of a chain's first link, in nodes that are the edit's own.
func (e *hostMapEdit) slot(hash uint64) **hostLink {
	if !e.ownRoot {
		root := *e.root
		e.root, e.ownRoot = &root, true
	}
	i := hash % fanout
	if !e.ownShard[i] {
		shard := new(hostShard)
		if old := e.root[i]; old != nil {
			*shard = *old
		}
		e.root[i], e.ownShard[i] = shard, true
	}
	return &e.root[i][hash/fanout%fanout]
}

// without returns the chain without the Host of that name; links after it are shared.
func (l *hostLink) without(name string) (rest *hostLink, found bool) {
	if l == nil {
		return nil, false
	}
	if l.name == name {
		return l.next, true
	}
	rest, found = l.next.without(name)
	if !found {
		return l, false
	}
	return newHostLink(l.hash, l.host, rest), true
}
