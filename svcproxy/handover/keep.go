package handover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	mdnetlink "github.com/mdlayher/netlink"
	"go.uber.org/zap"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// repairPause lets the one who does damage end, repairsApart keeps two programs that both want the tables from a
	// race, and is when what failed is tried again.
	repairPause  = 5 * time.Millisecond
	repairsApart = time.Second
	// eventBuffer is how much the kernel may have waiting, in bytes. It is a limit, not an allocation.
	eventBuffer = 4 << 20
)

// Keep makes again what somebody else takes away or changes, as `nft flush ruleset` does, until ctx ends.
func (t *Table) Keep(ctx context.Context, log *zap.Logger) {
	stop := context.AfterFunc(ctx, func() { _ = t.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var last time.Time
	for t.damaged() {
		for err := errors.New("not yet"); err != nil; {
			if !sleep(ctx, max(repairPause, time.Until(last.Add(repairsApart)))) {
				return
			}
			t.deafen()
			last = time.Now()
			if err = t.repair(); err != nil {
				log.Warn("handover: what somebody else took away cannot be made again, and is tried again", zap.Error(err))
			}
		}
	}
}

// deafen forgets what the kernel has waiting: all of that is repaired now.
func (t *Table) deafen() {
	raw, err := t.events.SyscallConn()
	if err != nil {
		return
	}
	var some [1]byte
	_ = raw.Control(func(fd uintptr) {
		for err := error(nil); err == nil || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR); {
			_, _, err = unix.Recvfrom(int(fd), some[:], unix.MSG_DONTWAIT)
		}
	})
}

// sleep tells whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// repair writes all that is wanted, if anything is.
func (t *Table) repair() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.want) == 0 {
		return nil
	}
	t.have = nil
	if err := t.write(t.want); err != nil {
		t.hangUp()
		return err
	}
	t.have = t.want
	t.repairs++
	return nil
}

// damaged waits until others have changed the tables; false: Keep is to end.
func (t *Table) damaged() bool {
	for {
		all, err := t.events.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS): // the kernel could not keep all that there was to tell
			return true
		case err != nil:
			return false
		}
		t.mu.Lock()
		own := t.portID
		t.mu.Unlock()
		if slices.ContainsFunc(all, func(m mdnetlink.Message) bool { return m.Header.PID != own && about(&m) }) {
			return true
		}
	}
}

// genHead is the size of struct nfgenmsg, of which the first byte is the family.
const genHead = 4

// about tells whether a message is about one of the tables: its name is the first attribute of all messages.
func about(m *mdnetlink.Message) bool {
	if len(m.Data) < genHead || !slices.ContainsFunc(families[:], func(f family) bool { return byte(f.table) == m.Data[0] }) {
		return false
	}
	first, err := mdnetlink.NewAttributeDecoder(m.Data[genHead:])
	return err == nil && first.Next() && first.Type() == 1 && first.String() == TableName
}

// listening hears what anybody does to nftables, but for the elements of tables of family inet: this program writes a great
// many of those, and none are of ours.
func listening() (*mdnetlink.Conn, error) {
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: kindAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NFT_MSG_NEWGEN, SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NFT_MSG_NEWSETELEM, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.NFT_MSG_DELSETELEM, SkipTrue: 2},
		bpf.LoadAbsolute{Off: unix.NLMSG_HDRLEN, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NFPROTO_INET, SkipTrue: 1},
		bpf.RetConstant{Val: ^uint32(0)},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		err = errors.Join(conn.SetBPF(filter), conn.SetReadBuffer(eventBuffer), conn.JoinGroup(unix.NFNLGRP_NFTABLES))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("handover: %w", err), conn.Close())
	}
	return conn, nil
}

// kindAt is where a netlink message has the lower byte of its type, which is in the machine's byte order.
var kindAt = func() uint32 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return 4
	}
	return 5
}()
