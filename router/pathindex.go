package router

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// pathIndex finds the longest path that a request's path begins with. It is a sorted list
// where each node knows its parent: the longest other key that is a prefix of its own.
//
// One binary search finds the last key that does not sort after the request. Every key the
// request begins with is a prefix of that one too (what lies between a prefix and the whole
// has the prefix), so the parents lead to all of them, longest first. Thus a request with
// 4,000 slashes costs one search like any other: there is no lookup per slash or element.
type pathIndex []pathNode

// pathNode holds the routes of one path, with and without a trailing slash. Its key is the
// path without; that of "/" is "".
type pathNode struct {
	key         string
	parent      int32 // -1: none
	exact       *Route
	exactSlash  *Route
	prefix      *Route
	prefixSlash *Route
}

func newPathIndex(routes []*Route) pathIndex {
	nodes := make(pathIndex, len(routes))
	for i, r := range routes {
		nodes[i] = newPathNode(r)
	}
	// Stable, because among equals the first route wins.
	slices.SortStableFunc(nodes, func(a, b pathNode) int { return cmp.Compare(a.key, b.key) })
	nodes = nodes.merge()
	nodes.link()
	return nodes
}

func newPathNode(r *Route) pathNode {
	path := r.Path
	if path == "" {
		path = "/"
	}
	if !isPlain([]byte(path)) {
		path = string(matchingForm(nil, []byte(path), len(path)))
	}
	key, slash := strings.CutSuffix(path, "/")
	n := pathNode{key: key, parent: -1}
	switch {
	case r.PathType == Exact && slash:
		n.exactSlash = r
	case r.PathType == Exact:
		n.exact = r
	case slash:
		n.prefixSlash = r
	default:
		n.prefix = r
	}
	return n
}

// merge makes neighbours with the same key one node; what came first stays.
func (p pathIndex) merge() pathIndex {
	out := p[:0]
	for _, n := range p {
		if len(out) == 0 || out[len(out)-1].key != n.key {
			out = append(out, n)
			continue
		}
		out[len(out)-1].absorb(n)
	}
	clear(p[len(out):]) // no route is kept alive from behind the end
	return out
}

func (n *pathNode) absorb(other pathNode) {
	n.exact = cmp.Or(n.exact, other.exact)
	n.exactSlash = cmp.Or(n.exactSlash, other.exactSlash)
	n.prefix = cmp.Or(n.prefix, other.prefix)
	n.prefixSlash = cmp.Or(n.prefixSlash, other.prefixSlash)
}

// link finds every node's parent: the node before it, or one of that node's parents.
func (p pathIndex) link() {
	for i := 1; i < len(p); i++ {
		parent := int32(i - 1)
		for parent >= 0 && !strings.HasPrefix(p[i].key, p[parent].key) {
			parent = p[parent].parent
		}
		p[i].parent = parent
	}
}

// reach is how many bytes of a path the index can tell apart: its longest key, a slash, and
// one more to know that the path goes on.
func (p pathIndex) reach() int {
	longest := 0
	for i := range p {
		longest = max(longest, len(p[i].key))
	}
	return longest + 2
}

func (p pathIndex) routes() []*Route {
	all := make([]*Route, 0, len(p))
	for i := range p {
		n := &p[i]
		for _, r := range []*Route{n.exactSlash, n.exact, n.prefixSlash, n.prefix} {
			if r != nil {
				all = append(all, r)
			}
		}
	}
	return all
}

func (p pathIndex) match(path []byte) *Route {
	if isPlain(path) {
		return p.longest(path)
	}
	return p.matchForm(path)
}

// matchForm matches a path by its matching form. Only as much of that is made as the index
// could tell apart, so a long request does not cost memory: the scratch stays on the stack
// unless a route's own path is longer than it.
func (p pathIndex) matchForm(path []byte) *Route {
	var scratch [512]byte
	buf := scratch[:0]
	limit := min(len(path), p.reach())
	if limit > len(scratch) {
		buf = make([]byte, 0, limit)
	}
	return p.longest(matchingForm(buf, path, limit))
}

var doubleSlash = []byte("//")

// isPlain tells whether a path is its own matching form.
func isPlain(path []byte) bool {
	return bytes.IndexByte(path, '%') < 0 && !bytes.Contains(path, doubleSlash)
}

// matchingForm appends to buf what a path means to the most generous backend: every escape
// decoded, "%2F" included, and every run of slashes made one; up to limit bytes. A request
// is matched by it, so that "/admin%2Fx" and "//admin/x" go where "/admin/x" goes, and no
// spelling gets around what a route asks for. The request itself is sent on as it is.
func matchingForm(buf, path []byte, limit int) []byte {
	for i := 0; i < len(path) && len(buf) < limit; i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			c = fromHex(path[i+1])<<4 | fromHex(path[i+2])
			i += 2
		}
		if c == '/' && len(buf) > 0 && buf[len(buf)-1] == '/' {
			continue
		}
		buf = append(buf, c)
	}
	return buf
}

// fromHex reads a digit of an escape, which is in upper case in a normal path.
func fromHex(c byte) byte {
	if c >= 'A' {
		return c&^0x20 - 'A' + 10
	}
	return c - '0'
}

// longest finds the route of a path in matching form.
func (p pathIndex) longest(path []byte) *Route {
	i := p.floor(path)
	if i < 0 {
		return nil
	}
	common := commonPrefix(p[i].key, path)
	for ; i >= 0; i = p[i].parent {
		n := &p[i]
		if len(n.key) > common {
			continue
		}
		if r := n.route(path[len(n.key):]); r != nil {
			return r
		}
	}
	return nil
}

// floor is the last node whose key does not sort after the path, or -1.
func (p pathIndex) floor(path []byte) int32 {
	low, high := 0, len(p)
	for low < high {
		middle := int(uint(low+high) / 2)
		if p[middle].key <= string(path) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return int32(low - 1)
}

// route chooses among a node's routes by what the path has after the node's key.
func (n *pathNode) route(rest []byte) *Route {
	switch {
	case len(rest) == 0:
		return cmp.Or(n.exact, n.prefix, n.prefixSlash)
	case rest[0] == '/' && len(rest) == 1:
		return cmp.Or(n.exactSlash, n.prefixSlash, n.prefix)
	case rest[0] == '/', n.key == "": // the root takes everything, "*" too
		return cmp.Or(n.prefixSlash, n.prefix)
	}
	return nil // "/foo" is no element of "/foobar"
}

func commonPrefix(key string, path []byte) int {
	n := min(len(key), len(path))
	for i := range n {
		if key[i] != path[i] {
			return i
		}
	}
	return n
}
