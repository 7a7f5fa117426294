package announce

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
)

var (
	ownMAC   = mac{2, 0, 0, 0, 0, 1}
	otherMAC = mac{2, 0, 0, 0, 0, 2}
	vip4     = netip.MustParseAddr("192.0.2.10")
	vip6     = netip.MustParseAddr("2001:db8::10")
	host4    = netip.MustParseAddr("192.0.2.7")
	host6    = netip.MustParseAddr("2001:db8::7")
)

// What arping -I eth0 192.0.2.10 sends, byte by byte.
const arpingFrame = "ffffffffffff 020000000002 0806 0001 0800 06 04 0001 020000000002 c0000207 000000000000 c000020a"

func frameOf(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseARP(t *testing.T) {
	frame := frameOf(t, arpingFrame)
	want := arpPacket{
		destination: broadcastMAC, source: otherMAC, operation: arpRequest,
		senderMAC: otherMAC, senderIP: host4, targetIP: vip4,
	}
	for _, tt := range []struct {
		name  string
		frame []byte
		err   error
	}{
		{"bare", frame, nil},
		{"padded to 60 bytes", append(bytes.Clone(frame), make([]byte, 18)...), nil},
		{"empty", nil, errShort},
		{"one byte missing", frame[:41], errShort},
		{"IPv6 EtherType", patched(frame, 12, 0x86, 0xdd), errNotOurs},
		{"not Ethernet", patched(frame, 14, 0, 6), errNotOurs},
		{"not IPv4", patched(frame, 16, 0x86, 0xdd), errNotOurs},
		{"long hardware address", patched(frame, 18, 8), errNotOurs},
		{"long protocol address", patched(frame, 19, 16), errNotOurs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseARP(tt.frame)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	if got := want.marshal(); !bytes.Equal(got, frame) {
		t.Errorf("marshal gives %x, want %x", got, frame)
	}
}

func patched(frame []byte, at int, with ...byte) []byte {
	b := bytes.Clone(frame)
	copy(b[at:], with)
	return b
}

func TestParseNDP(t *testing.T) {
	solicitation := ndpPacket{
		destination: multicastMAC(solicitedNode(vip6)), source: otherMAC, from: host6, to: solicitedNode(vip6),
		message: &ndp.NeighborSolicitation{TargetAddress: vip6, Options: []ndp.Option{linkLayer(ndp.Source, otherMAC)}},
	}
	frame, err := solicitation.marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		frame []byte
		err   error
	}{
		{"good", frame, nil},
		{"padded", append(bytes.Clone(frame), 0, 0, 0), nil},
		{"empty", nil, errShort},
		{"cut in the header", frame[:40], errShort},
		{"cut in the option", frame[:len(frame)-1], errShort},
		{"came over a router", patched(frame, 21, 254), errNotOurs},
		{"not IPv6", patched(frame, 14, 0x45), errNotOurs},
		{"UDP", patched(frame, 20, 17), errNotOurs},
		{"router advertisement", patched(frame, 54, 134), errNotOurs},
		{"code 1", patched(frame, 55, 1), errNotOurs},
		{"one bit changed", patched(frame, 70, 0xff), errChecksum},
		{"length of nothing", patched(frame, 18, 0, 0), errShort},
		{"length of everything", patched(frame, 18, 0xff, 0xff), errNotOurs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseNDP(tt.frame)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil {
				if diff := cmp.Diff(solicitation, got, cmp.AllowUnexported(ndpPacket{}), cmp.Comparer(netipEqual)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func netipEqual(a, b netip.Addr) bool { return a == b }

func TestJudgeARP(t *testing.T) {
	request := arpPacket{destination: broadcastMAC, source: otherMAC, operation: arpRequest, senderMAC: otherMAC, senderIP: host4, targetIP: vip4}
	with := func(change func(p *arpPacket)) arpPacket {
		p := request
		change(&p)
		return p
	}
	for _, tt := range []struct {
		name string
		p    arpPacket
		is   standing
		want verdict
	}{
		{"request", request, standingAnswering, verdictAnswered},
		{"request to us alone, as a client asks again", with(func(p *arpPacket) { p.destination = ownMAC }), standingAnswering, verdictAnswered},
		{"request to another node", with(func(p *arpPacket) { p.destination = otherMAC }), standingAnswering, verdictMisdirected},
		{"our own, come back", with(func(p *arpPacket) { p.senderMAC = ownMAC }), standingAnswering, verdictOwnFrame},
		{"not ours", request, standingNone, verdictNotOurs},
		{"fenced", request, standingFenced, verdictFenced},
		{"probing", request, standingProbing, verdictQuiet},
		{"reply about it", with(func(p *arpPacket) { p.operation = arpReply }), standingAnswering, verdictQuiet},
		{"operation of RARP", with(func(p *arpPacket) { p.operation = 3 }), standingAnswering, verdictQuiet},
		{"probe", with(func(p *arpPacket) { p.senderIP = netip.IPv4Unspecified() }), standingAnswering, verdictConflictAnswered},
		{"probe while we probe", with(func(p *arpPacket) { p.senderIP = netip.IPv4Unspecified() }), standingProbing, verdictConflict},
		{"announcement of another", with(func(p *arpPacket) { p.senderIP = vip4 }), standingAnswering, verdictConflict},
		{"answer to our probe", with(func(p *arpPacket) { p.senderIP, p.operation = vip4, arpReply }), standingProbing, verdictConflict},
		{"another speaks for what we may not", with(func(p *arpPacket) { p.senderIP = vip4 }), standingFenced, verdictConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := judgeARP(tt.p, ownMAC, standingOf(vip4, tt.is)); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func standingOf(addr netip.Addr, is standing) func(netip.Addr) standing {
	return func(a netip.Addr) standing {
		if a == addr {
			return is
		}
		return standingNone
	}
}

func TestJudgeNDP(t *testing.T) {
	question := ndpPacket{destination: multicastMAC(solicitedNode(vip6)), source: otherMAC, from: host6, to: solicitedNode(vip6), message: &ndp.NeighborSolicitation{TargetAddress: vip6}}
	detection := question
	detection.from = netip.IPv6Unspecified()
	own, misdirected := question, question
	own.source, misdirected.destination = ownMAC, mac{2, 0, 0, 0, 0, 9}
	unicast := question
	unicast.destination, unicast.to = ownMAC, vip6
	advertisement := ndpUnsolicited(vip6, otherMAC)
	for _, tt := range []struct {
		name string
		p    ndpPacket
		is   standing
		want verdict
	}{
		{"solicitation", question, standingAnswering, verdictAnswered},
		{"solicitation to us alone", unicast, standingAnswering, verdictAnswered},
		{"solicitation to another node", misdirected, standingAnswering, verdictMisdirected},
		{"our own, come back", own, standingAnswering, verdictOwnFrame},
		{"not ours", question, standingNone, verdictNotOurs},
		{"fenced", question, standingFenced, verdictFenced},
		{"probing", question, standingProbing, verdictQuiet},
		{"duplicate address detection of another", detection, standingAnswering, verdictConflictAnswered},
		{"the same while we probe", detection, standingProbing, verdictConflict},
		{"advertisement of another", advertisement, standingAnswering, verdictConflict},
		{"answer to our probe", advertisement, standingProbing, verdictConflict},
		{"advertisement about something else", advertisement, standingNone, verdictNotOurs},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := judgeNDP(tt.p, ownMAC, standingOf(vip6, tt.is)); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestNDPAnswers(t *testing.T) {
	detection := ndpPacket{destination: multicastMAC(solicitedNode(vip6)), source: otherMAC, from: netip.IPv6Unspecified(), to: solicitedNode(vip6), message: &ndp.NeighborSolicitation{TargetAddress: vip6}}
	if a := ndpAnswer(detection, vip6, ownMAC); a.to != allNodes || a.message.(*ndp.NeighborAdvertisement).Solicited {
		t.Errorf("duplicate address detection is answered by %+v; everybody must hear it, and nobody asked", a)
	}
	question := detection
	question.from = host6
	if a := ndpAnswer(question, vip6, ownMAC); a.to != host6 || a.destination != otherMAC || !a.message.(*ndp.NeighborAdvertisement).Solicited {
		t.Errorf("a solicitation is answered by %+v", a)
	}
}

func TestSolicitedNode(t *testing.T) {
	if got := solicitedNode(netip.MustParseAddr("2001:db8::12:3456")); got != netip.MustParseAddr("ff02::1:ff12:3456") {
		t.Errorf("got %s", got)
	}
	if got, want := multicastMAC(netip.MustParseAddr("ff02::1:ff12:3456")), (mac{0x33, 0x33, 0xff, 0x12, 0x34, 0x56}); got != want {
		t.Errorf("got %x", got)
	}
}

// Whatever is read is written back as the same bytes, padding apart.
func FuzzARP(f *testing.F) {
	f.Add(arpProbe(vip4, ownMAC).marshal())
	f.Add(arpGratuitous(vip4, ownMAC, arpReply).marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := parseARP(frame)
		if err != nil {
			return
		}
		if got := p.marshal(); !bytes.Equal(got, frame[:len(got)]) {
			t.Errorf("%x became %x", frame, got)
		}
		judgeARP(p, ownMAC, standingOf(vip4, standingAnswering))
	})
}

// Whatever is read can be answered, and the answer read again.
func FuzzNDP(f *testing.F) {
	for _, p := range []ndpPacket{ndpProbe(vip6, ownMAC), ndpUnsolicited(vip6, otherMAC)} {
		frame, err := p.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		fixChecksum(frame)
		p, err := parseNDP(frame)
		if err != nil {
			return
		}
		addr, v := judgeNDP(p, ownMAC, func(netip.Addr) standing { return standingAnswering })
		if v != verdictAnswered && v != verdictConflictAnswered {
			return
		}
		answer, err := ndpAnswer(p, addr, ownMAC).marshal()
		if err != nil {
			return // a target that no advertisement can name
		}
		if _, err := parseNDP(answer); err != nil {
			t.Errorf("our own answer: %v", err)
		}
	})
}

// fixChecksum lets the fuzzer through to what is behind the checksum.
func fixChecksum(frame []byte) {
	if len(frame) < icmpTypeOffset+8 {
		return
	}
	b := frame[ethernetLen:]
	n := int(b[4])<<8 | int(b[5])
	if n < 8 || len(b) < ipv6Len+n {
		return
	}
	body := b[ipv6Len : ipv6Len+n]
	body[2], body[3] = 0, 0
	pseudo := append(bytes.Clone(b[8:40]), 0, 0, 0, 0, 0, 0, 0, protocolICMPv6)
	sum := checksum(pseudo, body)
	body[2], body[3] = byte(sum>>8), byte(sum)
}
