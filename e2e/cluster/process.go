package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// component is one long-running program of the cluster. It is described by what
// lies in the cluster's folder, so that a later process can stop it and start it.
type component struct {
	name  string   // such as kube-apiserver or node1/kubelet
	argv  []string // the program's full path first
	where place
	// unshare says which namespaces of its own the program gets.
	unshare uintptr
	// grace is how long the program has to stop by itself. Zero: stopTime.
	grace time.Duration
	// ready is one try at finding out whether the program does its work.
	ready func(context.Context) error
}

// fileName is the component's name as part of a file's.
func fileName(component string) string { return strings.ReplaceAll(component, "/", "-") }

func (c *Config) pidFile(name string) string { return c.file("run", fileName(name)+".pid") }
func (c *Config) logFile(name string) string { return c.file("log", fileName(name)+".log") }

// processID names a process for good: a number alone may be given out again.
type processID struct {
	pid   int
	start string // when it started, in the kernel's ticks
}

// startProcess starts the component's program, detached from this one, with its
// output in its log file.
func (c *Cluster) startProcess(p component) error {
	if id, err := readPIDFile(c.cfg.pidFile(p.name)); err == nil && id.alive() {
		return fmt.Errorf("start %s: it is running as process %d", p.name, id.pid)
	}
	log, err := os.OpenFile(c.cfg.logFile(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = c.environment()
	// A session of its own: an interrupt at the terminal is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: p.unshare}
	if err := p.where.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	id, err := identify(cmd.Process.Pid)
	// Collected when it ends while this process still runs; otherwise the
	// machine's first process does that.
	go func() { _ = cmd.Wait() }()
	if err != nil {
		return fmt.Errorf("start %s: it ended at once\n%s", p.name, c.cfg.logTail(p.name))
	}
	if err := os.WriteFile(c.cfg.pidFile(p.name), []byte(fmt.Sprintf("%d %s\n", id.pid, id.start)), 0o644); err != nil {
		return fmt.Errorf("note process of %s: %w", p.name, err)
	}
	return nil
}

// environment is the same for every program, whoever boots the cluster.
func (c *Cluster) environment() []string {
	return []string{
		// The cluster's own programs first: containerd looks for its shim here.
		"PATH=" + c.set.Containerd + ":" + c.set.Kubernetes + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + c.cfg.Dir,
		"LANG=C.UTF-8",
	}
}

// waitReady waits until the component works, and gives up when it ends.
func (c *Cluster) waitReady(ctx context.Context, p component) error {
	err := poll(ctx, 50*time.Millisecond, func(ctx context.Context) error {
		id, err := readPIDFile(c.cfg.pidFile(p.name))
		if err != nil {
			return final(err)
		}
		if !id.alive() {
			return final(errors.New("it ended"))
		}
		return p.ready(ctx)
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w\n%s", p.name, err, c.cfg.logTail(p.name))
	}
	return nil
}

// endProcess ends a component's process: politely with the time given, or at
// once when that is zero. One that is not running is fine.
func (c *Cluster) endProcess(ctx context.Context, name string, grace time.Duration) error {
	file := c.cfg.pidFile(name)
	id, err := readPIDFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := id.end(ctx, grace); err != nil {
		return fmt.Errorf("end %s: %w", name, err)
	}
	return os.Remove(file)
}

// end ends the process and waits until it is gone.
func (p processID) end(ctx context.Context, grace time.Duration) error {
	if grace > 0 && p.alive() {
		_ = unix.Kill(p.pid, unix.SIGTERM)
		polite, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if p.waitGone(polite) == nil {
			return nil
		}
	}
	if !p.alive() {
		return nil
	}
	ns, err := pidNamespace("self")
	if err != nil {
		return err
	}
	own, err := pidNamespace(strconv.Itoa(p.pid))
	if err != nil {
		return nil // gone meanwhile
	}
	_ = unix.Kill(p.pid, unix.SIGKILL)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := p.waitGone(ctx); err != nil || own == ns {
		return err
	}
	// The kernel ends what is in a namespace when its first process ends, but
	// that one may be gone before the last of the others.
	return waitEmpty(ctx, own)
}

// pidNamespace tells namespaces of processes apart.
func pidNamespace(pid string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+pid+"/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("find namespace of process %s: %w", pid, err)
	}
	return st.Ino, nil
}

// waitEmpty waits until no process runs in a PID namespace.
func waitEmpty(ctx context.Context, namespace uint64) error {
	return poll(ctx, 10*time.Millisecond, func(context.Context) error {
		found, err := processesWith("pid", map[uint64]bool{namespace: true})
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("process %d is still there", found[0].pid)
		}
		return err
	})
}

func (p processID) waitGone(ctx context.Context) error {
	return poll(ctx, 10*time.Millisecond, func(context.Context) error {
		if p.alive() {
			return fmt.Errorf("process %d is still there", p.pid)
		}
		return nil
	})
}

// alive tells whether this very process still runs.
func (p processID) alive() bool {
	now, err := identify(p.pid)
	return err == nil && now == p
}

// identify reads who a running process is. One that has ended but was not
// collected by its parent counts as gone.
func identify(pid int) (processID, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processID{}, err
	}
	// The second field is the program's name in brackets, and may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return processID{}, fmt.Errorf("process %d: cannot read its state", pid)
	}
	if state := fields[0]; state == "Z" || state == "X" {
		return processID{}, fmt.Errorf("process %d has ended", pid)
	}
	return processID{pid: pid, start: fields[19]}, nil
}

func readPIDFile(file string) (processID, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return processID{}, err
	}
	pid, start, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 1 {
		return processID{}, fmt.Errorf("%s holds no process: %q", file, b)
	}
	return processID{pid: n, start: start}, nil
}

// logTail is the end of a component's log, for people.
func (c *Config) logTail(name string) string {
	b, err := os.ReadFile(c.logFile(name))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if n := len(lines); n > 20 {
		lines = lines[n-20:]
	}
	return fmt.Sprintf("--- end of %s\n%s\n---", c.logFile(name), strings.Join(lines, "\n"))
}

// residents are the processes whose network is one of the given namespaces.
func residents(names []netns) ([]processID, error) {
	inodes := map[uint64]bool{}
	for _, n := range names {
		var st unix.Stat_t
		if err := unix.Stat(n.path(), &st); err == nil {
			inodes[st.Ino] = true
		}
	}
	return processesWith("net", inodes)
}

// processesWith are the processes whose namespace of that kind is among those
// given.
func processesWith(kind string, inodes map[uint64]bool) ([]processID, error) {
	tasks, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []processID
	for _, t := range tasks {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(t, "ns", kind), &st); err != nil || !inodes[st.Ino] {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(t))
		if pid == os.Getpid() {
			continue // its first thread was in there once (see netns.do), and cannot end before the others
		}
		if id, err := identify(pid); err == nil && pid > 1 {
			found = append(found, id)
		}
	}
	return found, nil
}
