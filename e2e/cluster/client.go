package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Hosts of the cluster that are no nodes, for [Cluster.Command].
const (
	// ControlHost is where the API server is.
	ControlHost = "control"
	// ClientHost is outside of the cluster, on the same Ethernet segment.
	ClientHost = "client"
)

// NodeIP is a node's IPv4 address.
func (c *Cluster) NodeIP(name string) netip.Addr { return c.hostAddrs(name)[0] }

// NodeIPs are a node's addresses, IPv4 first.
func (c *Cluster) NodeIPs(name string) []netip.Addr { return c.hostAddrs(name) }

// HostIP is the IPv4 address of a host: control, client or a node.
func (c *Cluster) HostIP(name string) netip.Addr { return c.hostAddrs(name)[0] }

// ClientIP is the client host's IPv4 address.
func (c *Cluster) ClientIP() netip.Addr { return c.hostAddrs(ClientHost)[0] }

// ClientIPs are the client host's addresses, IPv4 first.
func (c *Cluster) ClientIPs() []netip.Addr { return c.hostAddrs(ClientHost) }

func (c *Cluster) hostAddrs(name string) []netip.Addr {
	for _, h := range c.cfg.hosts() {
		if h.name == name {
			return c.cfg.addrs(h.number)
		}
	}
	panic("no host " + name)
}

// RESTConfig is how client-go reaches the cluster as its administrator, from
// this process.
func (c *Cluster) RESTConfig() *rest.Config {
	return &rest.Config{
		Host: c.cfg.apiURL(),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile:   c.cfg.pkiFile("ca.crt"),
			CertFile: c.cfg.pkiFile("admin.crt"),
			KeyFile:  c.cfg.pkiFile("admin.key"),
		},
		Dial:  c.DialClient,
		QPS:   200,
		Burst: 400,
	}
}

// Client speaks to the cluster as its administrator.
func (c *Cluster) Client() (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(c.RESTConfig())
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", err)
	}
	return client, nil
}

// DialClient connects from the client host. The address must be numeric.
func (c *Cluster) DialClient(ctx context.Context, network, address string) (net.Conn, error) {
	return c.cfg.netns(ClientHost).dial(ctx, network, address)
}

// Dial connects from a host of the cluster: client, control or a node, which
// reaches Pods too. The address must be numeric.
func (c *Cluster) Dial(ctx context.Context, host, network, address string) (net.Conn, error) {
	return c.cfg.netns(host).dial(ctx, network, address)
}

// Do runs f on a thread of a host of the cluster, or of a Pod of [Cluster.AddPod].
// Sockets f opens stay there; goroutines it starts are elsewhere.
func (c *Cluster) Do(host string, f func() error) error { return c.cfg.netns(host).do(f) }

// ListenPacketClient listens for packets on the client host. The address must be
// numeric.
func (c *Cluster) ListenPacketClient(ctx context.Context, network, address string) (conn net.PacketConn, err error) {
	err = c.cfg.netns(ClientHost).do(func() error {
		var l net.ListenConfig
		conn, err = l.ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// Command prepares a command that runs on a host of the cluster: client,
// control or a node. It sees the machine's files.
func (c *Cluster) Command(ctx context.Context, host string, argv ...string) (*exec.Cmd, error) {
	args := []string{"--net=" + c.cfg.netns(host).path()}
	if n, err := c.node(host); err == nil && c.cfg.Bare {
		// It is a network and nothing else.
	} else if err == nil {
		pid, err := n.holderPID()
		if err != nil {
			return nil, err
		}
		args = append(args, fmt.Sprintf("--target=%d", pid), "--mount", "--pid", "--uts", "--ipc")
	} else if host != ControlHost && host != ClientHost {
		return nil, fmt.Errorf("no host %q; there are client, control and %q", host, c.Nodes())
	}
	cmd := exec.CommandContext(ctx, "nsenter", append(append(args, "--"), argv...)...)
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+c.Kubeconfig())
	// A child that keeps the output open must not keep us waiting for ever.
	cmd.WaitDelay = 5 * time.Second
	return cmd, nil
}

// Exec runs a command on a host of the cluster and returns what it wrote to its
// standard output.
func (c *Cluster) Exec(ctx context.Context, host string, argv ...string) (string, error) {
	return c.exec(ctx, host, "", argv...)
}

// ExecClient runs a command, such as curl, on the client host.
func (c *Cluster) ExecClient(ctx context.Context, argv ...string) (string, error) {
	return c.exec(ctx, ClientHost, "", argv...)
}

// Kubectl runs kubectl as the cluster's administrator.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.KubectlInput(ctx, "", args...)
}

// KubectlInput runs kubectl with something to read, as `kubectl apply -f -` wants.
func (c *Cluster) KubectlInput(ctx context.Context, stdin string, args ...string) (string, error) {
	return c.exec(ctx, ClientHost, stdin, append([]string{c.Program("kubectl")}, args...)...)
}

func (c *Cluster) exec(ctx context.Context, host, stdin string, argv ...string) (string, error) {
	cmd, err := c.Command(ctx, host, argv...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// KillContainer kills the first process of a Pod's container, as the kernel
// does when memory runs out.
func (c *Cluster) KillContainer(ctx context.Context, namespace, pod, container string) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	p, err := client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("find Pod: %w", err)
	}
	n, err := c.node(p.Spec.NodeName)
	if err != nil {
		return err
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == container {
			id := strings.TrimPrefix(s.ContainerID, "containerd://")
			return n.ctr(ctx, "tasks", "kill", "--signal", "SIGKILL", id)
		}
	}
	return fmt.Errorf("no container %s in Pod %s/%s", container, namespace, pod)
}

// waitNodes waits until Pods can run: every node is Ready and known by its Pod
// subnets, and the default ServiceAccount is there.
func (c *Cluster) waitNodes(ctx context.Context) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	for _, n := range c.nodes() {
		err := poll(ctx, 100*time.Millisecond, func(ctx context.Context) error { return n.ready(ctx, client) })
		if err != nil {
			return fmt.Errorf("wait for %s: %w\n%s", n.name, err, c.cfg.logTail(n.name+"/kubelet"))
		}
	}
	err = poll(ctx, 100*time.Millisecond, func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for the default ServiceAccount: %w\n%s", err, c.cfg.logTail(ControllerManager))
	}
	return nil
}

// ready is one try at finding the node ready for Pods.
func (n *node) ready(ctx context.Context, client kubernetes.Interface) error {
	obj, err := client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if obj.Spec.PodCIDR == "" {
		if err := n.patchPodCIDRs(ctx, client); err != nil {
			return err
		}
	}
	for _, cond := range obj.Status.Conditions {
		if cond.Type == corev1.NodeReady && cond.Status != corev1.ConditionTrue {
			return fmt.Errorf("%s: %s", cond.Reason, cond.Message)
		}
	}
	if len(obj.Spec.Taints) > 0 {
		return fmt.Errorf("node has taints %v", obj.Spec.Taints)
	}
	return nil
}

// patchPodCIDRs writes down which Pods the node has, as whatever hands subnets
// out in other clusters would.
func (n *node) patchPodCIDRs(ctx context.Context, client kubernetes.Interface) error {
	var cidrs []string
	for _, p := range n.cfg.podCIDRs(n.number) {
		cidrs = append(cidrs, p.String())
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"podCIDR": cidrs[0], "podCIDRs": cidrs}})
	if err != nil {
		return fmt.Errorf("encode Pod subnets: %w", err)
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, n.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}
