package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named network namespaces.
const netnsDir = "/run/netns"

// netns is a network namespace with a name, so that people can use it with ip(8).
type netns string

// anyNetnsPrefix starts the names of the namespaces of all clusters.
const anyNetnsPrefix = "pe2e-"

// netnsPrefix starts the name of every namespace of the cluster.
func (c *Config) netnsPrefix() string { return anyNetnsPrefix + c.Name + "-" }

func (c *Config) netns(host string) netns { return netns(c.netnsPrefix() + host) }

func (n netns) path() string { return filepath.Join(netnsDir, string(n)) }

// do runs f on a thread inside the namespace. Sockets f opens stay there.
func (n netns) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with this goroutine instead of
		// carrying the namespace into somebody else's.
		runtime.LockOSThread()
		result <- func() error {
			if err := enter(n.path(), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-result
}

// dial connects from inside the namespace. The address must be numeric: looking
// a name up would happen on other threads, which are outside.
func (n netns) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.do(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// sysctl sets kernel settings of the namespace, given as path=value.
func (n netns) sysctl(settings ...string) error {
	return n.do(func() error {
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil {
				return fmt.Errorf("set %s: %w", s, err)
			}
		}
		return nil
	})
}

// enter moves the calling thread into the namespace that file stands for.
func enter(file string, kind int) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter namespace %s: %w", file, err)
	}
	return nil
}

// place is where a process runs: a network namespace and, on a node, the other
// namespaces its first process holds.
type place struct {
	net    netns
	holder func() (int, error) // nil where there is only the network
}

// start starts cmd in the place.
func (p place) start(cmd *exec.Cmd) error {
	return p.net.do(func() error {
		if p.holder == nil {
			return cmd.Start()
		}
		pid, err := p.holder()
		if err != nil {
			return err
		}
		// A thread shares its idea of the file system's root with the others,
		// and may not change mount namespaces until it has its own.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare file system: %w", err)
		}
		// The mount namespace comes last: the others are found through this /proc.
		for _, ns := range []struct {
			name string
			kind int
		}{{"pid", unix.CLONE_NEWPID}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}, {"mnt", unix.CLONE_NEWNS}} {
			if err := enter(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.name), ns.kind); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
}

// run runs a command in the place to its end.
func (p place) run(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := p.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(argv[0]), err, strings.TrimSpace(out.String()))
	}
	return nil
}
