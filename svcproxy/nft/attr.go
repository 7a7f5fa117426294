package nft

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Netlink attributes (struct nlattr, linux/netlink.h): length and type, two bytes each in the
// order of the machine, then the value, padded to four bytes. What is inside is big-endian.

const attrHead = 4

var native = binary.NativeEndian

func pad4(n int) int { return (n + 3) &^ 3 }

// appendAttr appends one attribute.
func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = appendAttrHead(b, typ, len(value))
	b = append(b, value...)
	return append(b, make([]byte, pad4(len(value))-len(value))...)
}

// appendAttrText appends a value without making a slice of it.
func appendAttrText(b []byte, typ uint16, value string) []byte {
	b = appendAttrHead(b, typ, len(value))
	b = append(b, value...)
	return append(b, make([]byte, pad4(len(value))-len(value))...)
}

// appendAttrName appends a name, which the kernel wants to end with a zero byte.
func appendAttrName(b []byte, typ uint16, name string) []byte {
	b = appendAttrHead(b, typ, len(name)+1)
	b = append(b, name...)
	return append(b, make([]byte, pad4(len(name)+1)-len(name))...)
}

func appendAttrUint32(b []byte, typ uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(appendAttrHead(b, typ, 4), v)
}

func appendAttrHead(b []byte, typ uint16, size int) []byte {
	b = native.AppendUint16(b, uint16(attrHead+size))
	return native.AppendUint16(b, typ)
}

// beginNest opens an attribute that holds attributes; endNest closes it.
func beginNest(b []byte, typ uint16) (grown []byte, at int) {
	at = len(b)
	return appendAttrHead(b, typ|unix.NLA_F_NESTED, 0), at
}

func endNest(b []byte, at int) { native.PutUint16(b[at:], uint16(len(b)-at)) }

// attrs walks the attributes of b and stops at the first one that is not whole. The values are
// parts of b.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attrHead {
			size := int(native.Uint16(b))
			if size < attrHead || size > len(b) {
				return
			}
			if !yield(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[attrHead:size]) {
				return
			}
			b = b[min(pad4(size), len(b)):]
		}
	}
}

// attrText is a value without the zero byte at its end.
func attrText(v []byte) string {
	if n := len(v); n > 0 && v[n-1] == 0 {
		v = v[:n-1]
	}
	return string(v)
}

// attrUint32 is 0 for what has another length.
func attrUint32(v []byte) uint32 {
	if len(v) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

func attrUint64(v []byte) uint64 {
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}
