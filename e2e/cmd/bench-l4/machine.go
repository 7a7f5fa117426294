package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machine says when and on what this is.
func machine(ctx context.Context) []string {
	return []string{
		time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		fmt.Sprintf("%s, %d cores; Linux %s; %s", cpuModel(), runtime.NumCPU(), firstLine(ctx, "uname", "-r"), firstLine(ctx, "nft", "--version")),
	}
}

// firstLine is the first line of what a program prints.
func firstLine(ctx context.Context, args ...string) string {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return args[0] + ": " + err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// machineTime is how the machine has spent its time, in clock ticks, from /proc/stat.
type machineTime struct{ all, steal int64 }

func readMachineTime() machineTime {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	t := machineTime{}
	for i, f := range strings.Fields(line) {
		n, _ := strconv.ParseInt(f, 10, 64)
		if i >= 1 && i <= 8 {
			t.all += n
		}
		if i == 8 {
			t.steal = n
		}
	}
	return t
}

// loadAverage is that of the last minute.
func loadAverage() float64 {
	b, _ := os.ReadFile("/proc/loadavg")
	word, _, _ := strings.Cut(string(b), " ")
	load, _ := strconv.ParseFloat(word, 64)
	return load
}
