package router

import "testing"

func TestMethodOf(t *testing.T) {
	for m := MethodGet; m < Methods; m++ {
		if got := MethodOf([]byte(m.String())); got != m {
			t.Errorf("%s: got %s", m, got)
		}
	}
	for _, name := range []string{"", "get", "TRACE", "GETS", "other"} {
		if got := MethodOf([]byte(name)); got != MethodOther {
			t.Errorf("%q: got %s, want other", name, got)
		}
	}
	if got := Method(200).String(); got != "other" {
		t.Errorf("got %q", got)
	}
}

func TestClassOf(t *testing.T) {
	for status, want := range map[int]int{0: 0, -1: 0, 99: 0, 101: 1, 200: 2, 308: 3, 499: 4, 599: 5, 600: 0} {
		if got := ClassOf(status); got != want {
			t.Errorf("%d: got %d, want %d", status, got, want)
		}
	}
}

func TestFaultNames(t *testing.T) {
	for f := range Faults + 1 {
		if f.String() == "" {
			t.Errorf("fault %d has no name", f)
		}
	}
}
