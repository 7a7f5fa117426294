package announce

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/icmp"
)

const (
	ipv6Len         = 40
	protocolICMPv6  = 58
	ndpHopLimit     = 255 // RFC 4861 section 7.1: whatever came over a router has less
	icmpTypeOffset  = ethernetLen + ipv6Len
	icmpNeighborSol = 135
	icmpNeighborAdv = 136
	// maxNDPLen bounds the ICMPv6 message that is read: a solicitation or an advertisement
	// has 24 bytes and a handful of options.
	maxNDPLen = 1280
)

var allNodes = netip.MustParseAddr("ff02::1")

// ndpPacket is a Neighbor Solicitation or Advertisement in its frame (RFC 4861).
type ndpPacket struct {
	destination, source mac
	from, to            netip.Addr
	message             ndp.Message
}

// parseNDP reads an Ethernet frame and makes the checks of RFC 4861 sections 7.1.1 and 7.1.2.
func parseNDP(frame []byte) (ndpPacket, error) {
	if len(frame) < icmpTypeOffset+8 {
		return ndpPacket{}, errShort
	}
	b := frame[ethernetLen:]
	payload := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case binary.BigEndian.Uint16(frame[12:]) != etherTypeIPv6, b[0]>>4 != 6,
		b[6] != protocolICMPv6, b[7] != ndpHopLimit, payload > maxNDPLen:
		return ndpPacket{}, errNotOurs
	case len(b) < ipv6Len+payload || payload < 8:
		return ndpPacket{}, errShort
	}
	body := b[ipv6Len : ipv6Len+payload]
	if kind := body[0]; kind != icmpNeighborSol && kind != icmpNeighborAdv || body[1] != 0 {
		return ndpPacket{}, errNotOurs
	}
	p := ndpPacket{
		destination: mac(frame[0:6]), source: mac(frame[6:12]),
		from: netip.AddrFrom16([16]byte(b[8:24])), to: netip.AddrFrom16([16]byte(b[24:40])),
	}
	if checksum(icmp.IPv6PseudoHeader(b[8:24], b[24:40]), body) != 0 {
		return ndpPacket{}, errChecksum
	}
	message, err := ndp.ParseMessage(body)
	if err != nil {
		return ndpPacket{}, err
	}
	p.message = message
	return p, nil
}

// checksum is the Internet checksum over a pseudo header and an ICMPv6 message, with the
// length that icmp.IPv6PseudoHeader leaves out. It is 0 if the message has the right one.
func checksum(pseudo, message []byte) uint16 {
	sum := uint32(len(message))
	for _, b := range [][]byte{pseudo, message} {
		for len(b) >= 2 {
			sum += uint32(binary.BigEndian.Uint16(b))
			b = b[2:]
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// marshal gives the frame.
func (p ndpPacket) marshal() ([]byte, error) {
	body, err := ndp.MarshalMessageChecksum(p.message, p.from, p.to)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, icmpTypeOffset+len(body))
	b = append(b, p.destination[:]...)
	b = append(b, p.source[:]...)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv6)
	b = append(b, 6<<4, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, protocolICMPv6, ndpHopLimit)
	b = append(b, p.from.AsSlice()...)
	b = append(b, p.to.AsSlice()...)
	return append(b, body...), nil
}

// solicitedNode is the multicast group that a solicitation for addr goes to (RFC 4291 section 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	last := addr.As16()
	copy(group[13:], last[13:])
	return netip.AddrFrom16(group)
}

// multicastMAC is where frames for an IPv6 group go (RFC 2464 section 7).
func multicastMAC(group netip.Addr) mac {
	b := group.As16()
	return mac{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// ndpAnswer is the advertisement for a solicitation of an address that we answer for. It goes
// to everybody if the asker has no address yet (RFC 4861 section 7.2.4): that one is about to
// take the address, and must hear that it is taken.
func ndpAnswer(request ndpPacket, target netip.Addr, own mac) ndpPacket {
	if request.from.IsUnspecified() {
		return ndpUnsolicited(target, own)
	}
	answer := ndpUnsolicited(target, own)
	answer.destination, answer.to = request.source, request.from
	answer.message.(*ndp.NeighborAdvertisement).Solicited = true
	return answer
}

// ndpUnsolicited tells everybody where an address is now (RFC 4861 section 7.2.6).
func ndpUnsolicited(addr netip.Addr, own mac) ndpPacket {
	return ndpPacket{
		destination: multicastMAC(allNodes), source: own, from: addr, to: allNodes,
		message: &ndp.NeighborAdvertisement{
			Override: true, TargetAddress: addr,
			Options: []ndp.Option{linkLayer(ndp.Target, own)},
		},
	}
}

// ndpProbe asks whether somebody has an address, as duplicate address detection does (RFC
// 4862 section 5.4.2): from nobody, without a link-layer address.
func ndpProbe(addr netip.Addr, own mac) ndpPacket {
	group := solicitedNode(addr)
	return ndpPacket{
		destination: multicastMAC(group), source: own, from: netip.IPv6Unspecified(), to: group,
		message: &ndp.NeighborSolicitation{TargetAddress: addr},
	}
}

func linkLayer(direction ndp.Direction, own mac) *ndp.LinkLayerAddress {
	return &ndp.LinkLayerAddress{Direction: direction, Addr: net.HardwareAddr(own[:])}
}
