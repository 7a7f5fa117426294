package nft

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flow is what connection tracking knows of a connection that was translated to an endpoint.
type Flow struct {
	// ID is the kernel's; it is used again for another flow once this one is over.
	ID uint32
	// Protocol is its IP protocol number.
	Protocol uint8
	// Client came to Frontend, and was sent on to Endpoint.
	Client, Frontend, Endpoint netip.AddrPort
	// Answered: a packet that was no reset came back from the endpoint.
	Answered bool
	// Closed: it is TCP, and a reset has ended it.
	Closed bool
	// Ending: the kernel is about to tell of its end, or has done so.
	Ending bool
	// Sent is from the client to the endpoint, Received what came back. They are zero unless the
	// kernel counts.
	Sent, Received Traffic

	status uint32
}

// Traffic is one direction of a Flow, with the headers of IP.
type Traffic struct{ Packets, Bytes uint64 }

// Refused tells whether the endpoint answered the first packet with a reset. A reset of the client
// ends a connection, too; then nothing has come back.
func (f *Flow) Refused() bool { return f.Closed && !f.Answered && f.Received.Packets > 0 }

// Unanswered tells whether nothing has come back to the client of a TCP connection. For how long it
// does not say: the kernel counts no repetition of the first packet.
func (f *Flow) Unanswered() bool {
	return f.Protocol == unix.IPPROTO_TCP && !f.Answered && !f.Closed && f.Received.Packets == 0
}

// Attributes and numbers of linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h and
// nf_conntrack_tcp.h.
const (
	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaStatus        = 3
	ctaProtoInfo     = 4
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaID            = 12
	ctaStatusMask    = 26

	ctaTupleIP      = 1
	ctaTupleProto   = 2
	ctaIPv4Src      = 1
	ctaIPv4Dst      = 2
	ctaIPv6Src      = 3
	ctaIPv6Dst      = 4
	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaCountersPackets  = 1
	ctaCountersBytes    = 2
	ctaProtoInfoTCP     = 1
	ctaProtoInfoTCPStat = 1

	ctMessageGet    = 1
	ctMessageDelete = 2

	ctMessageGetStats     = 5
	ctaStatsGlobalEntries = 1

	ctStatusAnswered = 1 << 1 // IPS_SEEN_REPLY
	ctStatusDying    = 1 << 9 // IPS_DYING
	ctStateClose     = 8      // TCP_CONNTRACK_CLOSE
)

// parseFlow reads the attributes of a message of connection tracking. It is false for what was not
// translated, and for what is not whole.
func parseFlow(b []byte) (f Flow, ok bool) {
	var orig, reply tuple
	for typ, v := range attrs(b) {
		switch typ {
		case ctaTupleOrig:
			orig = parseTuple(v)
		case ctaTupleReply:
			reply = parseTuple(v)
		case ctaStatus:
			f.status = attrUint32(v)
		case ctaProtoInfo:
			f.Closed = parseTCPState(v) == ctStateClose
		case ctaCountersOrig:
			f.Sent = parseTraffic(v)
		case ctaCountersReply:
			f.Received = parseTraffic(v)
		case ctaID:
			f.ID = attrUint32(v)
		}
	}
	if f.status&ctStatusDNAT == 0 || !orig.src.IsValid() || !orig.dst.IsValid() || !reply.src.IsValid() {
		return f, false
	}
	f.Ending = f.status&ctStatusDying != 0
	f.Protocol, f.Answered = orig.protocol, f.status&ctStatusAnswered != 0
	f.Client, f.Frontend, f.Endpoint = orig.from(), orig.to(), reply.from()
	return f, true
}

// tuple is one direction of a flow.
type tuple struct {
	src, dst         netip.Addr
	protocol         uint8
	srcPort, dstPort uint16
}

func (t *tuple) from() netip.AddrPort { return netip.AddrPortFrom(t.src, t.srcPort) }
func (t *tuple) to() netip.AddrPort   { return netip.AddrPortFrom(t.dst, t.dstPort) }

func parseTuple(b []byte) (t tuple) {
	for typ, v := range attrs(b) {
		switch typ {
		case ctaTupleIP:
			for typ, v := range attrs(v) {
				switch typ {
				case ctaIPv4Src, ctaIPv6Src:
					t.src, _ = netip.AddrFromSlice(v)
				case ctaIPv4Dst, ctaIPv6Dst:
					t.dst, _ = netip.AddrFromSlice(v)
				}
			}
		case ctaTupleProto:
			for typ, v := range attrs(v) {
				switch {
				case typ == ctaProtoNum && len(v) == 1:
					t.protocol = v[0]
				case typ == ctaProtoSrcPort && len(v) == 2:
					t.srcPort = binary.BigEndian.Uint16(v)
				case typ == ctaProtoDstPort && len(v) == 2:
					t.dstPort = binary.BigEndian.Uint16(v)
				}
			}
		}
	}
	return t
}

func parseTraffic(b []byte) (t Traffic) {
	for typ, v := range attrs(b) {
		switch typ {
		case ctaCountersPackets:
			t.Packets = attrUint64(v)
		case ctaCountersBytes:
			t.Bytes = attrUint64(v)
		}
	}
	return t
}

// parseTCPState is 0 for what is not TCP.
func parseTCPState(b []byte) uint8 {
	for typ, v := range attrs(b) {
		if typ != ctaProtoInfoTCP {
			continue
		}
		for typ, v := range attrs(v) {
			if typ == ctaProtoInfoTCPStat && len(v) == 1 {
				return v[0]
			}
		}
	}
	return 0
}
