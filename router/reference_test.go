package router

import (
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// reference is Table.Match as one would explain it, looking at everything each time.
type reference map[string][]*Route

func (hosts reference) match(host, path string) *Route {
	_, parent, dotted := strings.Cut(host, ".")
	if routes, ok := hosts[host]; ok && host != "" {
		return bestRoute(routes, path)
	}
	if routes, ok := hosts["*."+parent]; ok && dotted && !strings.HasPrefix(host, ".") {
		return bestRoute(routes, path)
	}
	return bestRoute(hosts[""], path)
}

func bestRoute(routes []*Route, path string) (best *Route) {
	for _, r := range routes {
		if matches(r, path) && (best == nil || beats(r, best, path)) {
			best = r
		}
	}
	return best
}

func elements(path string) []string {
	return strings.FieldsFunc(decoded(path), func(c rune) bool { return c == '/' })
}

func slashed(path string) bool { return strings.HasSuffix(decoded(path), "/") }

func decoded(path string) string {
	if p, err := url.PathUnescape(path); err == nil {
		return p
	}
	return path
}

func matches(r *Route, path string) bool {
	want, have := elements(r.Path), elements(path)
	if r.PathType == Exact {
		return slices.Equal(want, have) && slashed(r.Path) == slashed(path)
	}
	return len(want) <= len(have) && slices.Equal(want, have[:len(want)])
}

// beats tells whether a is better than b for a path both match. Of equals b, which came
// first, stays.
func beats(a, b *Route, path string) bool {
	if a.PathType != b.PathType {
		return a.PathType == Exact
	}
	aLen, bLen := len(elements(a.Path)), len(elements(b.Path))
	if aLen != bLen {
		return aLen > bLen
	}
	goesOn := slashed(path) || len(elements(path)) > aLen
	return slashed(a.Path) != slashed(b.Path) && slashed(a.Path) == goesOn
}

// dice decides what a random table looks like; when they run out they show 0.
type dice []byte

func (d *dice) roll(sides int) int {
	if len(*d) == 0 {
		return 0
	}
	n := int((*d)[0]) % sides
	*d = (*d)[1:]
	return n
}

func (d *dice) path() string {
	// Pieces that sort on both sides of the slash, and prefixes of one another.
	pieces := []string{"/", "/a", "/a", "/b", "/ab", "a", "!", "-", "/a/b", "//", "%2F", "%2Fb", "%61"}
	var path strings.Builder
	path.WriteByte('/')
	for range d.roll(6) {
		path.WriteString(pieces[d.roll(len(pieces))])
	}
	return path.String()
}

var (
	patterns = []string{"", "a.x", "*.x", "b.a.x", "*.a.x", "*.b.a.x"}
	requests = []string{"", "x", "a.x", "b.x", "b.a.x", "c.a.x", "c.b.a.x", ".x", ".a.x", "d.c.b.a.x"}
)

func (d *dice) table() (*Table, reference) {
	hosts := reference{}
	for range d.roll(24) {
		r := &Route{Host: patterns[d.roll(len(patterns))], Path: d.path(), PathType: PathType(d.roll(2))}
		hosts[r.Host] = append(hosts[r.Host], r)
	}
	e := NewTable().Edit()
	for name, routes := range hosts {
		e.Put(NewHost(name, routes, nil))
	}
	return e.Table(), hosts
}

// checkAgainstReference plays one random table and some requests.
func checkAgainstReference(t *testing.T, d dice) {
	t.Helper()
	table, hosts := d.table()
	for range 8 {
		host, path := requests[d.roll(len(requests))], d.path()
		got, want := table.Match([]byte(host), []byte(path)), hosts.match(host, path)
		if got == want {
			continue
		}
		for name, routes := range hosts {
			for _, r := range routes {
				t.Logf("host %q: %s", name, show(r))
			}
		}
		t.Fatalf("request %q %q: got %q, want %q", host, path, show(got), show(want))
	}
}

func TestTableMatchesAsTheReferenceDoes(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for range 20_000 {
		d := make(dice, 256)
		_, _ = random.Read(d)
		checkAgainstReference(t, d)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add([]byte("routes and requests are made of these bytes"))
	f.Add([]byte{3, 1, 2, 1, 1, 0, 1, 1, 2, 0, 1, 0, 1, 2, 2, 2, 1})
	f.Fuzz(func(t *testing.T, data []byte) { checkAgainstReference(t, data) })
}
