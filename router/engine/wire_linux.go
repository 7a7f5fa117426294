package engine

import "golang.org/x/sys/unix"

// hangUpEvents are seen even while unread bytes wait before the end.
const hangUpEvents int16 = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR

// queued is how many bytes the other side has not acknowledged yet.
func (w *wire) queued() int {
	n := 0
	if w.raw != nil {
		_ = w.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) // 0 if it has closed
	}
	return n
}
