package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Fault is a way in which the kernel fails to make a transaction of nf_tables.
type Fault int

// All the Faults. Where the kernel itself can be brought to fail, it is.
const (
	// Interrupted: a signal came before the kernel took anything (EINTR).
	Interrupted Fault = iota
	// NoBuffers: there was no room to send it (ENOBUFS).
	NoBuffers
	// NoMemory: the kernel answers ENOMEM to the beginning of the transaction, and nothing else.
	NoMemory
	// Busy: one of its messages is refused with EBUSY (or ENOENT, if its table is not there yet), and all of it is undone.
	Busy
	// Missing: one is refused with ENOENT.
	Missing
	// Taken: somebody else has just deleted or added, otherwise, what it deletes or adds (ENOENT, EEXIST).
	Taken
	// LostAnswer: it is made, and the answer did not fit (ENOBUFS).
	LostAnswer
	// NoAnswer: it is made, and no answer ever comes.
	NoAnswer
	// MadeAndRefused: it is made, and the answer is an error.
	MadeAndRefused
	// CutList: a list is said to have changed while it was read.
	CutList
	// LostList: the kernel could not keep all of a list (ENOBUFS).
	LostList
	// Faults is how many there are.
	Faults
)

// Socket is one of netlink, as package nft has it.
type Socket interface {
	Send(b []byte) error
	Receive(b []byte) (n int, err error)
}

// Saboteur makes one of so many transactions fail, in all ways by turns, and of lists as many.
type Saboteur struct {
	// Every is how many there are for each that fails; 0: none fails.
	Every int

	mu                  sync.Mutex
	transactions, lists int
	nextWrite, nextRead int
	done                [Faults]int
}

// Done is how often each Fault was.
func (s *Saboteur) Done() [Faults]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// Transactions are all that were asked for.
func (s *Saboteur) Transactions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transactions
}

// Stop lets all that comes be made.
func (s *Saboteur) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Every = 0
}

// Between puts the Saboteur between a program and the kernel. It is called in the network namespace
// of that socket.
func (s *Saboteur) Between(kernel Socket) *SabotagedSocket {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		panic(fmt.Sprintf("netlab: a second netlink socket: %v", err))
	}
	return &SabotagedSocket{kernel: kernel, by: s, other: fd}
}

// SabotagedSocket is a Socket some of whose transactions fail.
type SabotagedSocket struct {
	kernel Socket
	by     *Saboteur
	// other is the socket of somebody else.
	other int
	// answers are what Receive gives before it asks the kernel.
	answers []answer
	cutList bool
}

type answer struct {
	data []byte
	err  error
}

// Send implements Socket.
func (s *SabotagedSocket) Send(b []byte) error {
	s.answers, s.cutList = nil, false
	f, ok := s.by.next(b)
	if !ok {
		return s.kernel.Send(b)
	}
	return s.sabotage(f, b)
}

// next tells which Fault this one has.
func (s *Saboteur) next(b []byte) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count, turn, first, kinds := &s.lists, &s.nextRead, CutList, int(Faults-CutList)
	if isTransaction(b) {
		count, turn, first, kinds = &s.transactions, &s.nextWrite, Interrupted, int(CutList)
	}
	*count++
	if s.Every == 0 || *count%s.Every != 0 {
		return 0, false
	}
	f := first + Fault(*turn%kinds)
	*turn++
	return f, true
}

func (s *SabotagedSocket) sabotage(f Fault, b []byte) error {
	switch f {
	case Interrupted:
		s.count(f)
		return unix.EINTR
	case NoBuffers:
		s.count(f)
		return unix.ENOBUFS
	case NoMemory:
		s.count(f)
		s.answers = []answer{{data: refusal(b, unix.ENOMEM)}, {err: unix.EAGAIN}}
		return nil
	case Busy:
		s.count(f)
		return s.kernel.Send(withMessage(b, deleteChain(tableOf(b), "reject")))
	case Missing:
		s.count(f)
		return s.kernel.Send(withMessage(b, deleteChain(tableOf(b), "nobody-has-this")))
	case Taken:
		if m := contrary(b); m != nil && s.byOther(m) == nil {
			s.count(f)
		}
		return s.kernel.Send(b)
	case CutList:
		s.count(f)
		s.cutList = true
		return s.kernel.Send(b)
	case LostList:
		s.count(f)
		s.answers = []answer{{err: unix.ENOBUFS}}
		return s.kernel.Send(b)
	}
	s.count(f)
	return s.madeButUnheard(f, b)
}

func (s *SabotagedSocket) madeButUnheard(f Fault, b []byte) error {
	if err := s.kernel.Send(b); err != nil {
		return err
	}
	for buf := make([]byte, 1<<18); ; {
		if _, err := s.kernel.Receive(buf); errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	switch f {
	case LostAnswer:
		s.answers = []answer{{err: unix.ENOBUFS}}
	case NoAnswer:
		s.answers = []answer{{err: unix.EAGAIN}}
	case MadeAndRefused:
		s.answers = []answer{{data: refusal(b, unix.EBUSY)}}
	}
	return nil
}

func (s *SabotagedSocket) count(f Fault) {
	s.by.mu.Lock()
	defer s.by.mu.Unlock()
	s.by.done[f]++
}

// Receive implements Socket.
func (s *SabotagedSocket) Receive(b []byte) (int, error) {
	if len(s.answers) > 0 {
		a := s.answers[0]
		s.answers = s.answers[1:]
		return copy(b, a.data), a.err
	}
	n, err := s.kernel.Receive(b)
	if s.cutList && err == nil {
		flags := native.Uint16(b[6:])
		native.PutUint16(b[6:], flags|unix.NLM_F_DUMP_INTR)
		s.cutList = false
	}
	return n, err
}

// byOther makes a transaction of one message as somebody else.
func (s *SabotagedSocket) byOther(m []byte) error {
	if err := unix.Sendto(s.other, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var failed error
	for buf := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(s.other, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return failed
		}
		if err == nil && n >= unix.NLMSG_HDRLEN+4 {
			if code := int32(native.Uint32(buf[unix.NLMSG_HDRLEN:])); code != 0 {
				failed = unix.Errno(-code)
			}
		}
	}
}

// What follows is as much of netlink as it takes to spoil it.

var native = binary.NativeEndian

const (
	msgHead  = unix.NLMSG_HDRLEN + 4 // with struct nfgenmsg
	nftables = unix.NFNL_SUBSYS_NFTABLES << 8
)

func isTransaction(b []byte) bool {
	return len(b) >= msgHead && native.Uint16(b[4:]) == unix.NFNL_MSG_BATCH_BEGIN
}

// refusal is an NLMSG_ERROR about the first message of a transaction.
func refusal(b []byte, why unix.Errno) []byte {
	m := native.AppendUint32(nil, unix.NLMSG_HDRLEN+4+unix.NLMSG_HDRLEN)
	m = native.AppendUint16(m, unix.NLMSG_ERROR)
	m = native.AppendUint16(m, unix.NLM_F_CAPPED)
	m = append(m, b[8:16]...)
	m = native.AppendUint32(m, uint32(-int32(why)))
	return append(m, b[:unix.NLMSG_HDRLEN]...)
}

// eachMessage walks the messages of b until f is satisfied.
func eachMessage(b []byte, f func(m []byte) (enough bool)) {
	for len(b) >= msgHead {
		size := int(native.Uint32(b))
		if size < msgHead || size > len(b) || f(b[:size]) {
			return
		}
		b = b[min((size+3)&^3, len(b)):]
	}
}

// eachAttribute walks the attributes of b until f is satisfied.
func eachAttribute(b []byte, f func(typ uint16, value []byte) (enough bool)) {
	for len(b) >= unix.SizeofNlAttr {
		size := int(native.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) || f(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:size]) {
			return
		}
		b = b[min((size+3)&^3, len(b)):]
	}
}

func attribute(b []byte, typ uint16) (found []byte) {
	eachAttribute(b, func(t uint16, v []byte) bool {
		if t == typ {
			found = v
		}
		return t == typ
	})
	return found
}

func appendAttribute(b []byte, typ uint16, value []byte) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = native.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// message is one of nf_tables for the family inet.
func message(typ, flags uint16, attributes []byte) []byte {
	m := native.AppendUint32(nil, uint32(msgHead+len(attributes)))
	m = native.AppendUint16(m, typ)
	m = native.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = append(m, make([]byte, 8)...)
	m = append(m, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
	return append(m, attributes...)
}

// batchEdge is the message that begins or ends a transaction.
func batchEdge(typ uint16) []byte {
	m := message(typ, 0, nil)
	m[unix.NLMSG_HDRLEN] = unix.AF_UNSPEC
	binary.BigEndian.PutUint16(m[unix.NLMSG_HDRLEN+2:], unix.NFNL_SUBSYS_NFTABLES)
	return m
}

// tableOf is the name of the first table that is written to, with the zero byte at its end.
func tableOf(b []byte) (name []byte) {
	eachMessage(b, func(m []byte) bool {
		if native.Uint16(m[4:])&0xff00 == nftables {
			name = attribute(m[msgHead:], 1) // the table comes first everywhere
		}
		return name != nil
	})
	return name
}

func deleteChain(table []byte, name string) []byte {
	a := appendAttribute(nil, unix.NFTA_CHAIN_TABLE, table)
	return message(nftables|unix.NFT_MSG_DELCHAIN, 0, appendAttribute(a, unix.NFTA_CHAIN_NAME, append([]byte(name), 0)))
}

// withMessage is the transaction with another message before its first one, under the sequence number
// of that.
func withMessage(b, m []byte) []byte {
	begin := int(native.Uint32(b))
	m = append([]byte(nil), m...)
	copy(m[8:16], b[begin+8:])
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return slices.Concat(b[:begin], m, b[begin:])
}

// contrary is the transaction of somebody who takes the first element that b deletes, or adds it with
// other data; nil if there is none in b.
func contrary(b []byte) (transaction []byte) {
	eachMessage(b, func(m []byte) bool {
		typ := native.Uint16(m[4:])
		if typ != nftables|unix.NFT_MSG_NEWSETELEM && typ != nftables|unix.NFT_MSG_DELSETELEM {
			return false
		}
		element := attribute(attribute(m[msgHead:], unix.NFTA_SET_ELEM_LIST_ELEMENTS), unix.NFTA_LIST_ELEM)
		one := otherElement(element, typ == nftables|unix.NFT_MSG_NEWSETELEM)
		if one == nil {
			return false
		}
		a := appendAttribute(nil, unix.NFTA_SET_ELEM_LIST_TABLE, attribute(m[msgHead:], unix.NFTA_SET_ELEM_LIST_TABLE))
		a = appendAttribute(a, unix.NFTA_SET_ELEM_LIST_SET, attribute(m[msgHead:], unix.NFTA_SET_ELEM_LIST_SET))
		a = appendAttribute(a, unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, one)
		body := message(typ, unix.NLM_F_ACK|native.Uint16(m[6:])&unix.NLM_F_CREATE, a)
		transaction = append(batchEdge(unix.NFNL_MSG_BATCH_BEGIN), body...)
		transaction = append(transaction, batchEdge(unix.NFNL_MSG_BATCH_END)...)
		return true
	})
	return transaction
}

// otherElement is a list of one: the key of an element, and if data is wanted another one; nil if
// the element has none.
func otherElement(element []byte, data bool) []byte {
	key := attribute(element, unix.NFTA_SET_ELEM_KEY)
	if key == nil {
		return nil
	}
	one := appendAttribute(nil, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, key)
	if data {
		value := append([]byte(nil), attribute(attribute(element, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE)...)
		if len(value) == 0 {
			return nil
		}
		value[3] ^= 1
		value = appendAttribute(nil, unix.NFTA_DATA_VALUE, value)
		one = appendAttribute(one, unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED, value)
	}
	return appendAttribute(nil, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, one)
}
