package cluster

import (
	"os"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func init() { runtime.LockOSThread() } // TestMain runs on the first thread

// TestMain has the first thread of the program enter a network namespace of its own, as that of a program
// whose goroutines enter the cluster's may happen to do.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// Who cleans up does not end itself.
func TestNobodyIsItsOwnResident(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	found, err := processesWith("net", map[uint64]bool{st.Ino: true})
	if err != nil || slices.ContainsFunc(found, func(p processID) bool { return p.pid == os.Getpid() }) {
		t.Errorf("found %v, %v", found, err)
	}
}
