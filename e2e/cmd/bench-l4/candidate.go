package main

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
	"sync"
	"syscall"
	"time"

	"github.com/portico-ingress/portico/e2e/cluster"
)

// candidate is a program that makes Services work on a node, one of those compared.
type candidate struct {
	name string
	node string
	pod  string // the host behind the node that connects through it
	argv []string
	env  []string
	// synced is what it logs when it has read the cluster; the last time counts.
	synced string

	cmd     *exec.Cmd
	exited  chan struct{} // closed when it has
	marks   *marks
	started time.Time
}

// marks keeps the output of a program, and when it last said something.
type marks struct {
	mark []byte
	file *os.File

	mu   sync.Mutex
	rest []byte
	last time.Time
}

// Write takes output as it comes.
func (m *marks) Write(b []byte) (int, error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rest = append(m.rest, b...)
	for {
		line, rest, whole := bytes.Cut(m.rest, []byte("\n"))
		if !whole {
			break
		}
		if bytes.Contains(line, m.mark) {
			m.last = now
		}
		m.rest = rest
	}
	return m.file.Write(b)
}

func (m *marks) when() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// start starts the program. It ends with ctx at the latest.
func (c *candidate) start(ctx context.Context, up *cluster.Cluster) error {
	log, err := os.OpenFile(filepath.Join(up.Logs(), c.name+"-"+c.node+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	// nsenter becomes the program, so that its process is the one that is looked at.
	cmd, err := up.Command(ctx, c.node, c.argv...)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	cmd.Env = append(cmd.Env, c.env...)
	c.marks = &marks{mark: []byte(c.synced), file: log}
	cmd.Stdout, cmd.Stderr = c.marks, c.marks
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.cmd, c.exited, c.started = cmd, make(chan struct{}), time.Now()
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", c.name, err), log.Close())
	}
	go func() {
		_ = cmd.Wait() // it is ended by a signal, mostly
		_ = log.Close()
		close(c.exited)
	}()
	return nil
}

// stop ends it, and kills it if it does not.
func (c *candidate) stop() {
	if c.cmd == nil {
		return
	}
	c.signal(syscall.SIGTERM)
	c.signal(syscall.SIGCONT) // one that is frozen does not hear of the first
	select {
	case <-c.exited:
	case <-time.After(10 * time.Second):
		c.kill()
	}
	c.cmd = nil
}

// kill ends it without a word.
func (c *candidate) kill() {
	c.signal(syscall.SIGKILL)
	<-c.exited
}

// freeze stops it from running, until thaw: what happens meanwhile waits for it in its sockets.
func (c *candidate) freeze() { c.signal(syscall.SIGSTOP) }

func (c *candidate) thaw() { c.signal(syscall.SIGCONT) }

func (c *candidate) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) } // it may have ended

// running fails with the end of the log if it has ended.
func (c *candidate) running() error {
	select {
	case <-c.exited:
		b, _ := os.ReadFile(c.marks.file.Name())
		return fmt.Errorf("%s has ended:\n%s", c.name, b[max(0, len(b)-2000):])
	default:
		return nil
	}
}

// Fields of /proc/PID/stat after the name, see proc_pid_stat(5): user and system time, of the
// process and of its children that have ended, which are kube-proxy's nft.
var cpuFields = []int{11, 12, 13, 14}

// clockTicks a second is what the kernel shows to programs on every architecture of Linux.
const clockTicks = 100

// cpu is all CPU time it has used.
func (c *candidate) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0, c.gone(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	sum := 0
	for _, i := range cpuFields {
		if i >= len(fields) {
			return 0, fmt.Errorf("%s: cannot read its CPU time", c.name)
		}
		n, _ := strconv.Atoi(fields[i])
		sum += n
	}
	return time.Duration(sum) * time.Second / clockTicks, nil
}

// gone prefers the reason for which it has ended.
func (c *candidate) gone(err error) error {
	if why := c.running(); why != nil {
		return why
	}
	return err
}

// memory is what it holds and the most it ever held, in bytes.
func (c *candidate) memory() (resident, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, 0, c.gone(err)
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch key {
		case "VmRSS":
			resident = kb << 10
		case "VmHWM":
			peak = kb << 10
		}
	}
	if resident == 0 {
		return 0, 0, fmt.Errorf("%s: cannot read its memory", c.name)
	}
	return resident, peak, nil
}
