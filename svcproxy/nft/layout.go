package nft

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"golang.org/x/sys/unix"
)

// layout is what a table is made of: of both IP families, or of IPv4 alone where the kernel's
// nf_tables has no IPv6.
type layout struct {
	// protocol is the family of the table, as nf_tables has it.
	protocol uint8
	families []*family
	// fingerprint is of all that is always there: another one means another version of this program.
	fingerprint string
}

var (
	dual  = newLayout(unix.NFPROTO_INET, families[:]...)
	only4 = newLayout(unix.NFPROTO_IPV4, families[0].only4())
)

func (f family) only4() *family {
	f.alone = true
	return &f
}

// layouts are all that there are, the usual one first.
var layouts = []*layout{dual, only4}

func newLayout(protocol uint8, families ...*family) *layout {
	l := &layout{protocol: protocol, families: families}
	h := crc32.NewIEEE()
	for _, s := range l.sets() {
		h.Write(s.appendTo(nil))
	}
	for _, c := range slices.Concat(l.baseChains(), l.plainChains(), families[0].pickChains(newShape(1, 0)), families[0].pickChains(newShape(2, 1e9))) {
		fmt.Fprint(h, c.name, c.hook)
		for _, r := range c.rules {
			h.Write(r.appendTo(nil))
		}
	}
	for _, e := range l.staticElements() {
		h.Write(e.appendTo(nil))
	}
	l.fingerprint = fmt.Sprintf("%08x", h.Sum32())
	return l
}

// sets are those of its families; their places are those in the list of all.
func (l *layout) sets() []*set { return sets[:len(l.families)*int(ipv6)] }

// serves tells whether it has a family.
func (l *layout) serves(ipv6 bool) bool { return !ipv6 || len(l.families) > 1 }

func (l *layout) eachFamily(of func(*family) rule) (all []rule) {
	for _, f := range l.families {
		all = append(all, of(f))
	}
	return all
}

// pickChains and pickElements are those of a shape in all families.
func (l *layout) pickChains(s shape) (all []chain) {
	for _, f := range l.families {
		all = append(all, f.pickChains(s)...)
	}
	return all
}

func (l *layout) pickElements(s shape) (all []element) {
	for _, f := range l.families {
		all = append(all, f.pickElements(s)...)
	}
	return all
}

// wantedChains are all that a table with these shapes has.
func (l *layout) wantedChains(shapes map[shape]struct{}) []chain {
	all := append(l.baseChains(), l.plainChains()...)
	for s := range shapes {
		all = append(all, l.pickChains(s)...)
	}
	return all
}

// lacking tells whether an error says that the kernel has not got something, and not that it has failed.
func lacking(err error) bool {
	for _, e := range []unix.Errno{unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENOENT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
