package main

import (
	"errors"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// memoryShare is the part of the container's memory, in percent, that the Go runtime is told
// to stay below: what it does not count (stacks of the kernel, page cache) has to fit, too.
const memoryShare = 90

// limitMemory makes the garbage collector work harder near the limit of the container, rather
// than be killed at it. root is the root of the file system. Who has set GOMEMLIMIT knows
// better.
func limitMemory(root fs.FS, getenv func(string) string, log *zap.Logger) {
	if set := getenv("GOMEMLIMIT"); set != "" {
		log.Info("memory limit", zap.String("GOMEMLIMIT", set))
		return
	}
	limit, from := containerMemory(root)
	if limit == 0 {
		return
	}
	soft := limit / 100 * memoryShare
	debug.SetMemoryLimit(soft)
	log.Info("memory limit", zap.Int64("bytes", soft), zap.Int64("container", limit), zap.String("from", from))
}

// containerMemory is the smallest limit, in bytes, of the control groups that this process is
// in, and the file that says so; 0 if there is none.
func containerMemory(root fs.FS) (limit int64, from string) {
	for _, name := range memoryFiles(root) {
		if n := readLimit(root, name); n > 0 && (limit == 0 || n < limit) {
			limit, from = n, name
		}
	}
	return limit, from
}

// memoryFiles are the files with limits that may hold, for version 2 and version 1, from the
// process's own group up. In a container the group's path is often another one outside, and
// what is mounted is the group itself: the walk ends there.
func memoryFiles(root fs.FS) []string {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var files []string
	for line := range strings.SplitSeq(string(groups), "\n") {
		parts := strings.SplitN(line, ":", 3) // number:controllers:path
		if len(parts) < 3 {
			continue
		}
		var mount, file string
		switch {
		case parts[1] == "":
			mount, file = "sys/fs/cgroup", "memory.max"
		case strings.Contains(","+parts[1]+",", ",memory,"):
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			files = append(files, path.Join(mount, group, file))
			if group == "/" {
				break
			}
		}
	}
	return files
}

// readLimit is 0 for a file that is not there, or says that there is no limit. Version 1 says
// so with a number larger than any memory.
func readLimit(root fs.FS, name string) int64 {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || n <= 0 || n > math.MaxInt64/2 {
		return 0
	}
	return n
}
