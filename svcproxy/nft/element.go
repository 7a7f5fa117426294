package nft

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// element is one element of a set, in the bytes that the kernel compares. It is comparable.
type element struct {
	set setID
	// key is empty for the catch-all, which is found where no other one is. We make none.
	key string
	// end is the last key of a range in a concatenation; intervalEnd marks the first key after
	// a range elsewhere.
	end         string
	intervalEnd bool
	// data is what a map gives; of a map to verdicts the name of a chain.
	data string
}

// elementKey is what makes an element itself: two elements with the same one cannot both be.
type elementKey struct {
	set         setID
	key, end    string
	intervalEnd bool
}

func (e element) catchAll() bool { return e.key == "" }

func (e element) elementKey() elementKey { return elementKey{e.set, e.key, e.end, e.intervalEnd} }

func (k elementKey) element(data string) element {
	return element{set: k.set, key: k.key, end: k.end, intervalEnd: k.intervalEnd, data: data}
}

func (e element) appendTo(b []byte) []byte {
	b, at := beginNest(b, unix.NFTA_LIST_ELEM)
	if e.catchAll() {
		b = appendAttrUint32(b, unix.NFTA_SET_ELEM_FLAGS, nftSetElemCatchAll)
	} else {
		b = appendData(b, unix.NFTA_SET_ELEM_KEY, e.key)
	}
	if e.end != "" {
		b = appendData(b, nftaSetElemKeyEnd, e.end)
	}
	if e.intervalEnd {
		b = appendAttrUint32(b, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	switch {
	case e.data == "":
	case sets[e.set].verdicts:
		b = appendVerdict(b, e.data)
	default:
		b = appendData(b, unix.NFTA_SET_ELEM_DATA, e.data)
	}
	endNest(b, at)
	return b
}

func appendData(b []byte, typ uint16, value string) []byte {
	b, at := beginNest(b, typ)
	b = appendAttrText(b, unix.NFTA_DATA_VALUE, value)
	endNest(b, at)
	return b
}

// verdictReturn stands for the verdict return where a chain is named.
const verdictReturn = "return"

func appendVerdict(b []byte, chain string) []byte {
	b, data := beginNest(b, unix.NFTA_SET_ELEM_DATA)
	b, verdict := beginNest(b, unix.NFTA_DATA_VERDICT)
	if chain == verdictReturn {
		b = appendAttrUint32(b, unix.NFTA_VERDICT_CODE, nftReturn)
	} else {
		b = appendAttrUint32(b, unix.NFTA_VERDICT_CODE, nftGoto)
		b = appendAttrName(b, unix.NFTA_VERDICT_CHAIN, chain)
	}
	endNest(b, verdict)
	endNest(b, data)
	return b
}

// nftSetElemCatchAll marks the catch-all (enum nft_set_elem_flags). It takes Linux 5.13.
const nftSetElemCatchAll = 2

// Verdicts, as unsigned numbers (enum nft_verdicts).
const (
	nftGoto   = 0xfffffffc
	nftReturn = 0xfffffffb
)

// parseElement reads one element of a dump. ok is false for what no element of ours looks like.
func parseElement(id setID, v []byte) (e element, counts Counters, ok bool) {
	e.set = id
	var flags uint32
	for typ, v := range attrs(v) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.key = parseData(v)
		case nftaSetElemKeyEnd:
			e.end = parseData(v)
		case unix.NFTA_SET_ELEM_DATA:
			e.data = parseData(v)
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = attrUint32(v)
		case unix.NFTA_SET_ELEM_EXPR:
			counts = parseCounter(v)
		}
	}
	e.intervalEnd = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0
	s := sets[id]
	data := s.verdicts || len(e.data) == int(sizeOf(s.data))
	if flags&nftSetElemCatchAll != 0 {
		return e, counts, data && e.key == "" && e.end == ""
	}
	ok = data && len(e.key) == int(sizeOf(s.key)) && (len(e.end) == len(e.key)) == s.concatenated()
	return e, counts, ok
}

func parseData(v []byte) string {
	for typ, v := range attrs(v) {
		switch typ {
		case unix.NFTA_DATA_VALUE:
			return string(v)
		case unix.NFTA_DATA_VERDICT:
			for typ, v := range attrs(v) {
				if typ == unix.NFTA_VERDICT_CHAIN {
					return attrText(v)
				}
			}
			return verdictReturn
		}
	}
	return ""
}

// Counters are what an element has seen: the new connections to it.
type Counters struct {
	// Connections is the number of first packets, repeated ones included.
	Connections uint64
}

func parseCounter(v []byte) (c Counters) {
	for typ, v := range attrs(v) {
		if typ != unix.NFTA_EXPR_DATA {
			continue
		}
		for typ, v := range attrs(v) {
			if typ == unix.NFTA_COUNTER_PACKETS {
				c.Connections = attrUint64(v)
			}
		}
	}
	return c
}

// What follows writes keys and data, each part padded to four bytes as in registers.

func appendAddr(b []byte, a netip.Addr) []byte { return append(b, a.Unmap().AsSlice()...) }

func appendPort(b []byte, p uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, p), 0, 0)
}

func appendProtocol(b []byte, p uint8) []byte { return append(b, p, 0, 0, 0) }

func appendNumber(b []byte, n uint32) []byte { return native.AppendUint32(b, n) }

// numberData is what a map to numbers has, see number.
func numberData(n uint32) string { return string(appendNumber(make([]byte, 4, 8), n)) }

func parseNumberData(v string) uint32 { return native.Uint32([]byte(v[4:])) }

func addrPort(a netip.AddrPort) string {
	return string(appendPort(appendAddr(nil, a.Addr()), a.Port()))
}

func parseAddrPort(v string) (netip.AddrPort, bool) {
	n := len(v) - 4
	if n != 4 && n != 16 {
		return netip.AddrPort{}, false
	}
	a, ok := netip.AddrFromSlice([]byte(v[:n]))
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(v[n:]))), ok
}
