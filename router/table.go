// Package router is what a request goes through between its head and its endpoint: the
// routing table, matching, backends and balancing. It knows hosts, paths and addresses,
// and nothing of where they were written down.
//
// README.md beside this file has the picture.
package router

import (
	"cmp"
	"iter"
	"slices"
)

// Table is one immutable generation of routing. A request loads the live Table once and
// keeps it to its end; the next Table is made with Edit and shares all that stays the same.
type Table struct {
	generation uint64
	hosts      hostMap
	any        *Host // the Host named "", which is no entry of hosts: every miss ends there
	fallback   *Route
	streams    int // Hosts with a Stream
}

// NewTable returns an empty Table of generation 0.
func NewTable() *Table {
	return &Table{hosts: newHostMap()}
}

// Generation counts the Edits that led to this Table.
func (t *Table) Generation() uint64 { return t.generation }

// Fallback is the route of requests that no Host answers; nil is the built-in 404.
func (t *Table) Fallback() *Route { return t.fallback }

// Len is the number of Hosts.
func (t *Table) Len() int {
	if t.any != nil {
		return t.hosts.len + 1
	}
	return t.hosts.len
}

// Match finds the route of a request, or nil: the built-in 404. The host is lower-case,
// without port and without trailing dot; the path is in normal form.
//
// The host is chosen first, and for good: an exact name, else the wildcard one label up,
// else the Host named "". A path that this Host does not know goes to its own fallback and
// then to the Table's. It never falls through from an exact host to a wildcard: that is
// ingress-nginx's rule, and it keeps one tenant's paths from leaking into another's host.
func (t *Table) Match(host, path []byte) *Route {
	if h := t.choose(host); h != nil {
		if r := h.Match(path); r != nil {
			return r
		}
	}
	return t.fallback
}

func (t *Table) choose(host []byte) *Host {
	if h := t.hosts.exact(host); h != nil {
		return h
	}
	if h := t.hosts.wildcard(host); h != nil {
		return h
	}
	return t.any
}

// MatchStream finds the route of a TLS connection by the name in its ClientHello, in lower
// case; or nil if its TLS is to be ended here. The host is chosen as by Match.
func (t *Table) MatchStream(serverName []byte) *Route {
	h := t.choose(serverName)
	if h == nil || h.name == "" {
		return nil
	}
	return h.stream
}

// HasStreams reports whether MatchStream can find anything.
func (t *Table) HasStreams() bool { return t.streams > 0 }

// Host returns the Host of that very name ("a.example", "*.example", ""), or nil.
func (t *Table) Host(name string) *Host {
	if name == "" {
		return t.any
	}
	return t.hosts.get(name)
}

// Hosts yields every Host, sorted by name.
func (t *Table) Hosts() iter.Seq[*Host] {
	return func(yield func(*Host) bool) {
		all := t.hosts.appendTo(make([]*Host, 0, t.Len()))
		if t.any != nil {
			all = append(all, t.any)
		}
		slices.SortFunc(all, func(a, b *Host) int { return cmp.Compare(a.name, b.name) })
		for _, h := range all {
			if !yield(h) {
				return
			}
		}
	}
}

// Edit starts the next Table. This one stays as it is.
func (t *Table) Edit() *Edit {
	return &Edit{next: *t, hosts: hostMapEdit{hostMap: t.hosts}}
}
