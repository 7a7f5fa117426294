package announce

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// errShort and its siblings say why a frame was not understood. None is worth a log line: a
// LAN is full of frames that are not for us.
var (
	errShort    = errors.New("announce: frame too short")
	errNotOurs  = errors.New("announce: not Ethernet and IP")
	errChecksum = errors.New("announce: wrong ICMPv6 checksum")
)

// ethernet is what stands before ARP and IPv6: destination, source, EtherType.
const ethernetLen = 14

const (
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd
)

// mac is an Ethernet address.
type mac [6]byte

var broadcastMAC = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (m mac) group() bool { return m[0]&1 != 0 }

// Operations of ARP (RFC 826).
const (
	arpRequest uint16 = 1
	arpReply   uint16 = 2
)

// arpLen is the length of an ARP packet for IPv4 over Ethernet.
const arpLen = 28

// arpPacket is an ARP packet for IPv4 over Ethernet in its frame (RFC 826).
type arpPacket struct {
	destination, source  mac
	operation            uint16
	senderMAC, targetMAC mac
	senderIP, targetIP   netip.Addr
}

// parseARP reads an Ethernet frame. Whatever follows the packet is padding.
func parseARP(frame []byte) (arpPacket, error) {
	if len(frame) < ethernetLen+arpLen {
		return arpPacket{}, errShort
	}
	b := frame[ethernetLen:]
	switch {
	case binary.BigEndian.Uint16(frame[12:]) != etherTypeARP,
		binary.BigEndian.Uint16(b[0:]) != 1,      // Ethernet
		binary.BigEndian.Uint16(b[2:]) != 0x0800, // IPv4
		b[4] != 6, b[5] != 4:
		return arpPacket{}, errNotOurs
	}
	return arpPacket{
		destination: mac(frame[0:6]), source: mac(frame[6:12]),
		operation: binary.BigEndian.Uint16(b[6:]),
		senderMAC: mac(b[8:14]), senderIP: netip.AddrFrom4([4]byte(b[14:18])),
		targetMAC: mac(b[18:24]), targetIP: netip.AddrFrom4([4]byte(b[24:28])),
	}, nil
}

// marshal gives the frame. Both addresses must be IPv4.
func (p arpPacket) marshal() []byte {
	b := make([]byte, 0, ethernetLen+arpLen)
	b = append(b, p.destination[:]...)
	b = append(b, p.source[:]...)
	b = binary.BigEndian.AppendUint16(b, etherTypeARP)
	b = append(b, 0, 1, 8, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, p.operation)
	b = append(b, p.senderMAC[:]...)
	b = append(b, p.senderIP.AsSlice()...)
	b = append(b, p.targetMAC[:]...)
	return append(b, p.targetIP.AsSlice()...)
}

// arpAnswer is the reply to a request for an address that we answer for.
func arpAnswer(request arpPacket, own mac) arpPacket {
	return arpPacket{
		destination: request.senderMAC, source: own, operation: arpReply,
		senderMAC: own, senderIP: request.targetIP,
		targetMAC: request.senderMAC, targetIP: request.senderIP,
	}
}

// arpGratuitous tells everybody where an address is now: once as a request (an ARP
// Announcement, RFC 5227 section 3), once as a reply, because there are devices that take in
// only one of them.
func arpGratuitous(addr netip.Addr, own mac, operation uint16) arpPacket {
	p := arpPacket{
		destination: broadcastMAC, source: own, operation: operation,
		senderMAC: own, senderIP: addr, targetIP: addr,
	}
	if operation == arpReply {
		p.targetMAC = broadcastMAC
	}
	return p
}

// arpProbe asks whether somebody has an address, without claiming it (RFC 5227 section 2.1.1).
func arpProbe(addr netip.Addr, own mac) arpPacket {
	return arpPacket{
		destination: broadcastMAC, source: own, operation: arpRequest,
		senderMAC: own, senderIP: netip.IPv4Unspecified(), targetIP: addr,
	}
}
