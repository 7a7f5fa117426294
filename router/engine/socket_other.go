//go:build !linux

package engine

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// receive reads what is there into p. A socket of Go's never waits.
func receive(fd uintptr, p []byte) (int, syscall.Errno) {
	return result(unix.Read(int(fd), p))
}

// send writes what the kernel takes of p.
func send(fd uintptr, p []byte) (int, syscall.Errno) {
	return result(unix.Write(int(fd), p))
}

// poll asks, without waiting, which of events hold. What cannot be asked has failed.
func poll(fd int, events int16) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	switch _, err := unix.Poll(fds[:], 0); err {
	case nil:
		return fds[0].Revents
	case unix.EINTR:
		return 0
	}
	return unix.POLLERR
}

func result(n int, err error) (int, syscall.Errno) {
	if err == nil {
		return n, 0
	}
	errno, ok := err.(syscall.Errno)
	if !ok {
		errno = syscall.EIO
	}
	return 0, errno
}
