package engine

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lookout watches the sockets of clients whose requests wait for an upstream: one goroutine,
// and a set of descriptors in the kernel, for all of a server. The zero value is ready; the
// goroutine begins with the first to be watched.
type lookout struct {
	mu       sync.Mutex
	file     *os.File // an epoll
	fd       int      // its descriptor
	sleepers map[int]sleeper
	closed   bool
	done     chan struct{}
}

// edge is unix.EPOLLET, which is a negative number there.
const edge = 1 << 31

// add watches fd for the end of what its other side sends, and for errors. What has happened
// already is told at once.
func (l *lookout) add(fd int, s sleeper) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.file == nil && !l.start() {
		return false
	}
	event := unix.EpollEvent{Events: unix.EPOLLRDHUP | edge, Fd: int32(fd)}
	if unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &event) != nil {
		return false
	}
	l.sleepers[fd] = s
	return true
}

// remove forgets what s has waited for.
func (l *lookout) remove(fd int, s sleeper) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sleepers[fd] != s {
		return // it was not watched
	}
	delete(l.sleepers, fd)
	if !l.closed {
		_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, fd, nil) // a descriptor that has closed is not in there any more
	}
}

func (l *lookout) start() bool {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that the runtime waits for it, and no thread
		_ = unix.Close(fd)
		return false
	}
	l.file, l.fd = os.NewFile(uintptr(fd), "lookout"), fd
	l.sleepers = map[int]sleeper{}
	l.done = make(chan struct{})
	raw, err := l.file.SyscallConn()
	if err != nil {
		_ = l.file.Close()
		l.file = nil
		return false
	}
	go l.run(raw)
	return true
}

func (l *lookout) run(raw syscall.RawConn) {
	defer close(l.done)
	_ = raw.Read(func(fd uintptr) bool { // until it is closed
		l.tell(int(fd))
		return false
	})
}

// tell interrupts those for whom there is news, until there is none.
func (l *lookout) tell(epoll int) {
	var events [64]unix.EpollEvent
	for {
		n, err := unix.EpollWait(epoll, events[:], 0)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		l.mu.Lock()
		for _, e := range events[:n] {
			if s := l.sleepers[int(e.Fd)]; s != nil {
				s.interrupt()
			}
		}
		l.mu.Unlock()
	}
}

// close ends the watch, when all connections have been closed: those who wait see that.
func (l *lookout) close() {
	l.mu.Lock()
	l.closed = true
	for _, s := range l.sleepers {
		s.interrupt()
	}
	file := l.file
	l.mu.Unlock()
	if file != nil {
		_ = file.Close() // nothing is written to it
		<-l.done
	}
}
