package router

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tableOf makes a table with one root route for each host.
func tableOf(t testing.TB, hosts ...string) *Table {
	t.Helper()
	e := NewTable().Edit()
	for _, name := range hosts {
		e.Put(rootHost(name))
	}
	return e.Table()
}

func rootHost(name string) *Host {
	return NewHost(name, []*Route{{Host: name, Path: "/"}}, nil)
}

func names(t *Table) []string {
	var all []string
	for h := range t.Hosts() {
		all = append(all, h.Name())
	}
	return all
}

func TestTableChoosesTheHost(t *testing.T) {
	const none = "no route"
	for _, tt := range []struct {
		name  string
		hosts []string
		host  string
		want  string
	}{
		{"exact", []string{"x.a.b"}, "x.a.b", "x.a.b"},
		{"unknown", []string{"x.a.b"}, "y.a.b", none},
		{"wildcard is one label", []string{"*.a.b"}, "x.a.b", "*.a.b"},
		{"wildcard is not none", []string{"*.a.b"}, "a.b", none},
		{"wildcard is not two", []string{"*.a.b"}, "x.y.a.b", none},
		{"wildcard label is not empty", []string{"*.a.b"}, ".a.b", none},
		{"wildcard is whole labels", []string{"*.a.b"}, "xa.b", none},
		{"exact beats wildcard", []string{"*.a.b", "x.a.b"}, "x.a.b", "x.a.b"},
		{"wildcard beats any", []string{"", "*.a.b"}, "x.a.b", "*.a.b"},
		{"exact beats any", []string{"", "x.a.b"}, "x.a.b", "x.a.b"},
		{"the nearer wildcard alone", []string{"*.b", "*.a.b"}, "x.a.b", "*.a.b"},
		{"any", []string{"", "x.a.b"}, "y", ""},
		{"no host", []string{""}, "", ""},
		{"no host is not any host", []string{"x.a.b"}, "", none},
		{"address", []string{"10.0.0.1"}, "10.0.0.1", "10.0.0.1"},
		{"address v6", []string{"[::1]"}, "[::1]", "[::1]"},
		{"a dot alone", []string{"*.a.b"}, ".", none},
		{"a dot at the end", []string{"*."}, "x.", "*."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := none
			if r := tableOf(t, tt.hosts...).Match([]byte(tt.host), []byte("/")); r != nil {
				got = r.Host
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// An exact host hides the wildcard and any host, even for paths it does not have.
func TestTableDoesNotFallThroughToAnotherHost(t *testing.T) {
	e := NewTable().Edit()
	e.Put(rootHost(""))
	e.Put(rootHost("*.a.b"))
	e.Put(NewHost("x.a.b", routesOf(t, "Prefix /foo"), nil))
	if r := e.Table().Match([]byte("x.a.b"), []byte("/bar")); r != nil {
		t.Errorf("got the route of %q, want none", r.Host)
	}
}

func TestTableFallbacks(t *testing.T) {
	ofHost, ofTable := &Route{Origin: "host"}, &Route{Origin: "table"}
	e := NewTable().Edit()
	e.Put(NewHost("with.example", routesOf(t, "Prefix /foo"), ofHost))
	e.Put(NewHost("without.example", routesOf(t, "Prefix /foo"), nil))
	e.SetFallback(ofTable)
	table := e.Table()
	for host, want := range map[string]*Route{
		"with.example": ofHost, "without.example": ofTable, "unknown.example": ofTable,
	} {
		if got := table.Match([]byte(host), []byte("/bar")); got != want {
			t.Errorf("%s: got %v, want %v", host, got, want)
		}
	}
	if table.Fallback() != ofTable {
		t.Error("the table does not tell its fallback")
	}
}

func TestTableEditLeavesTheOldOneAlone(t *testing.T) {
	old := tableOf(t, "a.example", "*.example", "")
	e := old.Edit()
	e.Put(rootHost("b.example"))
	e.Remove("a.example")
	e.Remove("")
	e.Remove("unknown.example")
	next := e.Table()

	if diff := cmp.Diff([]string{"", "*.example", "a.example"}, names(old)); diff != "" {
		t.Errorf("the old table changed:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"*.example", "b.example"}, names(next)); diff != "" {
		t.Error(diff)
	}
	if old.Generation() != 1 || next.Generation() != 2 {
		t.Errorf("generations %d and %d, want 1 and 2", old.Generation(), next.Generation())
	}
	if old.Len() != 3 || next.Len() != 2 {
		t.Errorf("lengths %d and %d, want 3 and 2", old.Len(), next.Len())
	}
	if old.Host("*.example") != next.Host("*.example") {
		t.Error("a host that did not change is not shared")
	}
}

func TestTableEditGoesOnAfterTable(t *testing.T) {
	e := NewTable().Edit()
	e.Put(rootHost("a.example"))
	first := e.Table()
	e.Put(rootHost("b.example"))
	e.Remove("a.example")
	second := e.Table()
	if !slices.Equal(names(first), []string{"a.example"}) || !slices.Equal(names(second), []string{"b.example"}) {
		t.Errorf("got %q and then %q", names(first), names(second))
	}
	if second.Generation() != 2 {
		t.Errorf("generation %d, want 2", second.Generation())
	}
}

func TestTableHostByName(t *testing.T) {
	table := tableOf(t, "a.example", "*.example", "")
	for _, name := range []string{"a.example", "*.example", ""} {
		if h := table.Host(name); h == nil || h.Name() != name {
			t.Errorf("%q: got %v", name, h)
		}
	}
	for _, name := range []string{"b.example", ".example", "*.a.example"} {
		if h := table.Host(name); h != nil {
			t.Errorf("%q: got %q, want none", name, h.Name())
		}
	}
}

func TestTableHostsStopsWhenAsked(t *testing.T) {
	for h := range tableOf(t, "a.example", "b.example").Hosts() {
		if h.Name() != "a.example" {
			t.Fatalf("got %q after the loop had ended", h.Name())
		}
		break
	}
}

// Many hosts, so that chains are longer than one, put in and taken out again.
func TestTableKeepsEveryHost(t *testing.T) {
	const n = 50_000
	e := NewTable().Edit()
	for i := range n {
		e.Put(rootHost(fmt.Sprintf("h%d.example", i)))
		e.Put(rootHost("h7.example")) // replaced, not added
	}
	full := e.Table()
	for i := 0; i < n; i += 2 {
		e.Remove(fmt.Sprintf("h%d.example", i))
	}
	half := e.Table()
	if full.Len() != n || half.Len() != n/2 {
		t.Fatalf("lengths %d and %d, want %d and %d", full.Len(), half.Len(), n, n/2)
	}
	for i := range n {
		host := fmt.Appendf(nil, "h%d.example", i)
		if full.Match(host, []byte("/")) == nil {
			t.Fatalf("%s is lost", host)
		}
		if found := half.Match(host, []byte("/")) != nil; found != (i%2 == 1) {
			t.Fatalf("%s after half were removed: found %v", host, found)
		}
	}
}
