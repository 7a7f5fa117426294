package main

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"go.uber.org/zap"
)

func TestContainerMemory(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing", nil, 0},
		{"version 2, in its own namespace", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "104857600\n"}, 100 << 20},
		{"version 2, none", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		{"version 2, the smallest on the way up", map[string]string{
			"proc/self/cgroup":                   "0::/a/b/c\n",
			"sys/fs/cgroup/a/b/c/memory.max":     "300000000\n",
			"sys/fs/cgroup/a/b/memory.max":       "200000000\n",
			"sys/fs/cgroup/a/memory.max":         "max\n",
			"sys/fs/cgroup/elsewhere/memory.max": "1000\n",
		}, 200000000},
		{"version 1", map[string]string{
			"proc/self/cgroup":                                 "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":       "52428800\n",
			"sys/fs/cgroup/cpu/docker/x/memory.limit_in_bytes": "1\n",
		}, 50 << 20},
		{"version 1, none", map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		{"both", map[string]string{
			"proc/self/cgroup": "4:memory:/\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "50000000\n", "sys/fs/cgroup/memory.max": "60000000\n",
		}, 50000000},
		{"nonsense", map[string]string{"proc/self/cgroup": "nonsense\n0::/../..\n", "sys/fs/cgroup/memory.max": "-5\n"}, 0},
	} {
		root := fstest.MapFS{}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got, _ := containerMemory(root); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	debug.SetMemoryLimit(math.MaxInt64)
	root := fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"sys/fs/cgroup/memory.max": {Data: []byte("1000000000\n")},
	}
	limitMemory(root, func(string) string { return "2GiB" }, zap.NewNop())
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("beside GOMEMLIMIT: %d", got)
	}
	limitMemory(root, func(string) string { return "" }, zap.NewNop())
	if got := debug.SetMemoryLimit(-1); got != 900000000 {
		t.Errorf("got %d", got)
	}
}
