// Package handover keeps TCP connections alive when a LoadBalancer address moves to another node.
// Their state is in the connection tracking of the node that had the address; the one that has it
// now passes their packets on, unchanged, and the old node goes on serving them. README.md has the
// picture.
package handover

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TableName is that of both tables, one of family ip and one of ip6: the kernel has no way to pass
// packets on in a table of both.
const TableName = "portico-handover"

// Table is the kernel's part: a few rules, and a map of addresses to nodes. It belongs to the network
// namespace of the thread that called New; after an error, to that of the next Set.
type Table struct {
	mu sync.Mutex
	// conn is nil after an error: what it had on the way, and answers that were not read, went with it.
	conn   *nftables.Conn
	portID uint32 // conn's, in what the kernel tells of its changes
	links  ways
	events *mdnetlink.Conn
	ring   int
	// want is what was set last, have what the kernel has; nil means that nobody knows.
	want, have map[netip.Addr]netip.Addr
	repairs    uint64
	// moved are the maps of the families that have a table.
	moved [2]*nftables.Set
}

// Config of a Table. The zero value works.
type Config struct {
	// Ring is how many nodes at most ask each other about a connection: whoever passes a segment on as
	// the last of so many passes it on to nobody. Zero is MaxRing.
	Ring int
}

// MaxRing is the most that Config.Ring may be.
const MaxRing = 32

// Validate says what is wrong, naming the field.
func (c Config) Validate() error {
	if c.Ring < 0 || c.Ring > MaxRing {
		return fmt.Errorf("handover: Ring: %d nodes; it is 0 to %d", c.Ring, MaxRing)
	}
	return nil
}

// New opens a Table, and writes nothing. It takes CAP_NET_ADMIN.
func New(cfg Config) (*Table, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t := &Table{ring: cmp.Or(cfg.Ring, MaxRing)}
	if err := t.connect(); err != nil {
		return nil, err
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.hangUp()
		return nil, fmt.Errorf("handover: %w", err)
	}
	t.links = links
	if t.events, err = listening(); err != nil {
		t.links.Close()
		t.hangUp()
		return nil, err
	}
	return t, nil
}

// writeBuffer is enough for all that a node has in one transaction, in bytes: it must go with one sendmsg.
const writeBuffer = 4 << 20

// connect opens the kernel, unless it is open.
func (t *Table) connect() (err error) {
	if t.conn != nil {
		return nil
	}
	t.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
		t.portID = c.PID()
		return c.SetWriteBuffer(writeBuffer)
	}))
	if err != nil {
		t.conn = nil
		return fmt.Errorf("handover: %w", err)
	}
	return nil
}

// Close leaves in the kernel what is there. Keep must have returned.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.links.Close()
	_ = t.events.Close()
	t.hangUp()
}

// hangUp ends the connection to the kernel. What the kernel has is not known any more.
func (t *Table) hangUp() {
	if t.conn != nil {
		_ = t.conn.CloseLasting()
	}
	t.conn, t.have = nil, nil
}

// Remove takes everything out of the kernel.
func (t *Table) Remove() error { return t.Set(nil) }

// Set says who knows the connections to an address that this node does not know: the node with an address
// of the same IP family, or, the zero Addr, nobody, and they are reset. Addresses that are not in next are
// left alone. A node that is not on a LAN of this one, as it is now, counts as nobody: a router on the way would send
// the packets back. It is one transaction, or none if nothing changes; after an error, as where the kernel does not tell the
// way to a node, it has what it had.
func (t *Table) Set(next map[netip.Addr]netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	want := make(map[netip.Addr]netip.Addr, len(next))
	near := map[netip.Addr]bool{{}: false}
	for addr, to := range next {
		ok, asked := near[to]
		if !asked {
			var err error
			if ok, err = isNeighbour(t.links, to); err != nil {
				return err // to take it for nobody would reset connections
			}
			near[to] = ok
		}
		if !ok || to.Is4() != addr.Is4() {
			to = unspecified(addr)
		}
		want[addr] = to
	}
	if t.have != nil && maps.Equal(want, t.have) {
		return nil
	}
	known := t.have != nil
	err := t.write(want)
	if err != nil && known { // somebody may have taken the tables away: all anew
		t.hangUp()
		err = t.write(want)
	}
	if err != nil {
		t.hangUp()
		return err
	}
	t.want, t.have = want, want
	return nil
}

func (t *Table) write(want map[netip.Addr]netip.Addr) error {
	if err := t.connect(); err != nil {
		return err
	}
	if err := t.queue(want); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("handover: nftables: %w", err)
	}
	return nil
}

// queue puts what is to be written on the way, an address at a time: what stays is never gone, not even
// for a packet on which rules are at work while the kernel changes them.
func (t *Table) queue(want map[netip.Addr]netip.Addr) error {
	for i := range families {
		f := &families[i]
		if t.have == nil {
			f.remove(t.conn)
			t.moved[i] = nil
		}
		less, more := f.elements(t.have, want), f.elements(want, t.have)
		switch {
		case t.moved[i] != nil:
			err := errors.Join(inChunks(t.conn.SetDeleteElements, t.moved[i], less), inChunks(t.conn.SetAddElements, t.moved[i], more))
			if err != nil {
				return err
			}
		case len(more) > 0:
			var err error
			if t.moved[i], err = f.make(t.conn, t.ring, more); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxElements is how many elements go into one message. In it they are one attribute, which has 64 KiB
// at most; an element of IPv6 takes 52 bytes.
const maxElements = 1000

// inChunks queues elements in as many messages as it takes.
func inChunks(
	queue func(*nftables.Set, []nftables.SetElement) error, set *nftables.Set, all []nftables.SetElement,
) error {
	for some := range slices.Chunk(all, maxElements) {
		if err := queue(set, some); err != nil {
			return err
		}
	}
	return nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// family is what differs between IPv4 and IPv6.
type family struct {
	table       nftables.TableFamily
	address     nftables.SetDatatype
	destination uint32 // offsets in the network header
	ttl         uint32
	length      uint32
}

var families = [2]family{
	{nftables.TableFamilyIPv4, nftables.TypeIPAddr, 16, 8, 4},
	{nftables.TableFamilyIPv6, nftables.TypeIP6Addr, 24, 7, 16},
}

// Registers: the address of a node is where dup looks for it.
const (
	word    = unix.NFT_REG_1
	address = unix.NFT_REG_2
)

// beforeServices is the priority of the hook: after connection tracking (-200), and before Services are
// decided (-110).
const beforeServices = -120

// elements are those of the family that a has and b has not.
func (f *family) elements(a, b map[netip.Addr]netip.Addr) (all []nftables.SetElement) {
	for addr, to := range a {
		if addr.Is4() == (f.length == 4) && b[addr] != to {
			all = append(all, nftables.SetElement{Key: addr.AsSlice(), Val: to.AsSlice()})
		}
	}
	return all
}

// remove deletes the table, whether or not there is one.
func (f *family) remove(c *nftables.Conn) {
	c.DelTable(c.AddTable(&nftables.Table{Family: f.table, Name: TableName}))
}

// make makes the table of one in a ring of so many, and gives its map.
func (f *family) make(c *nftables.Conn, ring int, elements []nftables.SetElement) (*nftables.Set, error) {
	table := c.AddTable(&nftables.Table{Family: f.table, Name: TableName})
	moved := &nftables.Set{Table: table, Name: "moved", IsMap: true, KeyType: f.address, DataType: f.address}
	if err := errors.Join(c.AddSet(moved, nil), inChunks(c.SetAddElements, moved, elements)); err != nil {
		return nil, err
	}
	seen := f.seen(table)
	if err := c.AddSet(seen, nil); err != nil {
		return nil, err
	}
	addCounters(c, table)
	strangers := c.AddChain(&nftables.Chain{Table: table, Name: "strangers"})
	for _, rule := range f.strangers(moved, seen, ring) {
		c.AddRule(&nftables.Rule{Table: table, Chain: strangers, Exprs: rule})
	}
	priority := nftables.ChainPriority(beforeServices)
	entry := c.AddChain(&nftables.Chain{
		Table: table, Name: "prerouting", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: &priority,
	})
	// A segment that begins no connection and belongs to none that is known.
	c.AddRule(&nftables.Rule{Table: table, Chain: entry, Exprs: segments(expr.CtStateBitNEW, flagSYN|flagACK, expr.CmpOpNeq, flagSYN)})
	// The end of one. Other segments of which connection tracking makes nothing may be stray ones of a
	// connection that it does know: those are not for us.
	c.AddRule(&nftables.Rule{Table: table, Chain: entry, Exprs: segments(expr.CtStateBitINVALID, flagFIN|flagRST, expr.CmpOpNeq, 0)})
	return moved, nil
}

// Flags of a TCP header (RFC 9293 section 3.1), of which they are byte 13.
const (
	flagsAt = 13
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// segments sends those of a state and with some flags to the chain "strangers".
func segments(state uint32, mask byte, op expr.CmpOp, flags byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word},
		&expr.Cmp{Op: expr.CmpOpEq, Register: word, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Ct{Key: expr.CtKeySTATE, Register: word},
		&expr.Bitwise{SourceRegister: word, DestRegister: word, Len: 4, Mask: native(state), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: word, Data: native(0)},
		&expr.Payload{DestRegister: word, Base: expr.PayloadBaseTransportHeader, Offset: flagsAt, Len: 1},
		&expr.Bitwise{SourceRegister: word, DestRegister: word, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: word, Data: []byte{flags}},
		&expr.Verdict{Kind: expr.VerdictJump, Chain: "strangers"},
	}
}

// node finds who knows connections to the packet's destination; an address that is not in moved ends the rule.
func (f *family) node(moved *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: address, Base: expr.PayloadBaseNetworkHeader, Offset: f.destination, Len: f.length},
		&expr.Lookup{SetName: moved.Name, SetID: moved.ID, SourceRegister: address, DestRegister: address, IsDestRegSet: true},
	}
}

// spentTTL is what is left of the TTL (IPv6: hop limit) of a segment that everybody in the ring was asked about. It
// is passed on with as much more as there are nodes, if it comes with more, and has one less after each pass. What is left takes
// it from the node that knows it to the endpoint; and one that comes with no more than that from its client, from so far
// away, cannot be told from it, and is not passed on.
const spentTTL = 8

// strangers are the rules for segments of connections that are not known here.
func (f *family) strangers(moved, seen *nftables.Set, ring int) [][]expr.Any {
	passedTTL := byte(spentTTL + ring)
	reset := []expr.Any{count(countReset), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	ttl := &expr.Payload{DestRegister: word, Base: expr.PayloadBaseNetworkHeader, Offset: f.ttl, Len: 1}
	known := f.node(moved)
	return [][]expr.Any{
		// Nobody knows it: its client need not wait.
		slices.Concat(known, []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: address, Data: make([]byte, f.length)}}, reset),
		slices.Concat(known, []expr.Any{ttl, &expr.Cmp{Op: expr.CmpOpLte, Register: word, Data: []byte{spentTTL}}}, reset),
		slices.Concat(known, []expr.Any{
			ttl, &expr.Cmp{Op: expr.CmpOpGt, Register: word, Data: []byte{passedTTL}},
			&expr.Immediate{Register: word, Data: []byte{passedTTL}}, f.writeTTL(),
		}),
		// If all of it has no room, the rule ends there, and the next ones do their work all the same.
		slices.Concat(known, f.connection(), []expr.Any{
			&expr.Lookup{SetName: seen.Name, SetID: seen.ID, SourceRegister: tuple, Invert: true},
			&expr.Dynset{SetName: seen.Name, SetID: seen.ID, SrcRegKey: tuple, Operation: unix.NFT_DYNSET_OP_ADD},
			count(countConnections),
		}),
		slices.Concat(known, f.connection(), []expr.Any{
			&expr.Dynset{SetName: seen.Name, SetID: seen.ID, SrcRegKey: tuple, Operation: unix.NFT_DYNSET_OP_UPDATE},
		}),
		// As it is, to the other node. What is sent is a copy, of which connection tracking takes no note.
		slices.Concat(known, []expr.Any{count(countPassed), &expr.Dup{RegAddr: address}, &expr.Verdict{Kind: expr.VerdictDrop}}),
	}
}

const (
	// tuple is where the addresses and ports of a connection are, one after the other, in registers of 4 bytes each.
	tuple = unix.NFT_REG32_00
	// maxSeen connections are remembered as counted, for seenFor after the last segment.
	maxSeen = 1 << 14
	seenFor = time.Hour
)

// seen are the connections that were counted.
func (f *family) seen(table *nftables.Table) *nftables.Set {
	return &nftables.Set{
		Table: table, Name: "seen", Dynamic: true, HasTimeout: true, Timeout: seenFor, Size: maxSeen,
		KeyType: nftables.MustConcatSetType(f.address, f.address, nftables.TypeInetService, nftables.TypeInetService),
	}
}

// connection loads which one a segment is of: source, destination, and both ports.
func (f *family) connection() []expr.Any {
	network := func(n, offset uint32) expr.Any {
		return &expr.Payload{DestRegister: tuple + n, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.length}
	}
	port := func(n, offset uint32) expr.Any {
		return &expr.Payload{DestRegister: tuple + n, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
	}
	words := f.length / 4
	return []expr.Any{network(0, f.destination-f.length), network(words, f.destination), port(2*words, 0), port(2*words+1, 2)}
}

func (f *family) writeTTL() expr.Any {
	p := &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: word, Base: expr.PayloadBaseNetworkHeader, Offset: f.ttl, Len: 1,
	}
	if f.length == 4 {
		p.CsumType, p.CsumOffset = expr.CsumTypeInet, 10
	}
	return p
}
