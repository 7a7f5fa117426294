//go:build !linux

package engine

import "golang.org/x/sys/unix"

// hangUpEvents misses a half-closed connection here: only Linux can be asked for that.
const hangUpEvents int16 = unix.POLLHUP | unix.POLLERR

// queued is not known here.
func (w *wire) queued() int { return 0 }
