package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that was started here, with the processes it has made.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has
}

// start runs a program on one core. What it prints goes to a file.
func start(ctx context.Context, cpu int, logFile string, args ...string) (*process, error) {
	out, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", strconv.Itoa(cpu)}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it is ended by a signal, mostly
		close(p.exited)
	}()
	return p, nil
}

// stop ends it, and all of its processes if they do not end soon.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.exited
	}
}

// pids are the process and its children.
func (p *process) pids() []int {
	pids := []int{p.cmd.Process.Pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		f, err := procStat(stat)
		if err != nil {
			continue // it has ended
		}
		if f[ppidField] == strconv.Itoa(p.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// Fields of /proc/PID/stat after the name, see proc_pid_stat(5).
const (
	ppidField  = 1
	utimeField = 11
	stimeField = 12
)

// clockTicks a second is what the kernel shows to programs on every architecture of Linux.
const clockTicks = 100

func procStat(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	_, rest, ok := strings.Cut(string(b), ") ") // the name may have spaces
	if f := strings.Fields(rest); ok && len(f) > stimeField {
		return f, nil
	}
	return nil, fmt.Errorf("%s: malformed", file)
}

// cpuTime is what a process has used.
type cpuTime struct{ user, system time.Duration }

func (c cpuTime) sub(o cpuTime) cpuTime { return cpuTime{c.user - o.user, c.system - o.system} }

func (c cpuTime) total() time.Duration { return c.user + c.system }

// cpu sums up all threads of the process and its children.
func (p *process) cpu() cpuTime {
	t := cpuTime{}
	for _, pid := range p.pids() {
		f, err := procStat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended
		}
		t.user += ticks(f[utimeField])
		t.system += ticks(f[stimeField])
	}
	return t
}

func ticks(s string) time.Duration {
	n, _ := strconv.ParseInt(s, 10, 64)
	return time.Duration(n) * time.Second / clockTicks
}

// resident is what the process and its children hold in memory, in bytes.
func (p *process) resident() int64 {
	sum := int64(0)
	for _, pid := range p.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64)
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}
