package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// host is one machine on the Ethernet segment.
type host struct {
	name   string
	number int // last part of its addresses
}

func (c *Config) hosts() []host {
	hosts := []host{{"control", controlHost}, {"client", clientHost}}
	for n := 1; n <= c.Nodes; n++ {
		hosts = append(hosts, host{c.node(n), c.nodeHost(n)})
	}
	return hosts
}

func (c *Config) nodeHost(n int) int { return controlHost + n }

const switchName = "switch"

// createNetwork lays the segment: the switch, the hosts, addresses and routes.
func (c *Config) createNetwork(ctx context.Context) error {
	var b batch
	sw := string(c.netns(switchName))
	b.add("netns add %s", sw)
	for _, h := range c.hosts() {
		b.add("netns add %s", c.netns(h.name))
	}
	if err := b.run(ctx, ""); err != nil {
		return err
	}
	if err := c.createSwitch(ctx); err != nil {
		return err
	}
	for _, h := range c.hosts() {
		if err := c.createHost(ctx, h); err != nil {
			return fmt.Errorf("network of %s: %w", h.name, err)
		}
	}
	return nil
}

// createSwitch makes the bridge and a cable from it into every host.
func (c *Config) createSwitch(ctx context.Context) error {
	var b batch
	b.add("link add br0 type bridge")
	for _, h := range c.hosts() {
		b.add("link add %s type veth peer name eth0 netns %s", h.name, c.netns(h.name))
		b.add("link set %s master br0 up", h.name)
	}
	b.add("link set br0 up")
	// The switch is a piece of wire: it has no addresses of its own.
	if err := c.netns(switchName).sysctl("net/ipv6/conf/default/disable_ipv6=1", "net/ipv6/conf/all/disable_ipv6=1"); err != nil && !c.IPv4Only {
		return err
	}
	return b.run(ctx, c.netns(switchName))
}

// createHost gives a host its addresses and its routes to the Pods.
func (c *Config) createHost(ctx context.Context, h host) error {
	ns := c.netns(h.name)
	if !c.IPv4Only {
		// An address that is still being checked for duplicates cannot be used
		// for a second, and there can be none here.
		if err := ns.sysctl("net/ipv6/conf/default/accept_dad=0", "net/ipv6/conf/all/accept_dad=0", "net/ipv6/conf/eth0/accept_dad=0"); err != nil {
			return err
		}
	}
	var b batch
	b.add("link set lo up")
	b.add("link set eth0 up")
	for _, a := range c.addrs(h.number) {
		if a.Is4() {
			b.add("addr add %s/%d dev eth0", a, hostBits4)
		} else {
			b.add("addr add %s/%d dev eth0 nodad", a, hostBits6)
		}
	}
	// The client is outside of the cluster: it knows no way to a Pod.
	if h.name != "client" {
		c.addPodRoutes(&b, h)
	}
	if err := b.run(ctx, ns); err != nil {
		return err
	}
	if h.number > controlHost && h.name != "client" {
		return c.createRouter(ctx, ns)
	}
	return nil
}

// addPodRoutes leads to every node's Pods by way of that node.
func (c *Config) addPodRoutes(b *batch, h host) {
	for n := 1; n <= c.Nodes; n++ {
		if c.node(n) == h.name {
			continue
		}
		via := c.addrs(c.nodeHost(n))
		for i, cidr := range c.podCIDRs(n) {
			b.add("route add %s via %s", cidr, via[i])
		}
	}
}

// createRouter makes a node forward for its Pods, and lend them its address
// when they talk to something outside of the cluster.
func (c *Config) createRouter(ctx context.Context, ns netns) error {
	settings := []string{"net/ipv4/ip_forward=1"}
	if !c.IPv4Only {
		settings = append(settings, "net/ipv6/conf/all/forwarding=1")
	}
	if err := ns.sysctl(settings...); err != nil {
		return err
	}
	nodes4, nodes6 := []string{hostPrefix4 + strconv.Itoa(controlHost)}, []string{hostPrefix6 + strconv.Itoa(controlHost)}
	for n := 1; n <= c.Nodes; n++ {
		nodes4 = append(nodes4, hostPrefix4+strconv.Itoa(c.nodeHost(n)))
		nodes6 = append(nodes6, hostPrefix6+strconv.Itoa(c.nodeHost(n)))
	}
	rules := fmt.Sprintf(`table inet e2e-outside {
	chain postrouting {
		type nat hook postrouting priority srcnat + 10; policy accept;
		ip saddr %[1]s ip daddr != { %[1]s, %[2]s } masquerade
		ip6 saddr %[3]s ip6 daddr != { %[3]s, %[4]s } masquerade
	}
}
`, podCIDR4, strings.Join(nodes4, ", "), podCIDR6, strings.Join(nodes6, ", "))
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	return runIn(ns, cmd)
}

// AddPod makes a host behind a node, as a Pod is, without Kubernetes knowing of it. It has
// the given IPv4 address of the node's Pod subnet.
func (c *Cluster) AddPod(ctx context.Context, nodeName, pod string, addr netip.Addr) error {
	n, err := c.node(nodeName)
	if err != nil {
		return err
	}
	subnet := c.cfg.podCIDRs(n.number)[0]
	if !subnet.Contains(addr) {
		return fmt.Errorf("address of Pod %s: %s is not of %s", pod, addr, subnet)
	}
	gateway := subnet.Addr().Next()
	var machine, host, inside batch
	machine.add("netns add %s", c.cfg.netns(pod))
	host.add("link add %s type veth peer name eth0 netns %s", pod, c.cfg.netns(pod))
	host.add("addr add %s/%d dev %s", gateway, subnet.Bits(), pod)
	host.add("link set %s up", pod)
	inside.add("link set lo up")
	inside.add("addr add %s/%d dev eth0", addr, subnet.Bits())
	inside.add("link set eth0 up")
	inside.add("route add default via %s", gateway)
	if err := machine.run(ctx, ""); err != nil {
		return err
	}
	if err := host.run(ctx, c.cfg.netns(nodeName)); err != nil {
		return err
	}
	return inside.run(ctx, c.cfg.netns(pod))
}

// Unplug takes a host's cable out of the switch. The host does not see that.
func (c *Cluster) Unplug(ctx context.Context, host string) error {
	var b batch
	b.add("link set %s nomaster", host)
	return b.run(ctx, c.cfg.netns(switchName))
}

// Plug puts it back.
func (c *Cluster) Plug(ctx context.Context, host string) error {
	var b batch
	b.add("link set %s master br0", host)
	return b.run(ctx, c.cfg.netns(switchName))
}

// deleteNetwork removes every namespace of the cluster, whatever made it.
func (c *Config) deleteNetwork(ctx context.Context) error {
	names, err := c.existingNetns()
	if err != nil {
		return err
	}
	var b batch
	for _, n := range names {
		b.add("netns delete %s", n)
	}
	return b.run(ctx, "")
}

// existingNetns lists the cluster's namespaces as they are.
func (c *Config) existingNetns() ([]netns, error) {
	entries, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []netns
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), c.netnsPrefix()) {
			names = append(names, netns(e.Name()))
		}
	}
	return names, nil
}

// batch collects ip(8) commands: one process carries out many.
type batch struct{ lines strings.Builder }

func (b *batch) add(format string, args ...any) {
	fmt.Fprintf(&b.lines, format+"\n", args...)
}

// run carries the commands out in a namespace, or in the machine's own.
func (b *batch) run(ctx context.Context, in netns) error {
	if b.lines.Len() == 0 {
		return nil
	}
	args := []string{"-batch", "-"}
	if in != "" {
		args = append([]string{"-n", string(in)}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(b.lines.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// runIn runs a command in a network namespace to its end.
func runIn(ns netns, cmd *exec.Cmd) error {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := place{net: ns}.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd.Args[0], err, strings.TrimSpace(out.String()))
	}
	return nil
}

// resetHost takes out of a node's network what its programs put there, so that
// it is as on the first day.
func (c *Config) resetHost(ctx context.Context, n *node) error {
	ns := c.netns(n.name)
	if err := runIn(ns, exec.CommandContext(ctx, "nft", "flush", "ruleset")); err != nil {
		return err
	}
	var b batch
	err := ns.do(func() error {
		if _, err := net.InterfaceByName("cni0"); err == nil {
			b.add("link delete cni0")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.run(ctx, ns); err != nil {
		return err
	}
	return c.createRouter(ctx, ns)
}
