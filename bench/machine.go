package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// firstLine is the first line of what a program prints.
func firstLine(ctx context.Context, args ...string) string {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return args[0] + ": not installed"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// versions says what was compared, and on what.
func (b *bench) versions(ctx context.Context) []string {
	v := []string{
		time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		cpuModel() + ", " + strconv.Itoa(runtime.NumCPU()) + " cores; Linux " + firstLine(ctx, "uname", "-r"),
		firstLine(ctx, b.cfg.portico, "version"),
	}
	for _, peer := range b.cfg.peers {
		switch peer {
		case "nginx":
			v = append(v, firstLine(ctx, "nginx", "-v"))
		case "haproxy":
			line, _, _ := strings.Cut(firstLine(ctx, "haproxy", "-v"), " - ")
			v = append(v, line)
		case "net/http":
			v = append(v, "net/http of "+runtime.Version())
		}
	}
	return v
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

// machineTime is how the machine has spent its time, from /proc/stat.
type machineTime struct{ busy, idle, steal int64 }

func readMachineTime() machineTime {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	t := machineTime{}
	for i, f := range strings.Fields(line) {
		n, _ := strconv.ParseInt(f, 10, 64)
		switch i {
		case 1, 2, 3, 6, 7:
			t.busy += n
		case 4, 5:
			t.idle += n
		case 8:
			t.steal += n
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

// othersCPU is how much of the machine, in cores, was used by what was not started here.
func othersCPU(before, after machineTime, ours, wall time.Duration) float64 {
	busy := time.Duration(after.busy-before.busy) * time.Second / clockTicks
	return max(0, (busy-ours).Seconds()/wall.Seconds())
}
