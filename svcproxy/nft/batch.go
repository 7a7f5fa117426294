package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// maxNest keeps a list of elements below what the two length bytes of an attribute can say.
const maxNest = 60 << 10

// batch is one transaction of nf_tables being written: the kernel takes all of its messages,
// or none.
type batch struct {
	conn  *conn
	table string
	buf   []byte
	last  int // where the last message begins
	list  list
}

// list is the message that elements are being added to: those of one set that go the same way.
type list struct {
	open bool
	typ  uint16
	set  *set
	nest int
}

func newBatch(c *conn, table string) *batch {
	b := &batch{conn: c, table: table}
	b.begin(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	b.end()
	return b
}

func (b *batch) empty() bool { return b.last == 0 }

// begin starts a message; end finishes it.
func (b *batch) begin(typ, flags uint16, family uint8, resource uint16) {
	b.closeList()
	b.last = len(b.buf)
	b.buf = native.AppendUint32(b.buf, 0)
	b.buf = native.AppendUint16(b.buf, typ)
	b.buf = native.AppendUint16(b.buf, unix.NLM_F_REQUEST|flags)
	b.buf = native.AppendUint32(b.buf, b.conn.nextSeq())
	b.buf = native.AppendUint32(b.buf, b.conn.portID)
	b.buf = append(b.buf, family, unix.NFNETLINK_V0)
	b.buf = binary.BigEndian.AppendUint16(b.buf, resource)
}

func (b *batch) end() { native.PutUint32(b.buf[b.last:], uint32(len(b.buf)-b.last)) }

func (b *batch) beginNFT(typ, flags uint16) {
	b.begin(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, b.conn.layout.protocol, 0)
}

// finish closes the transaction and gives it with the sequence number of its last message,
// which asks the kernel for an answer.
func (b *batch) finish() (data []byte, seq uint32) {
	b.closeList()
	seq = native.Uint32(b.buf[b.last+8:])
	native.PutUint16(b.buf[b.last+6:], native.Uint16(b.buf[b.last+6:])|unix.NLM_F_ACK)
	b.begin(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	b.end()
	return b.buf, seq
}

func (b *batch) addTable(comment string) {
	b.beginNFT(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
	b.buf = appendAttrName(b.buf, unix.NFTA_TABLE_NAME, b.table)
	b.buf = appendAttr(b.buf, nftaTableUserdata, userdataComment(comment))
	b.end()
}

func (b *batch) deleteTable(name string) {
	b.beginNFT(unix.NFT_MSG_DELTABLE, 0)
	b.buf = appendAttrName(b.buf, unix.NFTA_TABLE_NAME, name)
	b.end()
}

func (b *batch) addChain(c chain) {
	b.beginNFT(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	b.buf = appendAttrName(b.buf, unix.NFTA_CHAIN_TABLE, b.table)
	b.buf = appendAttrName(b.buf, unix.NFTA_CHAIN_NAME, c.name)
	if h := c.hook; h != nil {
		b.buf = appendAttrName(b.buf, unix.NFTA_CHAIN_TYPE, h.typ)
		var at int
		b.buf, at = beginNest(b.buf, unix.NFTA_CHAIN_HOOK)
		b.buf = appendAttrUint32(b.buf, unix.NFTA_HOOK_HOOKNUM, h.num)
		b.buf = appendAttrUint32(b.buf, unix.NFTA_HOOK_PRIORITY, uint32(h.priority))
		endNest(b.buf, at)
		b.buf = appendAttrUint32(b.buf, unix.NFTA_CHAIN_POLICY, nfAccept)
	}
	b.end()
}

func (b *batch) addRule(chain string, r rule) {
	b.beginNFT(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	b.buf = appendAttrName(b.buf, unix.NFTA_RULE_TABLE, b.table)
	b.buf = appendAttrName(b.buf, unix.NFTA_RULE_CHAIN, chain)
	b.buf = appendAttr(b.buf, unix.NFTA_RULE_USERDATA, userdataComment(r.comment()))
	b.buf = r.appendTo(b.buf)
	b.end()
}

func (b *batch) addSet(s *set) {
	b.beginNFT(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	b.buf = appendAttrName(b.buf, unix.NFTA_SET_TABLE, b.table)
	b.buf = s.appendTo(b.buf)
	b.end()
}

// addElement and deleteElement put elements that follow each other into one message.
func (b *batch) addElement(e element) {
	b.openList(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, sets[e.set])
	b.buf = e.appendTo(b.buf)
}

func (b *batch) deleteElement(e element) {
	b.openList(unix.NFT_MSG_DELSETELEM, 0, sets[e.set])
	e.data = ""
	b.buf = e.appendTo(b.buf)
}

// destroyElement deletes an element if it is there. It takes Linux 6.3.
func (b *batch) destroyElement(e element) {
	b.openList(nftMsgDestroySetElem, 0, sets[e.set])
	e.data = ""
	b.buf = e.appendTo(b.buf)
}

// flushSet deletes all elements of a set.
func (b *batch) flushSet(s *set) {
	b.beginNFT(unix.NFT_MSG_DELSETELEM, 0)
	b.buf = appendAttrName(b.buf, unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
	b.buf = appendAttrName(b.buf, unix.NFTA_SET_ELEM_LIST_SET, s.name)
	b.end()
}

// flushChain deletes all rules of a chain.
func (b *batch) flushChain(name string) { b.flushChainOf(b.table, name) }

func (b *batch) flushChainOf(table, name string) {
	b.beginNFT(unix.NFT_MSG_DELRULE, 0)
	b.buf = appendAttrName(b.buf, unix.NFTA_RULE_TABLE, table)
	b.buf = appendAttrName(b.buf, unix.NFTA_RULE_CHAIN, name)
	b.end()
}

func (b *batch) deleteChain(name string) {
	b.beginNFT(unix.NFT_MSG_DELCHAIN, 0)
	b.buf = appendAttrName(b.buf, unix.NFTA_CHAIN_TABLE, b.table)
	b.buf = appendAttrName(b.buf, unix.NFTA_CHAIN_NAME, name)
	b.end()
}

func (b *batch) openList(typ, flags uint16, s *set) {
	if b.list.open && b.list.typ == typ && b.list.set == s && len(b.buf)-b.list.nest < maxNest {
		return
	}
	b.beginNFT(typ, flags)
	b.buf = appendAttrName(b.buf, unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
	b.buf = appendAttrName(b.buf, unix.NFTA_SET_ELEM_LIST_SET, s.name)
	b.list = list{open: true, typ: typ, set: s}
	b.buf, b.list.nest = beginNest(b.buf, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

func (b *batch) closeList() {
	if b.list.open {
		endNest(b.buf, b.list.nest)
		b.list = list{}
		b.end()
	}
}

// Names that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	nftaTableHandle    = 4
	nftaTableUserdata  = 6
	nftaSetExpr        = 0x11
	nftaSetElemKeyEnd  = 0xa
	nftaSetDescConcat  = 2
	nftaSetFieldLen    = 1
	nftSetConcat       = 0x80
	nftDynsetOpDelete  = 2
	userdataTypeNormal = 0

	nftMsgDestroySetElem = 30
	nfAccept             = 1
)

// userdataComment is a comment as the nft program writes and shows it: type, length, text with
// a zero byte.
func userdataComment(text string) []byte {
	return append(append([]byte{userdataTypeNormal, byte(len(text) + 1)}, text...), 0)
}

// commentOf is the text of userdata that userdataComment made, or "".
func commentOf(userdata []byte) string {
	for len(userdata) >= 2 {
		size := 2 + int(userdata[1])
		if size > len(userdata) {
			return ""
		}
		if userdata[0] == userdataTypeNormal {
			return attrText(userdata[2:size])
		}
		userdata = userdata[size:]
	}
	return ""
}
