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
	// answerTimeout is how long the kernel may take with a transaction, in seconds. It answers
	// before it returns, so this is only ever reached by a bug.
	answerTimeout = 30
)

// conn is a netlink socket for NETLINK_NETFILTER. It belongs to the network namespace of the
// thread that opened it, for ever.
type conn struct {
	fd     int
	portID uint32
	seq    uint32
	read   []byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	c := &conn{fd: fd, read: make([]byte, readBuffer)}
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
	return os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTimeout}))
}

func (c *conn) close() { _ = unix.Close(c.fd) }

// nextSeq is the sequence number of a new message.
func (c *conn) nextSeq() uint32 {
	c.seq++
	return c.seq
}

// transact sends one transaction and waits for the kernel's answer: all of it is in, or none.
// last is the sequence number of the message that asks for an answer.
func (c *conn) transact(message []byte, last uint32) error {
	if err := c.send(message); err != nil {
		return err
	}
	var failed error
	for {
		messages, err := c.receive()
		if err != nil {
			return errors.Join(failed, err)
		}
		for m := range messages {
			if m.typ != unix.NLMSG_ERROR {
				continue
			}
			if err := m.err(); err != nil && failed == nil {
				failed = err
			}
			if m.seq == last {
				return failed
			}
		}
	}
}

// dump asks for a list and calls each with every message of the answer.
func (c *conn) dump(request []byte, seq uint32, each func(message)) error {
	if err := c.send(request); err != nil {
		return err
	}
	interrupted := false
	for {
		messages, err := c.receive()
		if err != nil {
			return err
		}
		for m := range messages {
			if m.seq != seq {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.typ {
			case unix.NLMSG_DONE:
				if interrupted {
					return errInterrupted
				}
				return nil
			case unix.NLMSG_ERROR:
				return m.err()
			default:
				each(m)
			}
		}
	}
}

// ask asks for one thing and calls each with every message of the answer.
func (c *conn) ask(request []byte, seq uint32, each func(message)) error {
	if err := c.send(request); err != nil {
		return err
	}
	for {
		messages, err := c.receive()
		if err != nil {
			return err
		}
		for m := range messages {
			switch {
			case m.seq != seq:
			case m.typ == unix.NLMSG_ERROR:
				return m.err()
			default:
				each(m)
			}
		}
	}
}

// errInterrupted says that the tables changed while they were read.
var errInterrupted = errors.New("nftables: the ruleset changed while it was read")

func (c *conn) send(b []byte) error {
	return os.NewSyscallError("netlink send", unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

// receive gives the messages of one datagram. They are parts of c.read.
func (c *conn) receive() (iter.Seq[message], error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.read, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("netlink receive", err)
		}
		return messages(c.read[:n]), nil
	}
}

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
