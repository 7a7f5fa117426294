package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// flowBuffer is how much the kernel may have waiting for a FlowMonitor: some 30,000 flows. It is a
// limit, not an allocation.
const flowBuffer = 8 << 20

// FlowMonitor hears from connection tracking of the network namespace that it was made in which flows
// have ended, and asks which have no answer yet. Packets cost nothing more: the kernel tells of a flow
// once, when it is over.
type FlowMonitor struct {
	lost atomic.Uint64

	// fetching is held while events are read, so that Live knows which came before it.
	fetching sync.Mutex
	events   int // a socket; -1 once it is closed
	buf      []byte

	mu   sync.Mutex
	conn *conn // for questions
}

// NewFlowMonitor opens the kernel. It takes CAP_NET_ADMIN.
func NewFlowMonitor() (*FlowMonitor, error) {
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	m := &FlowMonitor{conn: c}
	if m.events, err = listenFlows(); err != nil {
		c.close()
		return nil, fmt.Errorf("nft: %w", err)
	}
	return m, nil
}

func listenFlows() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, flowBuffer)
	if err = translatedOnly(fd); err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_CONNTRACK_DESTROY - 1)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("netlink", err)
	}
	return fd, nil
}

// translatedOnly has the kernel keep all flows to itself that were not translated, so that nobody is
// woken for them.
func translatedOnly(fd int) error {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadConstant{Dst: bpf.RegA, Val: unix.NLMSG_HDRLEN + genHead},
		bpf.LoadConstant{Dst: bpf.RegX, Val: ctaStatus},
		bpf.LoadExtension{Num: bpf.ExtNetlinkAttr}, // where the attribute is, or 0
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3},
		bpf.TAX{},
		bpf.LoadIndirect{Off: attrHead, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: ctStatusDNAT, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: ^uint32(0)},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// Close ends it. Listen must have returned.
func (m *FlowMonitor) Close() {
	m.fetching.Lock()
	defer m.fetching.Unlock()
	_ = unix.Close(m.events)
	m.events = -1
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn.close()
}

// Lost is how often the kernel had more ended flows to tell of than it could keep. Nobody knows how
// many were lost then.
func (m *FlowMonitor) Lost() uint64 { return m.lost.Load() }

// listenEvery is how often ended flows are fetched. Nobody is woken for each: that would cost most of
// what hearing of it costs.
const listenEvery = 50 * time.Millisecond

// Listen calls ended with every translated flow that is over, until ctx ends.
func (m *FlowMonitor) Listen(ctx context.Context, ended func(*Flow)) {
	tick := time.NewTicker(listenEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.fetching.Lock()
			m.fetch(ended)
			m.fetching.Unlock()
		}
	}
}

// fetch reads what the kernel has waiting.
func (m *FlowMonitor) fetch(ended func(*Flow)) {
	if m.buf == nil {
		m.buf = make([]byte, flowReadBuffer)
	}
	for {
		n, _, err := unix.Recvfrom(m.events, m.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			m.lost.Add(1)
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // EAGAIN: that was all
			return
		}
		for msg := range messages(m.buf[:n]) {
			if f, ok := msg.endedFlow(); ok {
				ended(&f)
			}
		}
	}
}

// flowReadBuffer is larger than any message about one flow, which is what an event is.
const flowReadBuffer = 16 << 10

func (m message) endedFlow() (Flow, bool) {
	if m.typ != unix.NFNL_SUBSYS_CTNETLINK<<8|ctMessageDelete || len(m.body) < genHead {
		return Flow{}, false
	}
	return parseFlow(m.body[genHead:])
}

// Unanswered calls each with the translated TCP connections that have no answer yet. The kernel looks
// at all flows, and tells of those alone (since Linux 5.18; before, of all). It forgets those that are
// over on the way, so that Listen hears of them.
func (m *FlowMonitor) Unanswered(each func(*Flow)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dump(ctStatusDNAT|ctStatusAnswered, func(f *Flow) {
		if f.Unanswered() {
			each(f)
		}
	})
}

// ErrTooManyFlows is given if connection tracking has more than somebody wants to look at.
var ErrTooManyFlows = errors.New("nft: too many flows in connection tracking")

// Live calls live with the translated flows that are in the kernel, with what they have had so far, and ended with
// those that are over, if Listen has not heard of them yet. When it returns nil, a flow that was not among the live ones is over, and ended
// was called with it, unless it is in Lost. With more than most flows of all kinds it does not look. The kernel walks
// all flows, and tells of those alone (since Linux 5.18; before, of all).
func (m *FlowMonitor) Live(most uint32, live, ended func(*Flow)) error {
	m.fetching.Lock()
	defer m.fetching.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.events < 0 {
		return os.ErrClosed
	}
	n, err := m.count()
	switch {
	case err != nil:
		return err
	case n > most:
		return ErrTooManyFlows
	}
	// The kernel marks a flow as ending, tells of it, and takes it out of its table, in this order. So those that
	// are not there any more have been told of when all has been walked.
	m.fetch(ended)
	err = m.dump(ctStatusDNAT, live)
	m.fetch(ended)
	return err
}

// count is how many flows of all kinds there are.
func (m *FlowMonitor) count() (n uint32, err error) {
	seq := m.conn.nextSeq()
	request := appendFlowRequest(ctMessageGetStats, unix.NLM_F_ACK, seq)
	native.PutUint32(request, uint32(len(request)))
	err = m.conn.ask(request, seq, func(msg message) {
		if len(msg.body) < genHead {
			return
		}
		for typ, v := range attrs(msg.body[genHead:]) {
			if typ == ctaStatsGlobalEntries {
				n = attrUint32(v)
			}
		}
	})
	return n, err
}

// dump calls each with the translated flows whose status has none of the other bits of mask.
func (m *FlowMonitor) dump(mask uint32, each func(*Flow)) error {
	seq := m.conn.nextSeq()
	request := appendFlowRequest(ctMessageGet, unix.NLM_F_DUMP, seq)
	request = appendAttrUint32(request, ctaStatus, ctStatusDNAT)
	request = appendAttrUint32(request, ctaStatusMask, mask)
	native.PutUint32(request, uint32(len(request)))
	var f Flow // one for all, which each may not keep
	return m.conn.dump(request, seq, func(msg message) {
		if len(msg.body) < genHead {
			return
		}
		var ok bool
		if f, ok = parseFlow(msg.body[genHead:]); ok && f.status&mask == ctStatusDNAT {
			each(&f)
		}
	})
}

func appendFlowRequest(typ, flags uint16, seq uint32) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, 64)
	native.PutUint16(b[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|typ)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	native.PutUint32(b[8:], seq)
	return append(b, unix.AF_UNSPEC, 0, 0, 0)
}
