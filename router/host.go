package router

import (
	"cmp"
	"slices"
	"strings"
	"unsafe"
)

// Host is the compiled set of routes of one host pattern, immutable.
//
// Nearly every Host has a path or two and a short name. All that a lookup reads of such a
// one lies in the Host itself, in one piece of memory: in a table too big for the caches a
// lookup takes as long as the pieces it has to wait for.
type Host struct {
	name     string
	paths    pathIndex
	fallback *Route
	stream   *Route
	few      [2]pathNode // what paths points to, if that is enough
	text     [64]byte    // what name and the paths' keys point to, if that is enough
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

// pack moves the paths, and the text of name and paths, into the Host as far as they fit.
// Text that does not is put side by side elsewhere.
func (h *Host) pack() {
	if len(h.paths) <= len(h.few) {
		h.paths = h.few[:copy(h.few[:], h.paths)]
	}
	size := len(h.name)
	for i := range h.paths {
		size += len(h.paths[i].key)
	}
	text := h.text[:0]
	if size > cap(text) {
		text = make([]byte, 0, size)
	}
	move := func(s string) string {
		start := len(text)
		text = append(text, s...)
		// Nothing writes to text again, so it may be read as a string.
		return unsafe.String(unsafe.SliceData(text[start:]), len(s)) //nolint:gosec // as said
	}
	h.name = move(h.name)
	for i := range h.paths {
		h.paths[i].key = move(h.paths[i].key)
	}
}

// Name is the pattern the Host stands under.
func (h *Host) Name() string { return h.name }

// WithStream returns a copy of the Host whose TLS connections go to the Backend of r as they
// are. Its other routes are for plain HTTP then.
func (h *Host) WithStream(r *Route) *Host {
	next := *h
	next.stream, next.paths = r, slices.Clone(h.paths)
	next.pack() // anew: the copy must not point into the other one
	return &next
}

// Stream is the route of TLS connections that are passed through, or nil.
func (h *Host) Stream() *Route { return h.stream }

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
// Prefix, else the Host's fallback, else nil. Escapes are compared decoded, and empty path
// elements do not count: "//foo///b%61r" and "/foo%2Fbar" are matched as "/foo/bar".
func (h *Host) Match(path []byte) *Route {
	if r := h.paths.match(path); r != nil {
		return r
	}
	return h.fallback
}
