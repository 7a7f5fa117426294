package announce

import (
	"net/netip"

	"github.com/mdlayher/ndp"
)

// verdict says what became of a frame, and so why it was not answered.
type verdict uint8

const (
	// verdictMalformed: not a frame that these protocols have.
	verdictMalformed verdict = iota
	// verdictOwnFrame: we sent it ourselves, and a bridge brought it back.
	verdictOwnFrame
	// verdictMisdirected: the frame is to another node, seen because somebody put the interface
	// into promiscuous mode.
	verdictMisdirected
	// verdictNotOurs: about an address that we have nothing to do with.
	verdictNotOurs
	// verdictQuiet: about an address that we have, on this link too, and nothing to say: an
	// answer nobody asked for, or a probe of an address that we are only probing.
	verdictQuiet
	// verdictFenced: we would answer, but are not sure that no other node does.
	verdictFenced
	// verdictAnswered: an answer is to be sent.
	verdictAnswered
	// verdictConflict: somebody else uses the address, or is about to.
	verdictConflict
	// verdictConflictAnswered: somebody is about to take the address, and is told that it is taken.
	verdictConflictAnswered
)

// standing is what this node does about an address at the moment.
type standing uint8

const (
	standingNone standing = iota
	// standingProbing: asking whether somebody has it, answering nothing.
	standingProbing
	// standingFenced: ours, but not now: there is no proof that no other node answers.
	standingFenced
	// standingAnswering: ours.
	standingAnswering
)

// judgeARP decides about one packet that came in on a link whose own address is own.
func judgeARP(p arpPacket, own mac, of func(netip.Addr) standing) (netip.Addr, verdict) {
	switch {
	case p.senderMAC == own:
		return netip.Addr{}, verdictOwnFrame
	case p.destination != own && !p.destination.group():
		return netip.Addr{}, verdictMisdirected
	}
	if of(p.senderIP) != standingNone {
		return p.senderIP, verdictConflict
	}
	is := of(p.targetIP)
	if is == standingNone {
		return netip.Addr{}, verdictNotOurs
	}
	if p.operation != arpRequest {
		return p.targetIP, verdictQuiet
	}
	return p.targetIP, judgeQuestion(is, p.senderIP.IsUnspecified())
}

// judgeNDP does the same for IPv6.
func judgeNDP(p ndpPacket, own mac, of func(netip.Addr) standing) (netip.Addr, verdict) {
	switch {
	case p.source == own:
		return netip.Addr{}, verdictOwnFrame
	case p.destination != own && !p.destination.group():
		return netip.Addr{}, verdictMisdirected
	}
	switch m := p.message.(type) {
	case *ndp.NeighborAdvertisement:
		if of(m.TargetAddress) == standingNone {
			return netip.Addr{}, verdictNotOurs
		}
		return m.TargetAddress, verdictConflict
	case *ndp.NeighborSolicitation:
		is := of(m.TargetAddress)
		if is == standingNone {
			return netip.Addr{}, verdictNotOurs
		}
		return m.TargetAddress, judgeQuestion(is, p.from.IsUnspecified())
	}
	return netip.Addr{}, verdictMalformed
}

// judgeQuestion decides about a question for an address of ours. A probe is a question from
// somebody who has no address yet.
func judgeQuestion(is standing, probe bool) verdict {
	switch {
	case is == standingFenced:
		return verdictFenced
	case is == standingProbing && probe:
		return verdictConflict // two of us at the same time: nobody gets it (RFC 5227 section 2.1.1)
	case is == standingProbing:
		return verdictQuiet
	case probe:
		return verdictConflictAnswered
	}
	return verdictAnswered
}
