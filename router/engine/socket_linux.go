package engine

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receive reads what is there into p, which has room for at least a byte. It does not wait.
func receive(fd uintptr, p []byte) (int, syscall.Errno) {
	return transfer(unix.SYS_RECVFROM, fd, p, unix.MSG_DONTWAIT)
}

// send writes what the kernel takes of p, which has at least a byte. It does not wait.
func send(fd uintptr, p []byte) (int, syscall.Errno) {
	return transfer(unix.SYS_SENDTO, fd, p, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func transfer(call, fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, err := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0) //nolint:gosec // as package syscall does
		switch err {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, err
		}
	}
}

// poll asks, without waiting, which of events hold. What cannot be asked has failed.
func poll(fd int, events int16) int16 {
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
