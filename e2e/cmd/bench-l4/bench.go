package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portico-ingress/portico/e2e/binaries"
	"github.com/portico-ingress/portico/e2e/cluster"
)

// bench is one run.
//
//	control  API server, and the Pod A of the probe
//	node1    kube-proxy           node2    Portico           node3    the Pod B of the probe
//	  pod1     connects             pod2     connects
type bench struct {
	cfg        config
	log        io.Writer
	up         *cluster.Cluster
	objects    *objects
	candidates []*candidate
	extra      []*candidate // of the failover
	listeners  []net.Listener
	report     *report
	// at is which of the probe's endpoints it has now.
	at int
}

// clusterCIDR is where the cluster's Pods are.
const clusterCIDR = "10.244.0.0/16"

// probed is the probe's address.
var probed = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 1, 1}), servicePort)

// servers are the probe's endpoints: hosts of the cluster, and the names by which they answer.
var servers = []struct {
	host string
	name byte
}{{cluster.ControlHost, 'A'}, {"node3", 'B'}}

func (b *bench) server(i int) netip.Addr { return b.up.HostIP(servers[i].host) }

// measure boots the cluster, measures, and removes everything. What was measured before an error is
// in the report.
func measure(ctx context.Context, cfg config, log io.Writer) (r *report, err error) {
	b := &bench{cfg: cfg, log: log, report: &report{cfg: cfg, begun: time.Now(), load: loadAverage(), before: readMachineTime()}}
	b.up, err = cluster.Up(ctx, cluster.Config{
		Name: "l4bench", Nodes: 3, IPv4Only: true, WithoutKubeProxy: true, Bare: true, Log: log,
		Binaries: binaries.Options{Module: cfg.module},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close(context.WithoutCancel(ctx))) }()
	if err := b.setUp(ctx); err != nil {
		return nil, err
	}
	err = b.run(ctx)
	b.report.took, b.report.loadAfter, b.report.after = time.Since(b.report.begun), loadAverage(), readMachineTime()
	return b.report, err
}

func (b *bench) close(ctx context.Context) error {
	for _, c := range slices.Concat(b.candidates, b.extra) {
		c.stop()
	}
	for _, l := range b.listeners {
		_ = l.Close()
	}
	return b.up.Down(ctx)
}

// setUp makes what both candidates use.
func (b *bench) setUp(ctx context.Context) error {
	var err error
	if b.objects, err = newObjects(b.up, b.cfg.named); err != nil {
		return err
	}
	if err := b.objects.register(ctx, b.up); err != nil {
		return err
	}
	for _, s := range servers {
		if err := b.listen(s.host, s.name); err != nil {
			return err
		}
	}
	proxy, err := b.up.KubeProxy("node1")
	if err != nil {
		return err
	}
	b.candidates = []*candidate{
		{name: kubeProxy, node: "node1", pod: "pod1", argv: proxy, synced: "Caches are synced"},
		b.portico("node2", "pod2"),
	}
	for i, c := range b.candidates {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 10})
		if err := b.up.AddPod(ctx, c.node, c.pod, addr); err != nil {
			return err
		}
	}
	if b.cfg.alone {
		b.candidates = slices.DeleteFunc(b.candidates, func(c *candidate) bool { return c.name == kubeProxy })
	}
	b.report.versions = b.versions(ctx)
	return b.objects.create(ctx, newService(probe, probed.Addr()), b.server(b.at))
}

// Names of the candidates, also in the table.
const (
	kubeProxy = "kube-proxy"
	portico   = "portico"
)

func (b *bench) portico(node, pod string, more ...string) *candidate {
	return &candidate{
		name: portico, node: node, pod: pod, synced: "all of the cluster has been read once",
		env: []string{"POD_NAMESPACE=" + namespace},
		argv: append([]string{
			b.cfg.portico, "svcproxy", "--kubeconfig", b.up.Kubeconfig(), "--node-name", node,
			"--mode", "nftables", "--cluster-cidr", clusterCIDR,
		}, more...),
	}
}

func (b *bench) listen(host string, name byte) error {
	var l net.Listener
	err := b.up.Do(host, func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", podPort))
		return err
	})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", host, err)
	}
	b.listeners = append(b.listeners, l)
	go serve(l, name)
	return nil
}

// stage is what is measured at one number of Services.
type stage struct {
	services, endpoints int
	measurements        []string
	do                  func(*bench, context.Context) error
}

// running are the stages at which the candidates run while Services are written.
var running = []stage{
	{10, 10, []string{"switch-10", "connect-10"}, (*bench).small},
	{200, 10, []string{"switch-200"}, func(b *bench, ctx context.Context) error { return b.switching(ctx, "switch-200") }},
	{2000, 10, []string{"switch-2000", "connect-2000"}, (*bench).medium},
	{10000, 10, []string{"fill", "memory", "memory-started", "switch-10000"}, (*bench).large},
}

func (b *bench) run(ctx context.Context) error {
	if b.cfg.wants("failover") {
		if err := b.failover(ctx); err != nil {
			return err
		}
	}
	if err := b.stages(ctx); err != nil {
		return err
	}
	if !b.cfg.wants("cold-start", "connect-20000") {
		return nil
	}
	return b.cold(ctx, 20000, 2)
}

func (b *bench) stages(ctx context.Context) error {
	started := false
	for _, s := range running {
		if !b.cfg.wants(s.measurements...) {
			continue
		}
		if !started {
			for _, c := range b.candidates {
				if err := b.fresh(ctx, c); err != nil {
					return err
				}
			}
			started = true
		}
		if err := b.fill(ctx, s); err != nil {
			return err
		}
		if err := s.do(b, ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) small(ctx context.Context) error {
	return errors.Join(b.switching(ctx, "switch-10"), b.connecting(ctx, "connect-10"))
}

func (b *bench) medium(ctx context.Context) error {
	return errors.Join(b.switching(ctx, "switch-2000"), b.connecting(ctx, "connect-2000"))
}

func (b *bench) large(ctx context.Context) error {
	if b.cfg.wants("memory") {
		if err := b.remembering(ctx, &b.report.memory); err != nil {
			return err
		}
	}
	if b.cfg.wants("memory-started") {
		if err := b.restarting(ctx); err != nil {
			return err
		}
	}
	return b.switching(ctx, "switch-10000")
}

// fresh starts a candidate on an empty kernel, and waits until it serves.
func (b *bench) fresh(ctx context.Context, c *candidate) error {
	if _, err := b.up.Exec(ctx, c.node, "nft", "flush", "ruleset"); err != nil {
		return err
	}
	if err := c.start(ctx, b.up); err != nil {
		return err
	}
	return b.serves(ctx, c)
}

// serves waits until connections through the candidate go to where the probe says.
func (b *bench) serves(ctx context.Context, c *candidate) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.patience, fmt.Errorf("%s: not within %v", c.name, b.cfg.patience))
	defer cancel()
	return b.up.Do(c.pod, func() error { return askFor(ctx, probed, servers[b.at].name, c.running) })
}

const (
	// quietFor is over how long a candidate has to be quiet, and quietShare of a core what it may use.
	quietFor   = 2 * time.Second
	quietShare = 0.05
)

// quiet waits until the candidate does next to nothing.
func (b *bench) quiet(ctx context.Context, c *candidate) error {
	for begun := time.Now(); time.Since(begun) < b.cfg.patience; {
		before, err := c.cpu()
		if err != nil {
			return err
		}
		if err := pause(ctx, quietFor); err != nil {
			return err
		}
		after, err := c.cpu()
		if err != nil {
			return err
		}
		if (after - before).Seconds() < quietShare*quietFor.Seconds() {
			return nil
		}
	}
	return fmt.Errorf("%s: still busy after %v", c.name, b.cfg.patience)
}

// settled lets a candidate run, and waits until it has nothing to do.
func (b *bench) settled(ctx context.Context, c *candidate) error {
	c.thaw()
	if err := b.serves(ctx, c); err != nil {
		return err
	}
	return b.quiet(ctx, c)
}

// fill writes the Services of a stage while both candidates run, and notes the CPU that they need.
func (b *bench) fill(ctx context.Context, s stage) error {
	before := make([]time.Duration, len(b.candidates))
	for i, c := range b.candidates {
		c.thaw()
		var err error
		if before[i], err = c.cpu(); err != nil {
			return err
		}
	}
	begun := time.Now()
	if err := b.objects.grow(ctx, s.services, s.endpoints); err != nil {
		return err
	}
	fmt.Fprintf(b.log, "%d Services of %d endpoints written in %v\n", s.services, s.endpoints, time.Since(begun).Round(100*time.Millisecond))
	// The last change says when all those before it have come to the kernel.
	if err := b.turnProbe(ctx); err != nil {
		return err
	}
	after := make([]time.Duration, len(b.candidates))
	var settling errgroup.Group // each is done when it is, and not when the other one is, too
	for i, c := range b.candidates {
		settling.Go(func() (err error) {
			if err := b.settled(ctx, c); err != nil {
				return err
			}
			after[i], err = c.cpu()
			return err
		})
	}
	if err := settling.Wait(); err != nil {
		return err
	}
	for i, c := range b.candidates {
		used := (after[i] - before[i]).Seconds()
		b.report.fill.add(c.name, used)
		fmt.Fprintf(b.log, "%10s  fill to %d: %.2f s of CPU\n", c.name, s.services, used)
	}
	b.report.filled = s.services
	return nil
}

// turnProbe gives the probe its other endpoint.
func (b *bench) turnProbe(ctx context.Context) error {
	next := 1 - b.at
	if err := b.objects.patch(ctx, probe, "/endpoints/0/addresses/0", b.server(next).String()); err != nil {
		return err
	}
	b.at = next
	return nil
}

// turns gives each candidate its turn, in another order each round. The others are frozen: they
// would get the same changes and take the CPU for them.
func (b *bench) turns(ctx context.Context, do func(*candidate) error) error {
	for round := range b.cfg.rounds {
		for i := range b.candidates {
			c := b.candidates[(i+round)%len(b.candidates)]
			for _, other := range b.candidates {
				if other != c {
					other.freeze()
				}
			}
			if err := errors.Join(b.settled(ctx, c), ctx.Err()); err != nil {
				return err
			}
			if err := do(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest is between two switches: kube-proxy writes at most once a second, and what is measured is
// not how long a change has to wait for the one before.
const rest = 1200 * time.Millisecond

// switching measures how long a changed endpoint takes until new connections go to it.
func (b *bench) switching(ctx context.Context, what string) error {
	if !b.cfg.wants(what) {
		return nil
	}
	return b.turns(ctx, func(c *candidate) error {
		var took []time.Duration
		err := b.up.Do(c.pod, func() error {
			for begun := time.Now(); len(took) < b.cfg.switches && time.Since(begun) < b.cfg.turn; {
				if err := pause(ctx, rest); err != nil {
					return err
				}
				one, err := b.switchOnce(ctx, c)
				if err != nil {
					return err
				}
				took = append(took, one)
			}
			return nil
		})
		b.report.switches.add(what, c.name, took...)
		fmt.Fprintf(b.log, "%10s  %s: p50 %v, max %v of %d\n", c.name, what, median(took), longest(took), len(took))
		return err
	})
}

func (b *bench) switchOnce(ctx context.Context, c *candidate) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.patience, fmt.Errorf("%s: not within %v", c.name, b.cfg.patience))
	defer cancel()
	if err := b.turnProbe(ctx); err != nil {
		return 0, err
	}
	answered := time.Now()
	err := askFor(ctx, probed, servers[b.at].name, c.running)
	return time.Since(answered), err
}

// connecting measures what connecting through a Service costs.
func (b *bench) connecting(ctx context.Context, what string) error {
	if !b.cfg.wants(what) {
		return nil
	}
	return b.turns(ctx, func(c *candidate) error { return b.connectTurn(ctx, what, c) })
}

func (b *bench) connectTurn(ctx context.Context, what string, c *candidate) error {
	to := netip.AddrPortFrom(b.server(b.at), podPort)
	return b.up.Do(c.pod, func() error {
		directly, through, err := pairs(ctx, to, probed, b.cfg.connects)
		if err != nil {
			return err
		}
		b.report.connects.add(what, c.name, connects{median(directly), median(through)})
		fmt.Fprintf(b.log, "%10s  %s: %v directly, %v through the Service\n", c.name, what, median(directly), median(through))
		return nil
	})
}

// idle is how long after a fill or a start memory is looked at.
const idle = 20 * time.Second

func (b *bench) remembering(ctx context.Context, into *by[memory]) error {
	if err := pause(ctx, idle); err != nil {
		return err
	}
	for _, c := range b.candidates {
		resident, peak, err := c.memory()
		if err != nil {
			return err
		}
		into.add(c.name, memory{resident, peak})
		fmt.Fprintf(b.log, "%10s  memory: %d MB, at most %d MB\n", c.name, resident/1e6, peak/1e6)
	}
	return nil
}

// restarting measures the memory of programs that are started among the Services.
func (b *bench) restarting(ctx context.Context) error {
	for range b.cfg.rounds {
		for _, c := range b.candidates {
			c.stop()
			if err := b.fresh(ctx, c); err != nil {
				return err
			}
		}
		if err := b.remembering(ctx, &b.report.memoryStarted); err != nil {
			return err
		}
	}
	return nil
}

// cold measures starts among many Services on an empty kernel, and what connecting costs then. One
// candidate runs at a time.
func (b *bench) cold(ctx context.Context, services, each int) error {
	for _, c := range b.candidates {
		c.stop()
	}
	begun := time.Now()
	if err := b.objects.grow(ctx, services, each); err != nil {
		return err
	}
	fmt.Fprintf(b.log, "%d Services of %d endpoints written in %v\n", services, each, time.Since(begun).Round(100*time.Millisecond))
	for round := range b.cfg.rounds {
		for i := range b.candidates {
			if err := b.coldTurn(ctx, b.candidates[(i+round)%len(b.candidates)]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) coldTurn(ctx context.Context, c *candidate) error {
	defer c.stop()
	if err := b.fresh(ctx, c); err != nil {
		return err
	}
	done := time.Now()
	synced := c.marks.when()
	if synced.IsZero() {
		return fmt.Errorf("%s has not said %q", c.name, c.synced)
	}
	if b.cfg.wants("cold-start") {
		b.report.colds.add(c.name, coldStart{synced.Sub(c.started), done.Sub(synced)})
		fmt.Fprintf(b.log, "%10s  cold start: %v to read, %v to serve\n", c.name, synced.Sub(c.started), done.Sub(synced))
	}
	if !b.cfg.wants("connect-20000") {
		return nil
	}
	if err := b.quiet(ctx, c); err != nil {
		return err
	}
	return b.connectTurn(ctx, "connect-20000", c)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// versions says what was compared, and on what.
func (b *bench) versions(ctx context.Context) []string {
	return append(machine(ctx), firstLine(ctx, b.cfg.portico, "version"), "kube-proxy "+binaries.KubernetesVersion+" --proxy-mode nftables, etcd and kube-apiserver of the same version")
}
