package nft

import (
	"errors"
	"fmt"
	"iter"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// sendBuffer bounds one transaction, receiveBuffer what the kernel may have waiting for us.
	// Both are limits, not allocations.
	sendBuffer    = 64 << 20
	receiveBuffer = 16 << 20
	// readBuffer is larger than any message that the kernel builds (32 KiB).
	readBuffer = 256 << 10
)

// Socket is what transactions are given to. It belongs to the network namespace of the thread that
// opened it, for ever.
type Socket interface {
	// Send gives the kernel one datagram. When it is back, the kernel has done what that says and
	// answered, or begun to answer.
	Send(b []byte) error
	// Receive takes the next datagram of the kernel's answer, and waits for none: EAGAIN says that
	// there is no more.
	Receive(b []byte) (n int, err error)
}

// conn speaks NETLINK_NETFILTER.
type conn struct {
	Socket
	fd int
	// layout is that of the tables that it is about.
	layout *layout
	portID uint32
	seq    uint32
	read   []byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	c := &conn{Socket: kernelSocket(fd), fd: fd, layout: dual, read: make([]byte, readBuffer)}
	if err := c.setUp(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) setUp() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if a, ok := name.(*unix.SockaddrNetlink); ok {
		c.portID = a.Pid
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		return fmt.Errorf("no permission to program the kernel: it takes root, or CAP_NET_ADMIN: %w", err)
	}
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	// Errors then do not repeat the whole message that they are about, and say why.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return nil
}

// close may be called again: by then the number of the file may be another one's.
func (c *conn) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
	c.fd, c.Socket = -1, kernelSocket(-1)
}

// nextSeq is the sequence number of a new message.
func (c *conn) nextSeq() uint32 {
	c.seq++
	return c.seq
}

// transact sends one transaction: all of it is in, or none. last is the sequence number of the
// message that asks for an answer. The kernel answers to the first one alone if it could not make
// the transaction at all, or not even list what is wrong with it.
func (c *conn) transact(batch []byte, last uint32) error {
	first := native.Uint32(batch[8:])
	var failed error
	err := c.exchange(batch, func(m message) (over bool, err error) {
		if m.typ != unix.NLMSG_ERROR || m.seq-first > last-first {
			return false, nil
		}
		if err := m.err(); err != nil && failed == nil {
			failed = err
		}
		return m.seq == last || m.seq == first, nil
	})
	return errors.Join(failed, err)
}

// dump asks for a list and calls each with every message of the answer.
func (c *conn) dump(request []byte, seq uint32, each func(message)) error {
	interrupted := false
	return c.exchange(request, func(m message) (over bool, err error) {
		if m.seq != seq {
			return false, nil
		}
		interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case m.typ == unix.NLMSG_ERROR:
			return true, m.err()
		case m.typ != unix.NLMSG_DONE:
			each(m)
			return false, nil
		case interrupted:
			return true, errInterrupted
		}
		return true, nil
	})
}

// ask asks for one thing and calls each with every message of the answer.
func (c *conn) ask(request []byte, seq uint32, each func(message)) error {
	return c.exchange(request, func(m message) (over bool, err error) {
		switch {
		case m.seq != seq:
		case m.typ == unix.NLMSG_ERROR:
			return true, m.err()
		default:
			each(m)
		}
		return false, nil
	})
}

// exchange sends a datagram and gives each message of the answer, until hear says that it is over.
func (c *conn) exchange(b []byte, hear func(message) (over bool, err error)) error {
	if err := c.Send(b); err != nil {
		return err
	}
	for {
		n, err := c.Receive(c.read)
		if errors.Is(err, unix.EAGAIN) {
			return errNoAnswer
		}
		if err != nil {
			c.drain()
			return err
		}
		for m := range messages(c.read[:n]) {
			if over, err := hear(m); over {
				return err
			}
		}
	}
}

// drainAtMost is how many datagrams are thrown away: more than the longest list has.
const drainAtMost = 1 << 16

// drain throws away what is left of an answer. The kernel takes no other request for a list before
// the last one is read to its end.
func (c *conn) drain() {
	for range drainAtMost {
		if _, err := c.Receive(c.read); errors.Is(err, unix.EAGAIN) {
			return
		}
	}
}

// kernelSocket is the file descriptor of a netlink socket.
type kernelSocket int

func (s kernelSocket) Send(b []byte) error {
	return os.NewSyscallError("netlink send", unix.Sendto(int(s), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

func (s kernelSocket) Receive(b []byte) (n int, err error) {
	for {
		n, _, err = unix.Recvfrom(int(s), b, unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return n, os.NewSyscallError("netlink receive", err)
		}
	}
}

// errNoAnswer says that it is not known what the kernel has done: it had no memory to tell.
var errNoAnswer = errors.New("nftables: the kernel's answer is lost")

// errInterrupted says that the tables changed while they were read.
var errInterrupted = errors.New("nftables: the ruleset changed while it was read")

// message is one netlink message, its body without the header.
type message struct {
	typ, flags  uint16
	seq, portID uint32
	body        []byte
}

// messages walks the messages of a datagram and stops at the first one that is not whole.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.NLMSG_HDRLEN {
			size := int(native.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return
			}
			m := message{native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:]), native.Uint32(b[12:]), b[unix.NLMSG_HDRLEN:size]}
			if !yield(m) {
				return
			}
			b = b[min(pad4(size), len(b)):]
		}
	}
}

// err is the error that an NLMSG_ERROR holds, or nil for an acknowledgement.
func (m message) err() error {
	if len(m.body) < 4 {
		return errors.New("nftables: the kernel's answer is cut short")
	}
	code := int32(native.Uint32(m.body))
	if code == 0 {
		return nil
	}
	err := os.NewSyscallError("nftables", unix.Errno(-code))
	if m.flags&unix.NLM_F_ACK_TLVS == 0 || len(m.body) < 4+unix.NLMSG_HDRLEN {
		return err
	}
	for typ, v := range attrs(m.body[4+unix.NLMSG_HDRLEN:]) {
		if typ == unix.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w: %s", err, attrText(v))
		}
	}
	return err
}

// isTable tells whether a message is about nf_tables, and gives which kind of message.
func (m message) nftType() (typ uint16, ok bool) {
	return m.typ & 0xff, m.typ>>8 == unix.NFNL_SUBSYS_NFTABLES && len(m.body) >= genHead
}

// genHead is the size of struct nfgenmsg, which every message of nf_tables begins with.
const genHead = 4
