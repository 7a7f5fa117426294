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

// peek is receive of one byte that stays where it is.
func peek(fd uintptr) (int, syscall.Errno) {
	var p [1]byte
	n, _, err := unix.Recvfrom(int(fd), p[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return result(n, err)
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
