package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sync/errgroup"
)

func (n *node) containerdSocket() string { return n.file("containerd.sock") }

// containerd is the node's container runtime.
func (n *node) containerd() component {
	return component{
		name:  n.name + "/containerd",
		argv:  []string{n.set.Path("containerd"), "--config", n.file("containerd.toml")},
		where: n.place(),
		ready: listening(n.containerdSocket()),
	}
}

func (n *node) writeContainerd() error {
	content := fmt.Sprintf(`version = 3
root = %[1]q
state = %[2]q
oom_score = 0
# Nothing here uses them, and they look for devices and other programs.
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = %[3]q

[plugins.'io.containerd.cri.v1.images']
snapshotter = %[4]q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "localhost/pause:1"

[plugins.'io.containerd.cri.v1.runtime']
# Where root may not lower the score, asking for it would fail every Pod.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [%[5]q]
conf_dir = %[6]q
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
`, n.file("containerd"), n.file("containerd-state"), n.containerdSocket(), snapshotter(), n.set.Containerd, n.file("cni.d"))
	if err := os.WriteFile(n.file("containerd.toml"), []byte(content), 0o644); err != nil {
		return fmt.Errorf("write containerd.toml: %w", err)
	}
	return n.writeCNI()
}

// snapshotter is overlayfs where the kernel has it: the other one copies every
// image for every container.
func snapshotter() string {
	b, err := os.ReadFile("/proc/filesystems")
	if err == nil && bytes.Contains(b, []byte("\toverlay\n")) {
		return "overlayfs"
	}
	return "native"
}

// writeCNI describes the Pods' network: a bridge on the node, with the node's
// own subnets, and host ports through nftables.
func (n *node) writeCNI() error {
	type object = map[string]any
	var ranges [][]object
	routes := []object{{"dst": "0.0.0.0/0"}}
	for _, p := range n.cfg.podCIDRs(n.number) {
		ranges = append(ranges, []object{{"subnet": p.String()}})
	}
	if !n.cfg.IPv4Only {
		routes = append(routes, object{"dst": "::/0"})
	}
	b, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "pods",
		"plugins": []object{
			{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": 1500,
				"ipam": object{"type": "host-local", "dataDir": n.file("cni", "addresses"), "ranges": ranges, "routes": routes},
			},
			{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("describe Pod network: %w", err)
	}
	if err := os.WriteFile(n.file("cni.d", "10-pods.conflist"), b, 0o644); err != nil {
		return fmt.Errorf("write Pod network: %w", err)
	}
	return nil
}

// ctr runs containerd's command line on the node, among the Pods' containers.
func (n *node) ctr(ctx context.Context, args ...string) error {
	args = append([]string{"--address", n.containerdSocket(), "--namespace", "k8s.io"}, args...)
	out, err := exec.CommandContext(ctx, n.set.Path("ctr"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s on %s: %w\n%s", strings.Join(args[4:], " "), n.name, err, bytes.TrimSpace(out))
	}
	return nil
}

// LoadImage gives every node an image from a tar of an OCI layout. Pods name it
// with imagePullPolicy Never.
func (c *Cluster) LoadImage(ctx context.Context, tar string) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes() {
		g.Go(func() error {
			return n.ctr(ctx, "images", "import", "--local", "--snapshotter", snapshotter(), tar)
		})
	}
	return g.Wait()
}
