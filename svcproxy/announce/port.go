package announce

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
)

// maxGroups is how many multicast groups one socket joins: the kernel takes their memory from
// the socket's own allowance (net.core.optmem_max), which is small on old ones.
const maxGroups = 128

// port sends and receives on one link.
type port struct {
	link
	arp, ndp *packet.Conn
	groups   groupMembers
	// closed is for those who read: what a closed socket answers them is not always the same error, and none of them
	// is that of package net.
	closed chan struct{}
}

// openPort opens the two packet sockets. Both see only what arrived on this very link: frames
// with a VLAN tag pass the sockets of the link below as well, and are not for it.
func openPort(l link) (*port, error) {
	ifi := &net.Interface{Index: l.index, Name: l.name, HardwareAddr: net.HardwareAddr(l.mac[:])}
	arp, err := listen(ifi, etherTypeARP, nil)
	if err != nil {
		return nil, fmt.Errorf("announce: ARP on %s: %w", l.name, err)
	}
	ndp, err := listen(ifi, etherTypeIPv6, neighborDiscovery)
	if err != nil {
		arp.Close()
		return nil, fmt.Errorf("announce: NDP on %s: %w", l.name, err)
	}
	return &port{link: l, arp: arp, ndp: ndp, groups: groupMembers{ifi: ifi}, closed: make(chan struct{})}, nil
}

// neighborDiscovery lets solicitations and advertisements pass: next header ICMPv6, hop limit
// 255, type 135 or 136. An extension header before ICMPv6 is not expected, and not answered.
var neighborDiscovery = []bpf.Instruction{
	bpf.LoadAbsolute{Off: ethernetLen + 6, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMPv6, SkipTrue: 5},
	bpf.LoadAbsolute{Off: ethernetLen + 7, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ndpHopLimit, SkipTrue: 3},
	bpf.LoadAbsolute{Off: icmpTypeOffset, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpNeighborSol, SkipTrue: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpNeighborAdv, SkipTrue: 1},
	bpf.RetConstant{Val: 0},
}

func listen(ifi *net.Interface, etherType int, match []bpf.Instruction) (*packet.Conn, error) {
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(ifi.Index), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	program = append(program, match...)
	program = append(program, bpf.RetConstant{Val: 0xffff})
	filter, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	return packet.Listen(ifi, packet.Raw, etherType, &packet.Config{Filter: filter})
}

func (p *port) close() {
	close(p.closed)
	p.arp.Close()
	p.ndp.Close()
	p.groups.close()
}

// read gives each frame to take until the port is closed.
func (p *port) read(conn net.PacketConn, take func(frame []byte)) {
	buf := make([]byte, icmpTypeOffset+maxNDPLen)
	for patience := time.Duration(0); ; {
		n, _, err := conn.ReadFrom(buf)
		if err == nil {
			patience = 0
			take(buf[:n])
			continue
		}
		// ENETDOWN, mostly: the link went, and its port is closed in a moment.
		patience = min(max(2*patience, time.Millisecond), time.Second)
		select {
		case <-p.closed:
			return
		case <-time.After(patience):
		}
	}
}

func (p *port) sendARP(a arpPacket) error {
	_, err := p.arp.WriteTo(a.marshal(), &packet.Addr{HardwareAddr: net.HardwareAddr(a.destination[:])})
	return err
}

func (p *port) sendNDP(n ndpPacket) error {
	frame, err := n.marshal()
	if err != nil {
		return err
	}
	_, err = p.ndp.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(n.destination[:])})
	return err
}

// gratuitous tells the LAN that addr is here.
func (p *port) gratuitous(addr netip.Addr) error {
	if addr.Is6() {
		return p.sendNDP(ndpUnsolicited(addr, p.mac))
	}
	return errors.Join(
		p.sendARP(arpGratuitous(addr, p.mac, arpRequest)),
		p.sendARP(arpGratuitous(addr, p.mac, arpReply)))
}

// probe asks whether somebody else has addr.
func (p *port) probe(addr netip.Addr) error {
	if addr.Is6() {
		return p.sendNDP(ndpProbe(addr, p.mac))
	}
	return p.sendARP(arpProbe(addr, p.mac))
}

// groupMembers joins multicast groups through ordinary sockets, so that the kernel tells the
// switches (MLD), which forward nothing otherwise.
type groupMembers struct {
	ifi    *net.Interface
	joined map[netip.Addr]*groupSocket
	open   []*groupSocket
}

type groupSocket struct {
	conn *ipv6.PacketConn
	held int
}

// set joins and leaves until exactly these groups are joined.
func (g *groupMembers) set(want map[netip.Addr]bool) error {
	var errs []error
	for group, socket := range g.joined {
		if !want[group] {
			errs = append(errs, socket.conn.LeaveGroup(g.ifi, &net.UDPAddr{IP: group.AsSlice()}))
			socket.held--
			delete(g.joined, group)
		}
	}
	for group := range want {
		if g.joined[group] == nil {
			errs = append(errs, g.join(group))
		}
	}
	return errors.Join(errs...)
}

func (g *groupMembers) join(group netip.Addr) error {
	socket, err := g.roomy()
	if err != nil {
		return fmt.Errorf("announce: joining %s on %s: %w", group, g.ifi.Name, err)
	}
	if err := socket.conn.JoinGroup(g.ifi, &net.UDPAddr{IP: group.AsSlice()}); err != nil {
		return fmt.Errorf("announce: joining %s on %s: %w", group, g.ifi.Name, err)
	}
	socket.held++
	if g.joined == nil {
		g.joined = map[netip.Addr]*groupSocket{}
	}
	g.joined[group] = socket
	return nil
}

func (g *groupMembers) roomy() (*groupSocket, error) {
	for _, s := range g.open {
		if s.held < maxGroups {
			return s, nil
		}
	}
	// No packet ever comes here: the port is one that the kernel picked.
	conn, err := net.ListenPacket("udp6", "[::1]:0") //nolint:noctx // it neither resolves nor waits
	if err != nil {
		return nil, err
	}
	s := &groupSocket{conn: ipv6.NewPacketConn(conn)}
	g.open = append(g.open, s)
	return s, nil
}

func (g *groupMembers) close() {
	for _, s := range g.open {
		s.conn.Close()
	}
	g.open, g.joined = nil, nil
}
