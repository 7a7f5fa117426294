package announce

import (
	"time"

	"golang.org/x/sys/unix"
)

// boottime is the time since the machine started. It never jumps, and unlike Go's monotonic
// clock it counts while the machine is suspended: a node that slept must not think that what
// was confirmed to it before is a moment old.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // there is no Linux without it
	}
	return time.Duration(ts.Nano())
}
