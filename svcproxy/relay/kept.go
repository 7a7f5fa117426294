package relay

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KeptOut are packets that source ranges or a traffic policy kept out: dropped by the kernel's filter before a
// socket, or turned away here where the kernel takes none. A repeated packet counts again.
type KeptOut struct {
	// Sources: its address is in none of the source ranges.
	Sources uint64
	// NotLocal: it came from outside to a Frontend of kind DropOutside.
	NotLocal uint64
	// Policy: it came to a Frontend of kind Drop.
	Policy uint64
}

func (k *KeptOut) add(o KeptOut) {
	k.Sources += o.Sources
	k.NotLocal += o.NotLocal
	k.Policy += o.Policy
}

// tally counts what was kept out since the last time: before a frontend changes, or goes, and when
// somebody asks.
func (e *entry) tally(f *frontend) {
	denied := f.counters.denied.Load()
	n := denied - f.denied
	f.denied = denied
	for _, s := range f.sockets {
		n += uint64(s.dropped())
	}
	k := f.keeps(n)
	f.kept.add(k)
	e.kept.add(k)
	e.all.add(k)
}

// keeps says what packets count as that were kept out. Where all goes in, a socket drops only what it has
// no room for, which is nothing of ours.
func (f *Frontend) keeps(n uint64) KeptOut {
	switch {
	case f.Kind == Drop:
		return KeptOut{Policy: n}
	case f.Kind == DropOutside:
		return KeptOut{NotLocal: n}
	case f.Restricted:
		return KeptOut{Sources: n}
	}
	return KeptOut{}
}

// dropCounter is what the kernel has dropped before a socket. It belongs to who holds Plane.mu.
type dropCounter struct{ seen uint32 }

// since is what it has dropped since the last time.
func (d *dropCounter) since(c syscall.Conn) uint32 {
	now, ok := drops(c)
	if !ok {
		return 0
	}
	n := now - d.seen // it may have wrapped
	d.seen = now
	return n
}

// drops is how many packets the kernel has dropped before a socket (SO_MEMINFO, SK_MEMINFO_DROPS).
func drops(c syscall.Conn) (n uint32, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	err = raw.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // package unix has no call for it
		ok = errno == 0 && size == uint32(unsafe.Sizeof(info))
	})
	return info[unix.SK_MEMINFO_DROPS], ok && err == nil
}
