package relay

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// limit bounds what there is at once, in all and of one Service.
type limit struct {
	max, perService int64
	now             atomic.Int64
}

// take gives whether there is room for one more; then it has to be given back.
func (l *limit) take(ofService *atomic.Int64) bool {
	if ofService.Add(1) > l.perService {
		ofService.Add(-1)
		return false
	}
	if l.now.Add(1) > l.max {
		l.now.Add(-1)
		ofService.Add(-1)
		return false
	}
	return true
}

func (l *limit) giveBack(ofService *atomic.Int64) {
	ofService.Add(-1)
	l.now.Add(-1)
}

// openFiles is how many files this process may have open.
func openFiles() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<20 {
		return 1 << 20
	}
	return int(r.Cur)
}
