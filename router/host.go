package router

import (
	"cmp"
	"slices"
	"strings"
)

// Host is the compiled set of routes of one host pattern, immutable.
type Host struct {
	name     string
	paths    pathIndex
	fallback *Route
}

// NewHost compiles the routes of one host pattern: "a.example", "*.example", or "" for
// any; lower-case, without port and trailing dot. The routes come in order of precedence:
// of two with the same Path and PathType the first wins and the other is left out. The
// fallback answers the paths that no route matches; nil leaves them to the Table's.
func NewHost(name string, routes []*Route, fallback *Route) *Host {
	h := &Host{name: name, paths: newPathIndex(routes), fallback: fallback}
	h.pack()
	return h
}

// pack puts the name and the paths side by side in memory: a lookup that has compared the
// one then has the others at hand.
func (h *Host) pack() {
	parts := make([]string, 0, 1+len(h.paths))
	parts = append(parts, h.name)
	for i := range h.paths {
		parts = append(parts, h.paths[i].key)
	}
	rest := strings.Join(parts, "")
	h.name, rest = rest[:len(h.name)], rest[len(h.name):]
	for i := range h.paths {
		n := len(h.paths[i].key)
		h.paths[i].key, rest = rest[:n], rest[n:]
	}
}

// Name is the pattern the Host stands under.
func (h *Host) Name() string { return h.name }

// Fallback is the route of paths that no other route matches, or nil.
func (h *Host) Fallback() *Route { return h.fallback }

// Routes returns the routes in matching order, for dumps: longest path first, Exact before
// Prefix. A trailing slash counts last: it decides only between routes that are otherwise
// the same.
func (h *Host) Routes() []*Route {
	all := h.paths.routes()
	slices.SortFunc(all, compareRoutes)
	return all
}

func compareRoutes(a, b *Route) int {
	aKey, bKey := strings.TrimSuffix(a.Path, "/"), strings.TrimSuffix(b.Path, "/")
	return cmp.Or(
		cmp.Compare(len(bKey), len(aKey)),
		cmp.Compare(aKey, bKey),
		cmp.Compare(b.PathType, a.PathType), // Exact is the greater one
		cmp.Compare(len(b.Path), len(a.Path)),
	)
}

// Match finds the route of a path in normal form: the longest that matches, Exact before
// Prefix, else the Host's fallback, else nil. Empty path elements do not count:
// "//foo///bar" is matched as "/foo/bar".
func (h *Host) Match(path []byte) *Route {
	if r := h.paths.match(path); r != nil {
		return r
	}
	return h.fallback
}
