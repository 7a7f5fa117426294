package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// holderSuffix ends the name of the component that is a node's first process.
const holderSuffix = "/init"

// node is one node of the cluster.
type node struct {
	*Cluster
	number int
	name   string
}

func (c *Cluster) nodes() []*node {
	var nodes []*node
	for n := 1; n <= c.cfg.Nodes; n++ {
		nodes = append(nodes, &node{Cluster: c, number: n, name: c.cfg.node(n)})
	}
	return nodes
}

// Nodes are the names of the cluster's nodes.
func (c *Cluster) Nodes() []string {
	var names []string
	for _, n := range c.nodes() {
		names = append(names, n.name)
	}
	return names
}

// file is a file of the node's folder.
func (n *node) file(elem ...string) string {
	return n.cfg.file(append([]string{n.name}, elem...)...)
}

// place is inside of the node.
func (n *node) place() place {
	return place{net: n.cfg.netns(n.name), holder: n.holderPID}
}

func (n *node) holderPID() (int, error) {
	id, err := readPIDFile(n.cfg.pidFile(n.name + holderSuffix))
	if err != nil || !id.alive() {
		return 0, fmt.Errorf("node %s is off", n.name)
	}
	return id.pid, nil
}

// holder is the node's first process. It holds the node's namespaces, and the
// kernel ends the whole node with it.
func (n *node) holder() component {
	return component{
		name:    n.name + holderSuffix,
		argv:    []string{n.cfg.file("bin", "pause")},
		where:   place{net: n.cfg.netns(n.name)},
		unshare: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
}

// hiddenDirs are folders of the machine that a node must have of its own,
// because what runs there does not let itself be told another place: the
// kubelet's device plugins, its links to container logs, and the CNI cache.
var hiddenDirs = map[string]string{
	"/var/lib/kubelet": "kubelet",
	"/var/lib/cni":     "cni",
	"/var/log":         "log",
}

// boot turns the node on, as far as its container runtime.
func (n *node) boot(ctx context.Context) error {
	for _, d := range []string{"kubelet", "cni", "cni.d", "log", "containerd", "containerd-state"} {
		if err := os.MkdirAll(n.file(d), 0o755); err != nil {
			return fmt.Errorf("make folder of %s: %w", n.name, err)
		}
	}
	for mountpoint := range hiddenDirs {
		if err := os.MkdirAll(mountpoint, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	if err := n.startProcess(n.holder()); err != nil {
		return err
	}
	if err := n.place().run(ctx, "/bin/sh", "-euc", n.setup()); err != nil {
		return fmt.Errorf("set %s up: %w", n.name, err)
	}
	if err := n.writeContainerd(); err != nil {
		return err
	}
	if err := n.writeKubelet(); err != nil {
		return err
	}
	if err := n.writeKubeProxy(); err != nil {
		return err
	}
	return n.start(ctx, n.containerd())
}

// setup is the script that makes a node of fresh namespaces. Its mounts are cut
// off from the machine's first, and shared among themselves last, as Pods may
// ask to see mounts made after they started.
func (n *node) setup() string {
	var s strings.Builder
	s.WriteString("mount --make-rprivate /\nmount -t proc proc /proc\nmount -t tmpfs tmpfs /run\nmkdir -p /run/lock\n")
	for mountpoint, dir := range hiddenDirs {
		fmt.Fprintf(&s, "mount --bind '%s' %s\n", n.file(dir), mountpoint)
	}
	fmt.Fprintf(&s, "echo %s > /proc/sys/kernel/hostname\nmount --make-rshared /\n", n.name)
	return s.String()
}

// join starts what makes the node part of the cluster.
func (n *node) join(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.start(ctx, n.kubelet()) })
	if !n.cfg.WithoutKubeProxy {
		g.Go(func() error { return n.start(ctx, n.kubeProxy()) })
	}
	return g.Wait()
}

// components are the node's programs, in the order in which they start.
func (n *node) components() []component {
	list := []component{n.containerd(), n.kubelet()}
	if !n.cfg.WithoutKubeProxy {
		list = append(list, n.kubeProxy())
	}
	return list
}
