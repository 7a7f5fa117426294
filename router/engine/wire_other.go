//go:build !linux

package engine

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangUpEvents misses a half-closed connection here: only Linux can be asked for that.
const hangUpEvents int16 = unix.POLLHUP | unix.POLLERR

// queued is not known here.
func (w *wire) queued() int { return 0 }

// receiveNow reads what is there, of a socket that does not block.
func receiveNow(fd int, p []byte) (int, syscall.Errno) { return withErrno(unix.Read(fd, p)) }

// sendNow writes as much of p as there is room for.
func sendNow(fd int, p []byte) (int, syscall.Errno) { return withErrno(unix.Write(fd, p)) }

func withErrno(n int, err error) (int, syscall.Errno) {
	var errno syscall.Errno
	errors.As(err, &errno) // a system call fails with nothing else
	return max(n, 0), errno
}

// pollNow asks which of events hold. What cannot be asked has failed.
func pollNow(fd int, events int16) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	switch _, err := unix.Poll(fds[:], 0); err {
	case nil:
		return fds[0].Revents
	case unix.EINTR:
		return 0
	}
	return unix.POLLERR
}
