package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strconv"
)

// A proxyHeader is what a load balancer says, before the first byte of its client's, of the
// connection it took (the PROXY protocol, haproxy.org's proxy-protocol.txt, versions 1 and 2).
// It is read whole or not at all: what follows it is the client's.
type proxyHeader struct {
	source, destination netip.AddrPort
	// known is false for LOCAL, UNKNOWN and UNSPEC, and for Unix sockets: then the ends of
	// the connection itself count. The balancer's own health checks come like that.
	known bool
}

// ProxyVersion is a version of the PROXY protocol; 0 means none.
type ProxyVersion uint8

// The two versions there are: a line of text, and a binary one.
const (
	ProxyV1 ProxyVersion = 1
	ProxyV2 ProxyVersion = 2
)

var (
	errProxySignature = errors.New("proxy protocol: no header")
	errProxyLine      = errors.New("proxy protocol: malformed line of version 1")
	errProxyVersion   = errors.New("proxy protocol: unknown version or command")
	errProxyFamily    = errors.New("proxy protocol: unknown family, or none of streams")
	errProxyLength    = errors.New("proxy protocol: malformed length")
	errProxyChecksum  = errors.New("proxy protocol: wrong checksum")
)

// The signature of version 2, which no other protocol begins with.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

const (
	proxyLine   = "PROXY "
	maxProxyV1  = 107 // bytes of a line, CRLF included
	proxyFixed  = 16  // bytes of version 2 before its addresses
	maxProxyV2  = 4096
	proxyTypeV2 = 0x03 // the TLV of the checksum
)

// parseProxyHeader reads the header that b begins with. n is its length; 0 without an error
// means that more has to come.
func parseProxyHeader(b []byte) (h proxyHeader, n int, err error) {
	switch {
	case beginsLike(b, proxySignature):
		return parseProxyV2(b)
	case beginsLike(b, proxyLine):
		return parseProxyV1(b)
	}
	return h, 0, errProxySignature
}

// beginsLike reports whether b begins with s, as far as b goes.
func beginsLike(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

func parseProxyV1(b []byte) (h proxyHeader, n int, err error) {
	end := bytes.IndexByte(b[:min(len(b), maxProxyV1)], '\n')
	switch {
	case end < 0 && len(b) >= maxProxyV1:
		return h, 0, errProxyLine
	case end < 0:
		return h, 0, nil
	case end <= len(proxyLine) || b[end-1] != '\r':
		return h, 0, errProxyLine
	}
	line := b[len(proxyLine) : end-1]
	family, rest, more := bytes.Cut(line, []byte{' '})
	switch string(family) {
	case "UNKNOWN": // whatever follows, up to the end of the line, is to be ignored
		return h, end + 1, nil
	case "TCP4", "TCP6":
		var ok bool
		if h, ok = parseProxyAddrs(rest, string(family) == "TCP4"); more && ok {
			return h, end + 1, nil
		}
	}
	return proxyHeader{}, 0, errProxyLine
}

// parseProxyAddrs reads "source destination port port", with single spaces.
func parseProxyAddrs(b []byte, four bool) (h proxyHeader, ok bool) {
	var words [4][]byte
	for i := range words {
		var more bool
		if words[i], b, more = bytes.Cut(b, []byte{' '}); more != (i < len(words)-1) {
			return h, false
		}
	}
	from, okFrom := parseProxyAddr(words[0], four)
	to, okTo := parseProxyAddr(words[1], four)
	fromPort, okFromPort := parseProxyPort(words[2])
	toPort, okToPort := parseProxyPort(words[3])
	if !okFrom || !okTo || !okFromPort || !okToPort {
		return h, false
	}
	return proxyHeader{source: netip.AddrPortFrom(from, fromPort), destination: netip.AddrPortFrom(to, toPort), known: true}, true
}

func parseProxyAddr(b []byte, four bool) (netip.Addr, bool) {
	a, err := netip.ParseAddr(string(b))
	if err != nil || a.Is4() != four || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// parseProxyPort takes decimal digits without leading zeros.
func parseProxyPort(b []byte) (uint16, bool) {
	if len(b) == 0 || len(b) > 5 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return uint16(n), n <= 65535
}

func parseProxyV2(b []byte) (h proxyHeader, n int, err error) {
	if len(b) > 12 && b[12]>>4 != 2 || len(b) > 12 && b[12]&0xf > 1 {
		return h, 0, errProxyVersion
	}
	if len(b) < proxyFixed {
		return h, 0, nil
	}
	n = proxyFixed + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case n > maxProxyV2:
		return h, 0, errProxyLength
	case len(b) < n:
		return h, 0, nil
	case b[12]&0xf == 0: // LOCAL: all that follows is to be ignored
		return h, n, nil
	}
	h, err = parseProxyBlock(b[:n])
	if err != nil {
		return proxyHeader{}, 0, err
	}
	return h, n, nil
}

// parseProxyBlock reads a whole header of version 2 and command PROXY.
func parseProxyBlock(b []byte) (h proxyHeader, err error) {
	var size int // of an address
	switch b[13] {
	case 0x00: // UNSPEC
		return h, nil
	case 0x11:
		size = 4
	case 0x21:
		size = 16
	case 0x31: // a Unix socket: the addresses are of no use, what follows them is checked
		size = 108 - 2 // there are no ports
	default:
		return h, errProxyFamily
	}
	addrs := b[proxyFixed:]
	if len(addrs) < 2*size+4 {
		return h, errProxyLength
	}
	if size <= 16 {
		from, _ := netip.AddrFromSlice(addrs[:size])
		to, _ := netip.AddrFromSlice(addrs[size : 2*size])
		ports := addrs[2*size:]
		h.source = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(ports))
		h.destination = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:]))
		h.known = true
	}
	return h, checkProxyTLVs(b, proxyFixed+2*size+4)
}

// checkProxyTLVs walks over the extensions, which begin at the offset at. None is used, but
// they must fit, and a checksum must be right.
func checkProxyTLVs(b []byte, at int) error {
	summed := false
	for at < len(b) {
		if len(b)-at < 3 {
			return errProxyLength
		}
		kind, size := b[at], int(binary.BigEndian.Uint16(b[at+1:]))
		at += 3
		if len(b)-at < size {
			return errProxyLength
		}
		if kind == proxyTypeV2 {
			if size != crc32.Size || summed || proxyChecksum(b, at) != binary.BigEndian.Uint32(b[at:]) {
				return errProxyChecksum
			}
			summed = true
		}
		at += size
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// proxyChecksum sums a header up, with zeros where its checksum stands.
func proxyChecksum(b []byte, at int) uint32 {
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, crc32.Size))
	return crc32.Update(sum, castagnoli, b[at+crc32.Size:])
}

// writeProxyHeader makes a header of that version. Two ends of different families, or
// unknown ones, are said to be unknown.
func writeProxyHeader(v ProxyVersion, from, to netip.AddrPort) []byte {
	known := from.IsValid() && to.IsValid()
	four := known && from.Addr().Is4() && to.Addr().Is4()
	if v == ProxyV1 {
		return writeProxyV1(known, four, from, to)
	}
	b := []byte(proxySignature)
	switch {
	case !known:
		return append(b, 0x21, 0x00, 0, 0)
	case four:
		b = append(b, 0x21, 0x11, 0, 2*4+4)
		b = append(b, from.Addr().AsSlice()...)
		b = append(b, to.Addr().AsSlice()...)
	default:
		b = append(b, 0x21, 0x21, 0, 2*16+4)
		b = append16(b, from.Addr())
		b = append16(b, to.Addr())
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	return binary.BigEndian.AppendUint16(b, to.Port())
}

// proxyHeader is what an upstream is told of a connection; nil for no version.
func (p *peer) proxyHeader(v ProxyVersion) []byte {
	if v == 0 {
		return nil
	}
	return writeProxyHeader(v, p.remote, p.local)
}

func append16(b []byte, a netip.Addr) []byte {
	all := a.As16()
	return append(b, all[:]...)
}

func writeProxyV1(known, four bool, from, to netip.AddrPort) []byte {
	if !known {
		return []byte("PROXY UNKNOWN\r\n")
	}
	family := "PROXY TCP6 "
	if four {
		family = "PROXY TCP4 "
	}
	b := []byte(family)
	for _, a := range []netip.Addr{from.Addr(), to.Addr()} {
		if !four {
			a = netip.AddrFrom16(a.As16()) // an IPv4 address among IPv6 ones is mapped
		}
		b = append(a.AppendTo(b), ' ')
	}
	b = append(strconv.AppendUint(b, uint64(from.Port()), 10), ' ')
	return append(strconv.AppendUint(b, uint64(to.Port()), 10), '\r', '\n')
}
