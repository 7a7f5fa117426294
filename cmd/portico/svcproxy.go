package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/addresses"
	"github.com/portico-ingress/portico/svcproxy/balancer"
	"github.com/portico-ingress/portico/svcproxy/handover"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

func newSvcproxyCommand() *cobra.Command {
	flags := newSvcproxyFlags()
	cmd := &cobra.Command{
		Use:   "svcproxy",
		Short: "Make Services work on this node: cluster IPs, NodePorts, LoadBalancer addresses",
		Example: `  portico svcproxy --cluster-cidr 10.244.0.0/16          in a Pod of a DaemonSet, host network
  portico svcproxy --manifests ./manifests               the Services of a folder
  portico svcproxy --manifests ./manifests --mode relay  without root: NodePorts on this computer
  portico svcproxy cleanup                               remove all that it made`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.validate(); err != nil {
				return err
			}
			return runSvcproxy(cmd.Context(), flags, cmd.ErrOrStderr())
		},
	}
	flags.register(cmd.Flags())
	cmd.AddCommand(newSvcproxyCleanupCommand())
	return cmd
}

func newSvcproxyCleanupCommand() *cobra.Command {
	ports := portRange(defaultNodePorts)
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove from this node's kernel all that portico svcproxy made, and nothing else",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plane, err := nft.New(nft.Config{})
			if err != nil {
				return err
			}
			defer plane.Close()
			moves, err := handover.New(handover.Config{})
			if err != nil {
				return err
			}
			defer moves.Close()
			released, err := svcproxy.ReleasePorts(svcproxy.PortRange(ports))
			if released != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), released)
			}
			return errors.Join(plane.Cleanup(), moves.Remove(), nft.UncountFlows(), err)
		},
	}
	cmd.Flags().Var(&ports, "nodeport-range", "the NodePorts that were reserved; those that somebody else had reserved are released as well, which it then says")
	return cmd
}

// svcproxyFlags are the flags of portico svcproxy.
type svcproxyFlags struct {
	manifests, kubeconfig, nodeName, apiserver string
	mode                                       oneOf
	clusterCIDR, nodePortAddresses, lbPool     prefixes
	nodePortRange                              portRange
	announceInterface, lbPoolNamespace         []string
	lbClass                                    string
	lbClassOnly                                bool
	endpointMetrics, maxEjectionPercent        int
	outlierDetection, externalIPs              bool
	admin, healthzBindAddress                  address
	endpointHold                               time.Duration
	logLevel                                   oneOf

	changed func(name string) bool
}

// maxEndpointHold: for longer, an address may be somebody else's already.
const maxEndpointHold = 10 * time.Second

var defaultNodePorts = svcproxy.PortRange{First: 30000, Last: 32767}

func newSvcproxyFlags() *svcproxyFlags {
	return &svcproxyFlags{
		mode:          oneOf{value: "auto", words: []string{"auto", "nftables", "relay"}},
		nodePortRange: portRange(defaultNodePorts),
		admin:         defaultAdmin,

		healthzBindAddress: defaultHealthz,
		endpointHold:       time.Second,
		externalIPs:        true,
		lbClass:            addresses.Class,

		endpointMetrics: defaultEndpointMetrics, maxEjectionPercent: defaultMaxEjectionPercent,
		logLevel: oneOf{value: "info", words: []string{"debug", "info", "warn", "error"}},
	}
}

func (f *svcproxyFlags) register(s *pflag.FlagSet) {
	s.SortFlags = false
	f.changed = s.Changed
	s.StringVar(&f.manifests, "manifests", "", "the Services of the Kubernetes YAML in this `folder`, without a cluster")
	s.StringVar(&f.kubeconfig, "kubeconfig", "", "the cluster that this `file` names (default: the one it runs in)")
	s.StringVar(&f.nodeName, "node-name", "", "`name` of this node in the cluster (default: $NODE_NAME, or the host name)")
	s.StringVar(&f.apiserver, "apiserver", "", "`host:port` of the API server, so that it is reached before any Service is")
	s.Var(&f.mode, "mode", "how to serve: in the kernel (nftables), in this process, which takes no privileges (relay), or auto: nftables if the kernel lets it")
	s.Var(&f.clusterCIDR, "cluster-cidr", "where the Pods of the cluster are; repeat it for both IP families")
	s.Var(&f.nodePortAddresses, "nodeport-addresses", "this node's addresses that answer NodePorts (default: all but loopback)")
	s.BoolVar(&f.externalIPs, "external-ips", f.externalIPs, "serve spec.externalIPs, which let anybody who may write a Service take the traffic to any address")
	s.Var(&f.nodePortRange, "nodeport-range", "the NodePorts of the cluster, which this node then keeps free")
	s.Var(&f.lbPool, "lb-pool", "addresses for LoadBalancer Services, besides those of IPAddressPools; repeat it for more")
	s.StringSliceVar(&f.lbPoolNamespace, "lb-pool-namespace", nil, "`namespace` whose IPAddressPools and L2Advertisements count; repeat it for more (default: that of svcproxy, and metallb-system)")
	s.StringVar(&f.lbClass, "lb-class", f.lbClass, "the loadBalancerClass of Services that get their address here, besides those without a `class`; what Services of the class before have stays in their status, announced by nobody")
	s.BoolVar(&f.lbClassOnly, "lb-class-only", false, "leave LoadBalancer Services without a class to others, such as a cloud's controller")
	s.StringSliceVar(&f.announceInterface, "announce-interface", nil, "`interface`s to announce LoadBalancer addresses on, as a pattern like eth*; repeat it for more (default: all that lead to a LAN)")
	s.IntVar(&f.endpointMetrics, "endpoint-metrics", f.endpointMetrics, "how many endpoints have metrics of their own at most; 0: none")
	s.BoolVar(&f.outlierDetection, "outlier-detection", false, "skip endpoints that refuse new connections or do not answer them, before they are said not to be ready")
	s.IntVar(&f.maxEjectionPercent, "outlier-max-ejection-percent", f.maxEjectionPercent, "how many `percent` of a Service's endpoints --outlier-detection skips at most; one is always allowed, but never the last")
	s.DurationVar(&f.endpointHold, "endpoint-hold", f.endpointHold, "for how long ready endpoints that vanish from all EndpointSlices stay if a Service port has no other; 0: not at all")
	s.Var(&f.admin, "admin", "where to listen for probes, metrics and the admin API; empty for not at all")
	s.Var(&f.healthzBindAddress, "healthz-bind-address", "where to answer /healthz for load balancers in front of the nodes, as kube-proxy does; empty for not at all")
	s.Var(&f.logLevel, "log-level", "what to log on stderr")
}

func (f *svcproxyFlags) validate() error {
	switch {
	case f.changed("manifests") && f.changed("kubeconfig"):
		return usagef("--manifests and --kubeconfig: give one of them")
	case f.changed("manifests") && slices.ContainsFunc(balancerFlags, f.changed):
		return usagef("--lb-pool, --lb-pool-namespace, --lb-class, --lb-class-only and --announce-interface: need a cluster; with --manifests, Services have the addresses that their status says, and nobody announces them")
	}
	if err := f.validateBalancer(); err != nil {
		return err
	}
	if err := f.validateWatch(); err != nil {
		return err
	}
	if f.endpointHold < 0 || f.endpointHold > maxEndpointHold {
		return wrongValue("endpoint-hold", f.endpointHold.String(), fmt.Errorf("want 0 to %v", maxEndpointHold))
	}
	if f.apiserver != "" {
		if _, _, err := net.SplitHostPort(f.apiserver); err != nil {
			return wrongValue("apiserver", f.apiserver, errors.New("want host:port"))
		}
	}
	if f.nodeName == "" {
		f.nodeName = os.Getenv("NODE_NAME")
	}
	if f.nodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return usagef("--node-name: %w", err)
		}
		f.nodeName = strings.ToLower(name)
	}
	files := serveFlags{manifests: f.manifests, kubeconfig: f.kubeconfig, changed: f.changed}
	return files.validateFiles()
}

// balancerFlags mean nothing without a cluster.
var balancerFlags = []string{"lb-pool", "lb-pool-namespace", "lb-class", "lb-class-only", "announce-interface"}

// validateBalancer checks pools as they are used, and patterns.
func (f *svcproxyFlags) validateBalancer() error {
	if _, problems := addresses.NewPools(nil, f.pools()); len(problems) > 0 {
		return wrongValue("lb-pool", f.lbPool.String(), errors.New(problems[0].Text))
	}
	if wrong := validation.IsQualifiedName(f.lbClass); len(wrong) > 0 {
		return wrongValue("lb-class", f.lbClass, errors.New("want a name like example.com/internal"))
	}
	for _, namespace := range f.lbPoolNamespace {
		if len(validation.IsDNS1123Label(namespace)) > 0 {
			return wrongValue("lb-pool-namespace", namespace, errors.New("want the name of a namespace"))
		}
	}
	for _, pattern := range f.announceInterface {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return wrongValue("announce-interface", pattern, errors.New("want the name of an interface, or a pattern like eth*"))
		}
	}
	return nil
}

func (f *svcproxyFlags) pools() []string {
	var all []string
	for _, p := range f.lbPool {
		all = append(all, p.String())
	}
	return all
}

// serviceSource is where the Services come from, and the balancer of that cluster; nil for a
// folder.
type serviceSource struct {
	manifests.Source
	balancer *balancer.Config
}

func (f *svcproxyFlags) source(log *zap.Logger) (serviceSource, error) {
	if f.changed("manifests") {
		log.Info("no cluster: LoadBalancer Services have the addresses that their status says, and nobody announces them")
		return serviceSource{Source: newFolder(f.manifests, log)}, nil
	}
	config, err := clusterConfig(&serveFlags{kubeconfig: f.kubeconfig, changed: f.changed})
	if err != nil {
		return serviceSource{}, err
	}
	f.direct(config)
	config.UserAgent = "portico/" + version
	cluster, err := manifests.NewClusterConfig(config)
	if err != nil {
		return serviceSource{}, usageError{err}
	}
	cluster.Node, cluster.Log = f.nodeName, log.Named("cluster")
	resources, err := dynamic.NewForConfig(config)
	if err != nil {
		return serviceSource{}, usageError{err}
	}
	return serviceSource{manifests.NewCluster(cluster), &balancer.Config{
		Client: cluster.Client, Dynamic: resources, Node: f.nodeName, Namespace: ownNamespace(),
		Pools: f.pools(), PoolNamespaces: f.lbPoolNamespace, Class: f.lbClass, OnlyClass: f.lbClassOnly, Interfaces: f.announceInterface, Log: log.Named("balancer"),
	}}, nil
}

// direct leads to the API server itself: the Service in front of it does not work before this
// process does.
func (f *svcproxyFlags) direct(config *rest.Config) {
	if f.apiserver != "" {
		config.Host = "https://" + f.apiserver
	}
}

// runSvcproxy serves until ctx ends, and leaves what is in the kernel there.
func runSvcproxy(ctx context.Context, flags *svcproxyFlags, stderr io.Writer) error {
	log, err := newLog(stderr, flags.logLevel.value, false)
	if err != nil {
		return err
	}
	takeKlog(log)
	limitMemory(os.DirFS("/"), os.Getenv, log)
	src, err := flags.source(log)
	if err != nil {
		return err
	}
	var ln net.Listener
	if flags.admin != "" {
		if ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", flags.admin.String()); err != nil {
			return wrongValue("admin", flags.admin.String(), err)
		}
	}
	plane, err := flags.plane(log)
	if err != nil {
		return err
	}
	defer plane.close()
	if plane.kernel != nil {
		if err := svcproxy.ReservePorts(svcproxy.PortRange(flags.nodePortRange)); err != nil {
			log.Warn("NodePorts are not kept free for Services", zap.Error(err))
		}
	}
	store := manifests.NewStore()
	metrics := newSvcproxyMetrics(plane)
	observer := metrics.observer()
	hurry(ctx, observer)
	controller := svcproxy.New(svcproxy.Config{
		Store: store, Plane: plane.Plane,
		Rules:    flags.rules(plane),
		Network:  svcproxy.Network{ClusterCIDRs: flags.clusterCIDR, NodePortAddresses: flags.nodePortAddresses},
		Outliers: plane.watch.outliers,
		Observe:  observer,
		Log:      log.Named("svcproxy"),
	})
	metrics.registry.MustRegister(newConnectionCounter(plane.counts.Counters, controller.State), newReasonCollector(plane.counts, controller.State))
	if plane.handover != nil {
		metrics.registry.MustRegister(newHandoverCollector(plane.handover))
	}
	plane.watch.register(metrics.registry, observer, controller.State)
	balance, err := newBalance(src.balancer, plane, controller, observer)
	if err != nil {
		return err
	}
	healthz := newHealthz(flags, controller.Health, log.Named("healthz"))
	api := newAdminServer(svcproxyAPI(flags, controller, store, metrics, healthz), log.Named("admin"))
	log.Info("starting", zap.String("version", version), zap.String("node", flags.nodeName), zap.String("admin", where(ln)))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return src.Run(ctx, store) })
	g.Go(func() error { return controller.Run(ctx) })
	g.Go(func() error { return balance(ctx) })
	g.Go(func() error { healthz.run(ctx); return nil })
	g.Go(func() error { tidy(ctx); return nil })
	g.Go(func() error { plane.run(ctx, log); return nil })
	if ln != nil {
		g.Go(func() error {
			if err := api.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("admin address: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		return api.Close()
	})
	return g.Wait()
}

// newBalance gives what makes LoadBalancer Services work: nothing without a cluster.
func newBalance(cfg *balancer.Config, plane *dataPlane, controller *svcproxy.Controller, observer *svcproxy.Observer) (func(context.Context) error, error) {
	if cfg == nil {
		return func(context.Context) error { return nil }, nil
	}
	cfg.Problems = controller.Problems
	if plane.handover != nil {
		cfg.Handover = plane.handover
	}
	b, err := balancer.New(*cfg)
	if err != nil {
		return nil, err
	}
	observer.Changed, observer.HealthPortTaken = b.Change, b.HealthPortTaken
	counted := observer.Outlier
	observer.Outlier = func(o svcproxy.Outlier) {
		counted(o)
		b.EndpointSkipped(o.Service, o.Skipped, o.Why)
	}
	return b.Run, nil
}

// prefixes are the values of a flag that may be repeated.
type prefixes []netip.Prefix

// String is what was given.
func (p *prefixes) String() string {
	words := make([]string, len(*p))
	for i, one := range *p {
		words[i] = one.String()
	}
	return strings.Join(words, ",")
}

// Type is what help shows.
func (p *prefixes) Type() string { return "CIDR" }

// Set checks s, and adds it to those given before.
func (p *prefixes) Set(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(one))
		if err != nil || prefix.Addr().Is4In6() {
			return errors.New("want address ranges like 10.244.0.0/16 or fd00::/48")
		}
		if prefix = prefix.Masked(); !slices.Contains(*p, prefix) {
			*p = append(*p, prefix)
		}
	}
	return nil
}

// portRange is first-last.
type portRange svcproxy.PortRange

// String is what was given.
func (r *portRange) String() string { return svcproxy.PortRange(*r).String() }

// Type is what help shows.
func (r *portRange) Type() string { return "first-last" }

// Set checks s.
func (r *portRange) Set(s string) error {
	parsed, err := svcproxy.ParsePortRange(s)
	*r = portRange(parsed)
	return err
}
