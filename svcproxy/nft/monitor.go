package nft

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// monitor hears what anybody does to nftables.
type monitor struct {
	file *os.File

	mu     sync.Mutex
	damage damage
}

func newMonitor() (*monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &monitor{file: os.NewFile(uintptr(fd), "netlink")}, nil
}

func (m *monitor) close() { _ = m.file.Close() }

// next waits for what the kernel tells, and remembers what others than portID did to our tables.
// foreign tells whether there was something.
func (m *monitor) next(buf []byte, portID uint32) (foreign bool, err error) {
	n, err := m.file.Read(buf)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case errors.Is(err, unix.ENOBUFS): // the kernel could not keep all that there was to tell
		m.damage.unknown = true
		return true, nil
	case err != nil:
		return false, err
	}
	for msg := range messages(buf[:n]) {
		if msg.portID != portID && m.damage.hear(msg) {
			foreign = true
		}
	}
	return foreign, nil
}

// take gives the damage that was heard of since the last time.
func (m *monitor) take() *damage {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.damage
	m.damage = damage{}
	return &d
}

const (
	// repairAgain is how long after a repair that failed the next is tried.
	repairAgain = 50 * time.Millisecond
	// mendPause is how long after a repair the next one waits at least: great damage is told in many
	// messages, and with another program that repairs the same table it would be a race of two.
	mendPause = 5 * time.Millisecond
)

// watch repairs until ctx ends.
func (p *Plane) watch(ctx context.Context) {
	damaged := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.listen(damaged)
	}()
	defer func() { // after a panic, too: it would wait here for ever, and nobody would hear of it
		_ = p.monitor.file.SetReadDeadline(time.Unix(1, 0))
		<-done
	}()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	var mended time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-damaged:
			if !sleep(ctx, mendPause-time.Since(mended)) {
				return
			}
			err = p.mend(p.monitor.take())
			mended = time.Now()
		case <-again.C:
			err = p.Repair()
		}
		if err != nil {
			p.log.Warn("repair of the nftables table failed and is tried again", zap.Error(err))
			again.Reset(repairAgain)
		}
	}
}

// sleep tells whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// listen pokes damaged until the monitor ends.
func (p *Plane) listen(damaged chan<- struct{}) {
	buf := make([]byte, readBuffer)
	for {
		foreign, err := p.monitor.next(buf, p.conn.portID)
		if err != nil {
			return
		}
		if foreign {
			select {
			case damaged <- struct{}{}:
			default: // one poke already waits
			}
		}
	}
}
