package engine

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// The three system calls of a request. None of them ever waits, so that the scheduler need not
// be told of them, which would cost a third of what the shortest does; and a socket has shorter
// ways in than a file.

// receiveNow reads what is there.
func receiveNow(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0) //nolint:gosec // len(p) bytes are there
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sendNow writes as much of p as there is room for.
func sendNow(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0) //nolint:gosec // as above
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// pollNow asks which of events hold. What cannot be asked has failed.
func pollNow(fd int, events int16) int16 {
	fds, now := unix.PollFd{Fd: int32(fd), Events: events}, unix.Timespec{}
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0) //nolint:gosec // one descriptor, and no time
	switch errno {
	case 0:
		return fds.Revents
	case unix.EINTR:
		return 0
	}
	return unix.POLLERR
}
