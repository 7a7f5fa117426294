package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// clean removes the cluster, whole or in pieces. It goes by what is there and
// not by what should be, as the one who made it may have died half way.
func (c *Cluster) clean(ctx context.Context) error {
	names, err := c.cfg.existingNetns()
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.cfg.file("run")); errors.Is(err, os.ErrNotExist) && len(names) == 0 {
		return nil
	}
	return c.step("clean up", func() error {
		return errors.Join(
			c.endEverything(ctx, names),
			c.removeCgroups(ctx),
			c.cfg.deleteNetwork(ctx),
			c.cfg.restoreTunables(),
			c.cfg.removeFiles(),
		)
	})
}

// endEverything ends every process of the cluster: those it started, nodes
// first, and then whatever else runs in its network.
func (c *Cluster) endEverything(ctx context.Context, names []netns) error {
	files, err := filepath.Glob(c.cfg.file("run", "*.pid"))
	if err != nil {
		return err
	}
	var g errgroup.Group // one that cannot be ended must not save the others
	for _, f := range files {
		g.Go(func() error {
			id, err := readPIDFile(f)
			if err != nil {
				return err
			}
			return id.end(ctx, 0)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	rest, err := residents(names)
	if err != nil {
		return err
	}
	for _, id := range rest {
		if err := id.end(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// killAll ends every process of a node.
func (n *node) killAll(ctx context.Context) error {
	if err := n.endProcess(ctx, n.name+holderSuffix, 0); err != nil {
		return err
	}
	for _, p := range n.components() {
		if err := n.endProcess(ctx, p.name, 0); err != nil {
			return err
		}
	}
	return n.removeCgroups(ctx)
}

// removeCgroups removes the control groups of containers that the nodes'
// runtimes had no time to remove. They are shared with the whole machine, so
// only those of containers a runtime knew are touched.
func (c *Cluster) removeCgroups(ctx context.Context) error {
	return removeCgroupsOf(ctx, c.cfg.file("node*"))
}

func (n *node) removeCgroups(ctx context.Context) error { return removeCgroupsOf(ctx, n.file()) }

// removeCgroupsOf does so for the nodes whose folders match a pattern.
func removeCgroupsOf(ctx context.Context, pattern string) error {
	tasks, err := filepath.Glob(filepath.Join(pattern, "containerd-state", "io.containerd.runtime.v2.task", "k8s.io", "*"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		parent := filepath.Join(root, "k8s.io")
		for _, t := range tasks {
			// The kernel lets go of a group a moment after its last process.
			err := poll(ctx, 20*time.Millisecond, func(context.Context) error {
				return removeCgroup(filepath.Join(parent, filepath.Base(t)))
			})
			if err != nil {
				return err
			}
		}
		// Fails while somebody else's containers are in it, and then should.
		_ = unix.Rmdir(parent)
	}
	return nil
}

// removeCgroup removes a control group and those below it.
func removeCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for i := len(dirs) - 1; err == nil && i >= 0; i-- {
		if err = unix.Rmdir(dirs[i]); errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove control group %s: %w", dir, err)
	}
	return nil
}

// cgroupRoots are where the machine's control groups are mounted, of either
// version.
func cgroupRoots() ([]string, error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, m := range mounts {
		if strings.HasPrefix(m.kind, "cgroup") {
			roots = append(roots, m.path)
		}
	}
	return roots, nil
}

// mount is one mount of the machine.
type mount struct{ path, kind string }

func mountPoints() ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var mounts []mount
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 {
			mounts = append(mounts, mount{path: f[1], kind: f[2]})
		}
	}
	return mounts, nil
}

// removeFiles removes the cluster's folder, except for the logs: they are what
// remains to find out from.
func (c *Config) removeFiles() error {
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		// Removing files through a mount would remove somebody else's.
		if strings.HasPrefix(m.path, c.Dir+"/") {
			return fmt.Errorf("%s is still mounted", m.path)
		}
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list cluster folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() == "log" {
			continue
		}
		if err := os.RemoveAll(c.file(e.Name())); err != nil {
			return fmt.Errorf("remove cluster folder: %w", err)
		}
	}
	return removeMountPoints()
}

// removeMountPoints removes the folders of the machine that were made to mount
// a node's own over. Those that hold something were there before and stay.
func removeMountPoints() error {
	others, err := filepath.Glob(filepath.Join(netnsDir, anyNetnsPrefix+"*"))
	if err != nil {
		return err
	}
	if len(others) > 0 {
		// Another cluster's nodes would lose what is mounted there: the kernel
		// takes it away from them with the folder.
		return nil
	}
	for mountpoint := range hiddenDirs {
		if mountpoint != "/var/log" {
			_ = unix.Rmdir(mountpoint)
		}
	}
	return nil
}
