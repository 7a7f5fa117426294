package engine

// h2order finds changes of the dynamic table's size that come after a field of their block (RFC
// 7541 section 4.2). hpack.Decoder sees them only while its table is not empty. It goes through
// what the decoder has accepted, fragment by fragment, and decodes nothing. The zero value is at
// the beginning of a block.
type h2order struct {
	state   h2orderState
	begun   bool   // a field has come
	strings int8   // of the field, still to come
	shift   uint8  // of the next bits of a length
	left    uint64 // of the string
}

type h2orderState uint8

const (
	h2orderField h2orderState = iota
	h2orderIndex
	h2orderLength
	h2orderMoreLength
	h2orderString
)

// broken reads one fragment, and reports whether such a change is in it.
func (o *h2order) broken(fragment []byte) bool {
	for i := 0; i < len(fragment); {
		if o.state == h2orderString {
			n := min(o.left, uint64(len(fragment)-i))
			i += int(n)
			if o.left -= n; o.left == 0 {
				o.next()
			}
			continue
		}
		c := fragment[i]
		i++
		switch o.state {
		case h2orderField:
			switch {
			case c > 0x80 && c < 0xff: // most: an index, and no more
				o.begun = true
			case o.begun && c>>5 == 1:
				return true
			default:
				o.begin(c)
			}
		case h2orderIndex:
			if c < 0x80 {
				o.next()
			}
		case h2orderLength:
			o.left, o.shift = uint64(c&0x7f), 0
			o.measured(o.left < 0x7f)
		case h2orderMoreLength:
			o.left += uint64(c&0x7f) << o.shift
			o.shift += 7
			o.measured(c < 0x80)
		}
	}
	return false
}

// begin reads the first byte of a representation (RFC 7541 section 6).
func (o *h2order) begin(c byte) {
	var index byte // the most that fits in this byte
	literal := false
	switch {
	case c >= 0x80:
		index = 0x7f
	case c >= 0x40:
		index, literal = 0x3f, true
	case c >= 0x20:
		index = 0x1f
	default:
		index, literal = 0x0f, true
	}
	o.begun = o.begun || c>>5 != 1
	o.strings = 0
	if literal {
		o.strings = 1
		if c&index == 0 { // and a name
			o.strings = 2
		}
	}
	if o.state = h2orderIndex; c&index != index {
		o.next()
	}
}

// measured goes on behind a part of a length.
func (o *h2order) measured(whole bool) {
	switch {
	case !whole:
		o.state = h2orderMoreLength
	case o.left == 0:
		o.next()
	default:
		o.state = h2orderString
	}
}

// next goes on behind an index or a string.
func (o *h2order) next() {
	o.state = h2orderField
	if o.strings > 0 {
		o.strings--
		o.state = h2orderLength
	}
}
