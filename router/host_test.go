package router

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// routesOf makes routes out of lines like "Exact /foo".
func routesOf(t testing.TB, lines ...string) []*Route {
	t.Helper()
	routes := make([]*Route, 0, len(lines))
	for _, line := range lines {
		kind, path, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("no path type in %q", line)
		}
		r := &Route{Path: path}
		if kind == "Exact" {
			r.PathType = Exact
		}
		routes = append(routes, r)
	}
	return routes
}

// show is the line a route was made of; "" is no route.
func show(r *Route) string {
	if r == nil {
		return ""
	}
	return r.PathType.String() + " " + r.Path
}

func lines(l ...string) []string { return l }

// The examples of the Kubernetes documentation on Ingress path types, one a row.
func TestHostMatchesAsTheIngressSpecSays(t *testing.T) {
	for _, tt := range []struct {
		routes []string
		path   string
		want   string
	}{
		{lines("Prefix /"), "/", "Prefix /"},
		{lines("Prefix /"), "/any/path", "Prefix /"},
		{lines("Exact /foo"), "/foo", "Exact /foo"},
		{lines("Exact /foo"), "/bar", ""},
		{lines("Exact /foo"), "/foo/", ""},
		{lines("Exact /foo/"), "/foo", ""},
		{lines("Prefix /foo"), "/foo", "Prefix /foo"},
		{lines("Prefix /foo"), "/foo/", "Prefix /foo"},
		{lines("Prefix /foo/"), "/foo", "Prefix /foo/"},
		{lines("Prefix /foo/"), "/foo/", "Prefix /foo/"},
		{lines("Prefix /aaa/bb"), "/aaa/bbb", ""},
		{lines("Prefix /aaa/bbb"), "/aaa/bbb", "Prefix /aaa/bbb"},
		{lines("Prefix /aaa/bbb/"), "/aaa/bbb", "Prefix /aaa/bbb/"},
		{lines("Prefix /aaa/bbb"), "/aaa/bbb/", "Prefix /aaa/bbb"},
		{lines("Prefix /aaa/bbb"), "/aaa/bbb/ccc", "Prefix /aaa/bbb"},
		{lines("Prefix /aaa/bbb"), "/aaa/bbbxyz", ""},
		{lines("Prefix /", "Prefix /aaa"), "/aaa/ccc", "Prefix /aaa"},
		{lines("Prefix /", "Prefix /aaa", "Prefix /aaa/bbb"), "/aaa/bbb/ccc", "Prefix /aaa/bbb"},
		{lines("Prefix /", "Prefix /aaa", "Prefix /aaa/bbb"), "/ccc", "Prefix /"},
		{lines("Prefix /aaa"), "/ccc", ""},
		{lines("Prefix /foo", "Exact /foo"), "/foo", "Exact /foo"},
	} {
		checkMatch(t, tt.routes, tt.path, tt.want)
	}
}

func TestHostMatch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		routes []string
		path   string
		want   string
	}{
		{"no routes", nil, "/", ""},
		{"no path means the root", lines("Prefix "), "/x", "Prefix "},
		{"element, not text", lines("Prefix /foo"), "/foobar", ""},
		{"element, below", lines("Prefix /foo"), "/foo/bar", "Prefix /foo"},
		{"case counts", lines("Prefix /foo"), "/Foo", ""},
		{"exact root", lines("Exact /"), "/", "Exact /"},
		{"exact root only", lines("Exact /"), "/x", ""},
		{"exact root, asterisk", lines("Exact /"), "*", ""},
		{"root takes the asterisk", lines("Prefix /"), "*", "Prefix /"},
		{"root takes the empty path", lines("Prefix /"), "", "Prefix /"},
		{"asterisk is no path", lines("Prefix /foo"), "*", ""},

		{"both slashes, bare", lines("Prefix /foo", "Prefix /foo/"), "/foo", "Prefix /foo"},
		{"both slashes, slash", lines("Prefix /foo", "Prefix /foo/"), "/foo/", "Prefix /foo/"},
		{"both slashes, below", lines("Prefix /foo", "Prefix /foo/"), "/foo/bar", "Prefix /foo/"},
		{"exact bare beats prefix slash", lines("Prefix /foo/", "Exact /foo"), "/foo", "Exact /foo"},
		{"exact slash beats prefix", lines("Prefix /foo", "Prefix /foo/", "Exact /foo/"), "/foo/", "Exact /foo/"},
		{"exact is not a prefix", lines("Prefix /", "Exact /foo"), "/foo/bar", "Prefix /"},
		{"exact slash does not hide the prefix above", lines("Prefix /", "Exact /foo/"), "/foo", "Prefix /"},

		{"longer text between", lines("Prefix /foo", "Prefix /foo-bar"), "/foo/zzz", "Prefix /foo"},
		{"sorts before the slash", lines("Prefix /a", "Prefix /a!b", "Prefix /a/b"), "/a/a", "Prefix /a"},
		{"shorter text above", lines("Prefix /", "Prefix /f", "Prefix /fo"), "/foo", "Prefix /"},
		{"deep, back up", lines("Prefix /a", "Exact /a/b/c", "Exact /a/b/c/d"), "/a/b/c/d/e", "Prefix /a"},

		{"empty elements", lines("Prefix /foo/bar"), "//foo///bar", "Prefix /foo/bar"},
		{"an escaped slash is a slash", lines("Prefix /", "Prefix /admin"), "/admin%2Fx", "Prefix /admin"},
		{"an escaped slash first", lines("Prefix /", "Prefix /admin"), "/%2Fadmin/x", "Prefix /admin"},
		{"an escaped slash last", lines("Prefix /", "Exact /admin/"), "/admin%2F", "Exact /admin/"},
		{"any other escape", lines("Prefix /", "Prefix /a@b"), "/a%40b/c", "Prefix /a@b"},
		{"an escape in the route", lines("Prefix /", "Prefix /a%20b"), "/a%20b/c", "Prefix /a%20b"},
		{"an escaped percent sign is decoded once", lines("Prefix /", "Prefix /a%2561"), "/aa", "Prefix /"},
		{"an escape without an end", lines("Prefix /", "Prefix /a"), "/a/%4", "Prefix /a"},
		{"empty elements, exact", lines("Exact /foo/"), "/foo//", "Exact /foo/"},
		{"empty elements, exact bare", lines("Exact /foo"), "/foo//", ""},
		{"empty elements, only", lines("Exact /"), "////", "Exact /"},
		{"empty elements in the route", lines("Exact /foo//bar"), "/foo/bar", "Exact /foo//bar"},
		{"empty elements do not join", lines("Prefix /foo/bar"), "/foo//barbar", ""},
		{"empty elements, far behind", lines("Prefix /foo"), "/foo/" + strings.Repeat("x", 9000) + "//", "Prefix /foo"},
		{"empty elements, far before", lines("Prefix /foo"), strings.Repeat("/", 9000) + "foo", "Prefix /foo"},
	} {
		t.Run(tt.name, func(t *testing.T) { checkMatch(t, tt.routes, tt.path, tt.want) })
	}
}

func checkMatch(t *testing.T, routes []string, path, want string) {
	t.Helper()
	// The answer does not depend on the order routes come in.
	for range 2 {
		h := NewHost("a.example", routesOf(t, routes...), nil)
		if got := show(h.Match([]byte(path))); got != want {
			t.Errorf("%q among %q: got %q, want %q", path, routes, got, want)
		}
		routes = slices.Clone(routes)
		slices.Reverse(routes)
	}
}

func TestHostTheFirstOfTwoRoutesWins(t *testing.T) {
	routes := routesOf(t, "Prefix /foo", "Prefix /", "Prefix /foo", "Prefix /foo//")
	h := NewHost("", routes, nil)
	if got := h.Match([]byte("/foo")); got != routes[0] {
		t.Errorf("got %s, want the first route", show(got))
	}
	if got, want := len(h.Routes()), 3; got != want {
		t.Errorf("got %d routes, want %d: the one that cannot win is left out", got, want)
	}
}

func TestHostFallback(t *testing.T) {
	fallback := &Route{Path: "fallback"}
	h := NewHost("a.example", routesOf(t, "Prefix /foo"), fallback)
	if got := h.Match([]byte("/bar")); got != fallback {
		t.Errorf("got %q, want the fallback", show(got))
	}
	if h.Fallback() != fallback || h.Name() != "a.example" {
		t.Error("the host does not say what it was made of")
	}
}

func TestHostRoutesAreInMatchingOrder(t *testing.T) {
	h := NewHost("", routesOf(t,
		"Prefix /", "Prefix /foo", "Exact /", "Exact /foo/bar", "Prefix /foo/", "Exact /foo", "Prefix /foo/bar", "Prefix /bar",
	), nil)
	var got []string
	for _, r := range h.Routes() {
		got = append(got, show(r))
	}
	want := []string{
		"Exact /foo/bar", "Prefix /foo/bar", "Prefix /bar", "Exact /foo", "Prefix /foo/", "Prefix /foo", "Exact /", "Prefix /",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A route's path longer than the scratch buffer is still matched without its empty elements.
func TestHostMatchesLongCollapsedPaths(t *testing.T) {
	long := strings.Repeat("/element", 200)
	checkMatch(t, lines("Exact "+long), "/"+long, "Exact "+long)
	checkMatch(t, lines("Exact "+long), "/"+long+"//", "")
	checkMatch(t, lines("Prefix "+long), "/"+long+"//", "Prefix "+long)
	checkMatch(t, lines("Prefix "+long), "/"+long+"x", "")
}
