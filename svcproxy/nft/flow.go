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
	ctStateSYNSent   = 1      // TCP_CONNTRACK_SYN_SENT
	ctStateClose     = 8      // TCP_CONNTRACK_CLOSE
)

// tracked is what a message of connection tracking says of a flow.
type tracked struct {
	orig, reply    tuple
	status, id     uint32
	state          uint8 // of TCP
	sent, received Traffic
}

// parseTracked reads the attributes of such a message. What is not there, or not whole, is zero.
func parseTracked(b []byte) (t tracked) {
	for typ, v := range attrs(b) {
		switch typ {
		case ctaTupleOrig:
			t.orig = parseTuple(v)
		case ctaTupleReply:
			t.reply = parseTuple(v)
		case ctaStatus:
			t.status = attrUint32(v)
		case ctaProtoInfo:
			t.state = parseTCPState(v)
		case ctaCountersOrig:
			t.sent = parseTraffic(v)
		case ctaCountersReply:
			t.received = parseTraffic(v)
		case ctaID:
			t.id = attrUint32(v)
		}
	}
	return t
}

// parseFlow reads the attributes of a message of connection tracking. It is false for what was not
// translated, and for what is not whole.
func parseFlow(b []byte) (Flow, bool) {
	t := parseTracked(b)
	if t.status&ctStatusDNAT == 0 || !t.orig.src.IsValid() || !t.orig.dst.IsValid() || !t.reply.src.IsValid() {
		return Flow{}, false
	}
	return Flow{
		ID: t.id, Protocol: t.orig.protocol,
		Client: t.orig.from(), Frontend: t.orig.to(), Endpoint: t.reply.from(),
		Answered: t.status&ctStatusAnswered != 0, Closed: t.state == ctStateClose,
		Ending: t.status&ctStatusDying != 0, status: t.status,
		Sent: t.sent, Received: t.received,
	}, true
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
