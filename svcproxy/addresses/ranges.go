package addresses

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ipRange is a range of addresses of one family, both ends in it.
type ipRange struct{ first, last netip.Addr }

// parseRange reads a CIDR (192.0.2.0/24), a range (192.0.2.10-192.0.2.20) or one address.
func parseRange(text string) (ipRange, error) {
	text = strings.TrimSpace(text)
	if first, last, ok := strings.Cut(text, "-"); ok {
		return parseFromTo(text, first, last)
	}
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return ipRange{}, fmt.Errorf("%q is neither a CIDR (192.0.2.0/24) nor a range (192.0.2.10-192.0.2.20)", text)
		}
		a = a.Unmap()
		return ipRange{a, a}, unusable(a, a, text)
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return ipRange{}, fmt.Errorf("%q is not a CIDR, as 192.0.2.0/24 is", text)
	}
	p = p.Masked()
	r := ipRange{p.Addr(), lastOf(p)}
	return r, unusable(r.first, r.last, text)
}

func parseFromTo(text, from, to string) (ipRange, error) {
	first, err := netip.ParseAddr(strings.TrimSpace(from))
	last, err2 := netip.ParseAddr(strings.TrimSpace(to))
	switch {
	case err != nil || err2 != nil || first.Zone() != "" || last.Zone() != "":
		return ipRange{}, fmt.Errorf("%q is not a range, as 192.0.2.10-192.0.2.20 is", text)
	case first.Is4() != last.Is4():
		return ipRange{}, fmt.Errorf("%q begins in one address family and ends in another", text)
	case last.Less(first):
		return ipRange{}, fmt.Errorf("%q ends before it begins", text)
	}
	return ipRange{first, last}, unusable(first, last, text)
}

// unusable: nobody can be reached at these, whatever a pool says.
func unusable(first, last netip.Addr, text string) error {
	for _, a := range []netip.Addr{first, last} {
		if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			return fmt.Errorf("%q has addresses that no Service can have (unspecified, loopback or multicast)", text)
		}
	}
	return nil
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (r ipRange) contains(a netip.Addr) bool {
	return a.Is4() == r.first.Is4() && !a.Less(r.first) && !r.last.Less(a)
}

func (r ipRange) overlaps(o ipRange) bool {
	return r.first.Is4() == o.first.Is4() && !r.last.Less(o.first) && !o.last.Less(r.first)
}

func (r ipRange) String() string {
	if r.first == r.last {
		return r.first.String()
	}
	return r.first.String() + "-" + r.last.String()
}

// sortRanges orders ranges and leaves out what is in another, so that nothing is met twice.
func sortRanges(all []ipRange) []ipRange {
	slices.SortFunc(all, func(a, b ipRange) int { return a.first.Compare(b.first) })
	var out []ipRange
	for _, r := range all {
		if n := len(out); n > 0 && out[n-1].overlaps(r) {
			if out[n-1].last.Less(r.last) {
				out[n-1].last = r.last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// buggy are addresses that old equipment takes for those of a network or its broadcasts.
func buggy(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[3] == 0 || b[3] == 255
}
