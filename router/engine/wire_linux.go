package engine

import "golang.org/x/sys/unix"

// hangUpEvents are seen even while unread bytes wait before the end.
const hangUpEvents int16 = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
