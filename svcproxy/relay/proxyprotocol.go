package relay

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// appendProxyHeader appends the header of the PROXY protocol, version 1 or 2
// (haproxy.org, proxy-protocol.txt), of a TCP connection from src to dst, which are of one family.
func appendProxyHeader(b []byte, version uint8, src, dst netip.AddrPort) []byte {
	ipv6 := src.Addr().Is6()
	if version == 1 {
		if ipv6 {
			b = append(b, "PROXY TCP6 "...)
		} else {
			b = append(b, "PROXY TCP4 "...)
		}
		b = append(src.Addr().WithZone("").AppendTo(b), ' ')
		b = append(dst.Addr().WithZone("").AppendTo(b), ' ')
		b = append(strconv.AppendUint(b, uint64(src.Port()), 10), ' ')
		return append(strconv.AppendUint(b, uint64(dst.Port()), 10), "\r\n"...)
	}
	family, length := byte(0x11), uint16(12) // TCP over IPv4
	if ipv6 {
		family, length = 0x21, 36
	}
	b = append(b, "\r\n\r\n\x00\r\nQUIT\n\x21"...)
	b = binary.BigEndian.AppendUint16(append(b, family), length)
	b = append(b, src.Addr().AsSlice()...)
	b = append(b, dst.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}
