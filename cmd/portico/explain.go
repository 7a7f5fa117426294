package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

func newExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say what becomes of a packet, and why",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newExplainPacketCommand())
	return cmd
}

func newExplainPacketCommand() *cobra.Command {
	flags := &explainFlags{externalIPs: true, output: oneOf{value: "text", words: []string{"text", "json"}}}
	cmd := &cobra.Command{
		Use:   "packet SRC DST:PORT/PROTO",
		Short: "Say what portico svcproxy does with the first packet of a connection, and why",
		Long: `Say what portico svcproxy does with the first packet of a connection on one node: which Service it is for, which
rules count, which endpoints it may go to, and why not to the others. SRC is an address or a Pod (namespace/name), DST
an address or a Service (namespace/name), PROTO is TCP, UDP or SCTP.

It reads the same objects as portico svcproxy, and Pods where a Service has no endpoint. As root on the node itself, in its
network, it also compares with what the kernel has. With --admin the portico svcproxy of the node says it itself, and compares
with its data plane, whichever that is. It changes nothing.

The exit code is 0 if the packet is delivered to a Service's endpoint and the kernel, if it was asked, agrees; 1 if not;
2 if the question cannot be understood.`,
		Example: `  portico explain packet 10.244.1.7 10.96.0.10:53/UDP
  portico explain packet default/client default/web:http/TCP --kubeconfig ~/.kube/config
  portico explain packet 2001:db8::7 [fd00:96::a]:80/TCP --manifests ./manifests -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("explain packet takes two arguments, SRC and DST:PORT/PROTO, and got %d; like: portico explain packet 10.244.1.7 10.96.0.10:53/UDP", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := parseAsked(args[0], args[1])
			if err != nil {
				return err
			}
			if err := flags.validate(); err != nil {
				return err
			}
			return runExplain(cmd.Context(), flags, a, cmd.OutOrStdout())
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

// explainFlags are the flags of portico explain packet: those of portico svcproxy that say what is
// to be done with packets.
type explainFlags struct {
	manifests, kubeconfig, nodeName string
	admin                           string
	clusterCIDR, nodePortAddresses  prefixes
	externalIPs                     bool
	output                          oneOf

	changed func(name string) bool
}

func (f *explainFlags) register(s *pflag.FlagSet) {
	s.SortFlags = false
	f.changed = s.Changed
	s.StringVar(&f.manifests, "manifests", "", "the objects of the Kubernetes YAML in this `folder`, without a cluster")
	s.StringVar(&f.kubeconfig, "kubeconfig", "", "the cluster that this `file` names (default: the one it runs in)")
	s.StringVar(&f.admin, "admin", "", "the portico svcproxy that runs at this `URL` (http://HOST:PORT of its --admin): it answers itself, with its own options")
	s.StringVar(&f.nodeName, "node-name", "", "`name` of the node that the packet comes to (default: that of the Pod SRC, $NODE_NAME, or the host name)")
	s.Var(&f.clusterCIDR, "cluster-cidr", "where the Pods of the cluster are: the same as portico svcproxy has")
	s.Var(&f.nodePortAddresses, "nodeport-addresses", "the node's addresses that answer NodePorts: the same as portico svcproxy has")
	s.BoolVar(&f.externalIPs, "external-ips", f.externalIPs, "serve spec.externalIPs: the same as portico svcproxy has")
	s.VarP(&f.output, "output", "o", "how to say it")
}

func (f *explainFlags) validate() error {
	if f.changed("manifests") && f.changed("kubeconfig") {
		return usagef("--manifests and --kubeconfig: give one of them")
	}
	for _, other := range []string{"manifests", "kubeconfig", "node-name", "cluster-cidr", "nodeport-addresses", "external-ips"} {
		if f.changed("admin") && f.changed(other) {
			return usagef("--admin and --%s: the process that runs has its own", other)
		}
	}
	files := serveFlags{manifests: f.manifests, kubeconfig: f.kubeconfig, changed: f.changed}
	return files.validateFiles()
}

// runExplain answers one question.
func runExplain(ctx context.Context, flags *explainFlags, a asked, stdout io.Writer) error {
	if flags.admin != "" {
		e, err := explainLive(ctx, flags.admin, a)
		if err != nil {
			return err
		}
		return writeExplanation(stdout, flags.output.value, e)
	}
	src, err := newExplainSource(flags)
	if err != nil {
		return err
	}
	from := []netip.Addr{a.from}
	node := flags.nodeName
	if a.fromPod.Name != "" {
		pod, err := src.pod(ctx, a.fromPod)
		if err != nil {
			return err
		}
		from, node = podAddrs(pod), cmp.Or(node, pod.Spec.NodeName)
	}
	here := hostNodeName()
	node = cmp.Or(node, here)
	change, err := src.read(ctx, node)
	objects := change.Objects
	if err != nil {
		return err
	}
	packet, err := a.packet(objects, from)
	if err != nil {
		return err
	}
	onNode, addresses := node == here, hostAddresses()
	if n := objects.Node(node); n != nil {
		onNode = onNode || slices.ContainsFunc(n.Status.Addresses, func(na corev1.NodeAddress) bool {
			ip, err := netip.ParseAddr(na.Address)
			return err == nil && slices.Contains(addresses, ip)
		})
	}
	onNode = onNode || runsHere(ctx, node)
	if !onNode {
		addresses = nil // those of the Node object
	}
	x := svcproxy.NewExplainer(svcproxy.Rules{NodeName: node, NoExternalIPs: !flags.externalIPs},
		svcproxy.Network{ClusterCIDRs: flags.clusterCIDR, NodePortAddresses: flags.nodePortAddresses}, objects, addresses)
	x.Pods = func(namespace string) ([]*corev1.Pod, error) { return src.pods(ctx, namespace) }
	var unasked error
	if onNode {
		unasked = askOutliers(ctx, x, node)
	}
	e := x.Explain(packet)
	for _, p := range change.Problems {
		e.Notes = append(e.Notes, "not everything could be read: "+p.String())
	}
	compareWithKernel(x, e, onNode)
	if unasked != nil && e.Kernel.Compared && !e.Kernel.Agrees {
		e.Notes = append(e.Notes, fmt.Sprintf("portico svcproxy was not asked which endpoints it skips because they fail, which may be the difference: %v", unasked))
	}
	return writeExplanation(stdout, flags.output.value, e)
}

// packet fills in the addresses of the objects that were asked for.
func (a *asked) packet(objects *manifests.Objects, from []netip.Addr) (p svcproxy.Packet, err error) {
	to, port := a.to, uint16(0)
	if a.service.Name == "" {
		port, err = a.number()
	} else {
		s := objects.Service(a.service.Namespace, a.service.Name)
		if s == nil {
			return p, usagef("there is no Service %s", a.service)
		}
		if to, err = a.addressOf(s, from); err == nil {
			port, err = a.portOf(s)
		}
	}
	if err != nil {
		return p, err
	}
	at := slices.IndexFunc(from, func(f netip.Addr) bool { return f.Is6() == to.Is6() })
	if at < 0 {
		return p, usagef("SRC %s has no address of the IP family of %s; it has %v", a.fromPod, to, from)
	}
	return svcproxy.Packet{From: from[at], To: netip.AddrPortFrom(to, port), Protocol: a.protocol}, nil
}

// compareWithKernel asks the kernel again if it differs: a change may have been on its way.
func compareWithKernel(x *svcproxy.Explainer, e *svcproxy.Explanation, onNode bool) {
	if !onNode {
		e.Kernel.Text = fmt.Sprintf("not compared: needs root on node %s, and this is another host", e.Node)
		return
	}
	for range 2 {
		s, err := nft.Look()
		if err != nil {
			e.Kernel.Text = fmt.Sprintf("not compared: needs root on the node: %v", err)
			return
		}
		if x.Compare(e, s); e.Kernel.Agrees {
			return
		}
	}
}

func writeExplanation(w io.Writer, output string, e *svcproxy.Explanation) error {
	var err error
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(e)
	} else {
		err = e.Write(w)
	}
	if err == nil && (e.Verdict != svcproxy.Delivered || e.Kernel.Compared && !e.Kernel.Agrees) {
		return errAnswered
	}
	return err
}

// hostNodeName is what portico svcproxy takes for the name of this node without --node-name.
func hostNodeName() string {
	name, _ := os.Hostname()
	return cmp.Or(os.Getenv("NODE_NAME"), strings.ToLower(name))
}

// hostAddresses are those of this network namespace's interfaces.
func hostAddresses() []netip.Addr {
	all := []netip.Addr{}
	found, _ := net.InterfaceAddrs()
	for _, f := range found {
		if n, ok := f.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, a.Unmap())
			}
		}
	}
	return all
}

func podAddrs(p *corev1.Pod) (all []netip.Addr) {
	for _, ip := range append([]corev1.PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		if a, err := netip.ParseAddr(ip.IP); err == nil && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// explainSource is where the objects come from, once.
type explainSource struct {
	// read gives all there is; its Refs are nobody's business.
	read func(ctx context.Context, node string) (manifests.Change, error)
	pods func(ctx context.Context, namespace string) ([]*corev1.Pod, error)
}

func (s *explainSource) pod(ctx context.Context, name types.NamespacedName) (*corev1.Pod, error) {
	pods, err := s.pods(ctx, name.Namespace)
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		if p.Name != name.Name {
			continue
		}
		if len(podAddrs(p)) == 0 {
			return nil, usagef("Pod %s has no address yet: it can send nothing", name)
		}
		return p, nil
	}
	return nil, usagef("there is no Pod %s", name)
}

// readTimeout is how long the objects may take to come.
const readTimeout = time.Minute

// readOnce runs a Source until its first view is complete.
func readOnce(ctx context.Context, src manifests.Source) (manifests.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	store, ended := manifests.NewStore(), make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- src.Run(ctx, store) })
	defer func() {
		cancel()
		running.Wait()
	}()
	for {
		select {
		case <-store.Changed():
			if change, ok := store.Take(); ok {
				return change, nil
			}
		case err := <-ended:
			if err == nil {
				err = ctx.Err()
			}
			return manifests.Change{}, fmt.Errorf("the objects cannot be read: %w%s", err, because(store.Problems()))
		}
	}
}

func because(problems []manifests.Problem) string {
	var text strings.Builder
	for _, p := range problems {
		text.WriteString("; " + p.String())
	}
	return text.String()
}

func newExplainSource(f *explainFlags) (*explainSource, error) {
	if f.changed("manifests") {
		return newFolderSource(f), nil
	}
	if !f.changed("kubeconfig") && os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return nil, usagef("no objects to explain it by: this is not a Pod in a cluster; give --kubeconfig FILE or --manifests DIR")
	}
	config, err := clusterConfig(&serveFlags{kubeconfig: f.kubeconfig, changed: f.changed})
	if err != nil {
		return nil, err
	}
	config.UserAgent = "portico/" + version
	cluster, err := manifests.NewClusterConfig(config)
	if err != nil {
		return nil, usageError{err}
	}
	return &explainSource{
		read: func(ctx context.Context, node string) (manifests.Change, error) {
			cluster.Node = node
			return readOnce(ctx, manifests.NewCluster(cluster))
		},
		pods: func(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
			list, err := cluster.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return nil, err
			}
			pods := make([]*corev1.Pod, len(list.Items))
			for i := range list.Items {
				pods[i] = &list.Items[i]
			}
			return pods, nil
		},
	}, nil
}

func newFolderSource(f *explainFlags) *explainSource {
	var once *manifests.Change
	read := func(ctx context.Context, _ string) (manifests.Change, error) {
		if once == nil {
			change, err := readOnce(ctx, newFolder(f.manifests, zap.NewNop()))
			if err != nil {
				return change, err
			}
			once = &change
		}
		return *once, nil
	}
	return &explainSource{read: read, pods: func(ctx context.Context, namespace string) ([]*corev1.Pod, error) {
		change, err := read(ctx, "")
		if err != nil {
			return nil, err
		}
		return slices.Collect(change.Objects.Pods(namespace)), nil
	}}
}
