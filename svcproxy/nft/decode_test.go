package nft

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What is written is read back as it was.
func TestElementsRoundTrip(t *testing.T) {
	s := tcpService("10.180.0.10:8080", "10.180.0.11:8080")
	s.Frontends[0].Restricted = true
	s.Sources = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("11.0.0.0/8")}
	e := &entry{service: s, id: 2}
	all := append(e.elements(), append(node.elements(dual), dual.staticElements()...)...)
	for _, want := range all {
		for typ, v := range attrs(want.appendTo(nil)) {
			if got, _, ok := parseElement(want.set, v); typ != unix.NFTA_LIST_ELEM || !ok || got != want {
				t.Errorf("%+v is read as %+v %v", want, got, ok)
			}
		}
	}
}

// Ranges that overlap or touch are one: the kernel takes no others.
func TestMergeRanges(t *testing.T) {
	var in []netip.Prefix
	for _, p := range []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.0.128/25", "255.255.255.0/24", "2001:db8::/32", "10.0.3.7/24"} {
		in = append(in, netip.MustParsePrefix(p))
	}
	want := []addrRange{
		{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.1.255")},
		{netip.MustParseAddr("10.0.3.0"), netip.MustParseAddr("10.0.3.255")},
		{netip.MustParseAddr("255.255.255.0"), netip.MustParseAddr("255.255.255.255")},
	}
	got := mergeRanges(in, false)
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got, want)
		}
	}
	if e := intervalElements(podCIDRs, want[2]); len(e) != 1 {
		t.Errorf("a range to the last address ends with %v", e)
	}
}

// An endpoint that stays keeps its place, so that replacing one is one element.
func TestPlaces(t *testing.T) {
	a, b, c, d := ap("10.0.0.1:1"), ap("10.0.0.2:1"), ap("10.0.0.3:1"), ap("10.0.0.4:1")
	for _, x := range []struct {
		old, want, got []netip.AddrPort
	}{
		{nil, []netip.AddrPort{a, b, a}, []netip.AddrPort{a, b}},
		{[]netip.AddrPort{a, b, c}, []netip.AddrPort{d, c, a}, []netip.AddrPort{a, d, c}},
		{[]netip.AddrPort{a, b, c}, []netip.AddrPort{b, c}, []netip.AddrPort{c, b}},
		{[]netip.AddrPort{a, b, c}, nil, nil},
		{[]netip.AddrPort{a}, []netip.AddrPort{b, c, a}, []netip.AddrPort{a, b, c}},
	} {
		got := place(x.old, x.want)
		if len(got) != len(x.got) {
			t.Fatalf("%v -> %v is %v, want %v", x.old, x.want, got, x.got)
		}
		for i := range got {
			if got[i] != x.got[i] {
				t.Errorf("%v -> %v is %v, want %v", x.old, x.want, got, x.got)
				break
			}
		}
	}
}

// Nothing that a netlink socket gives may end in a panic.
func FuzzMessages(f *testing.F) {
	c := &conn{layout: dual}
	b := newBatch(c, tableNames[0])
	b.addTable(tableComment + dual.fingerprint)
	b.addElement(dual.staticElements()[0])
	data, _ := b.finish()
	f.Add(data)
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 3})
	f.Fuzz(func(_ *testing.T, data []byte) {
		for m := range messages(data) {
			_ = m.err()
			_ = new(damage).hear(m)
			if _, ok := m.nftType(); !ok {
				continue
			}
			parseTable(m.body[genHead:], dual)
			for id := range sets {
				eachElementOf(setID(id), m, func(e element, _ Counters) {
					if counted(e.set) && !e.catchAll() {
						countKeyOf(e)
					}
				})
			}
		}
	})
}
