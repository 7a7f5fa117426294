package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// flowBuffer is how much the kernel may have waiting for a FlowMonitor: some 30,000 flows. It is a
// limit, not an allocation.
const flowBuffer = 8 << 20

// accountingFile switches the counters of connection tracking on, for the flows that begin then. It
// is of the network namespace of whoever opens it.
const accountingFile = "/proc/sys/net/netfilter/nf_conntrack_acct"

// CountFlows has the kernel count packets and bytes of each flow, which Flow.Refused goes by, too.
func CountFlows() error {
	if now, err := os.ReadFile(accountingFile); err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil // a Pod may read it, and not write it
	}
	if err := os.WriteFile(accountingFile, []byte("1\n"), 0o600); err != nil {
		return fmt.Errorf("nft: connections are not counted: set sysctl net.netfilter.nf_conntrack_acct=1: %w", err)
	}
	return nil
}

// FlowMonitor hears from connection tracking of the network namespace that it was made in which flows
// have ended, and asks which have no answer yet. Packets cost nothing more: the kernel tells of a flow
// once, when it is over.
type FlowMonitor struct {
	events int // a socket
	lost   atomic.Uint64

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
	_ = unix.Close(m.events)
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
	buf := make([]byte, flowReadBuffer)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.fetch(buf, ended)
		}
	}
}

// fetch reads what the kernel has waiting.
func (m *FlowMonitor) fetch(buf []byte, ended func(*Flow)) {
	for {
		n, _, err := unix.Recvfrom(m.events, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			m.lost.Add(1)
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // EAGAIN: that was all
			return
		}
		for msg := range messages(buf[:n]) {
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
	seq := m.conn.nextSeq()
	return m.conn.dump(unansweredRequest(seq), seq, func(msg message) {
		if len(msg.body) < genHead {
			return
		}
		if f, ok := parseFlow(msg.body[genHead:]); ok && f.Unanswered() {
			each(&f)
		}
	})
}

func unansweredRequest(seq uint32) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, 64)
	native.PutUint16(b[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|ctMessageGet)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	native.PutUint32(b[8:], seq)
	b = append(b, unix.AF_UNSPEC, 0, 0, 0)
	b = appendAttrUint32(b, ctaStatus, ctStatusDNAT)
	b = appendAttrUint32(b, ctaStatusMask, ctStatusDNAT|ctStatusAnswered)
	native.PutUint32(b, uint32(len(b)))
	return b
}
