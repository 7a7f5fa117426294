package main

import (
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// boundMemory tells the garbage collector how much memory there is, so that it works harder
// before the kernel ends the process: the runtime looks for cores in its cgroup, and not for
// memory. A tenth is left for what it does not count. Who sets GOMEMLIMIT knows better.
func boundMemory(log *zap.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := cgroupMemory(os.DirFS("/")); limit > 0 {
		debug.SetMemoryLimit(limit - limit/10)
		log.Debug("memory is bounded by the cgroup", zap.Int64("limit", limit))
	}
}

// maxMemory is more than any machine has: version 1 of cgroups says so where there is no limit.
const maxMemory = math.MaxInt64 / 2

// cgroupMemory is the limit that holds for this process in bytes; 0: none. root is the root of
// the file system. In a container the cgroup is mounted at the place of the host's root, and
// what /proc tells of its path may not be there: then the mount is looked at alone.
func cgroupMemory(root fs.FS) int64 {
	limit := int64(maxMemory)
	self, _ := fs.ReadFile(root, "proc/self/cgroup") // without it, the mounts are left
	for line := range strings.Lines(string(self) + "0:memory:/\n0::/\n") {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		switch fields[1] {
		case "": // version 2
		case "memory":
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for dir := path.Join("/", fields[2]); ; dir = path.Dir(dir) { // a limit holds for all below
			if n := readLimit(root, path.Join(mount, dir, file)); n > 0 {
				limit = min(limit, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	if limit == maxMemory {
		return 0
	}
	return limit
}

// readLimit reads a file with a number; 0: it is not there, or says "max".
func readLimit(root fs.FS, file string) int64 {
	b, err := fs.ReadFile(root, file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
