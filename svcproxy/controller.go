package svcproxy

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
)

const (
	// retryFirst and retryLast are how long after a write that failed the next is tried.
	retryFirst = 20 * time.Millisecond
	retryLast  = 5 * time.Second
)

// Controller keeps the data plane equal to what a Store says. One goroutine owns everything: the
// first change is made at once, and those that come meanwhile are the next.
type Controller struct {
	cfg   Config
	log   *zap.Logger
	state atomic.Pointer[State]
	ran   atomic.Bool
	// born is when New was called, beat when the goroutine of Run last worked, pending since when the
	// changes wait that it has taken; nil: there are none.
	born          time.Time
	beat, pending atomic.Pointer[time.Time]
	asked         chan question

	// What follows belongs to the goroutine of Run.
	compiler *compiler
	health   *healthServers
	outliers *outliers
	pace     pace
	complete bool // the data plane has once been told everything
	network  Network
	nodeSeen bool
	// since is when the oldest change that is not live yet reached the Store.
	since time.Time
	// retry is when to try again; zero: nothing failed.
	retry time.Time
	wait  time.Duration
}

// State is what a Controller has done. It is immutable.
type State struct {
	// Ready: the first complete view of the cluster is live.
	Ready bool
	// Err is why what is live is not what is wanted, or nil; FailedSince when that began.
	Err         error
	FailedSince time.Time
	// Updated is when the last change was live; zero: none was yet.
	Updated time.Time
	// NodeEligible is false if the node is about to be deleted, or was.
	NodeEligible bool
	// Programming is how long the last change took from the Store until it was live.
	Programming time.Duration
	services    *tree
	// troubled are those of them that have Problems.
	troubled *tree
	source   []manifests.Problem
}

// Services walks all Services by namespace and name.
func (s *State) Services() iter.Seq[*Service] {
	return walk(s.services)
}

func walk(t *tree) iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		if t != nil {
			t.Scan(func(_ string, s *Service) bool { return yield(s) })
		}
	}
}

// Problems are those of the source and of all Services. They cost as much as there are of them.
func (s *State) Problems() []manifests.Problem {
	all := slices.Clone(s.source)
	for v := range walk(s.troubled) {
		all = append(all, v.Problems...)
	}
	return all
}

// New returns a Controller that does nothing until Run.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg, log: cfg.log(), wait: retryFirst, asked: make(chan question), born: time.Now()}
	c.state.Store(&State{NodeEligible: true})
	c.alive()
	return c
}

// State is what there is now.
func (c *Controller) State() *State { return c.state.Load() }

// Problems are those of the source and of all Services, and what this host cannot serve.
func (c *Controller) Problems() []manifests.Problem {
	return append(c.State().Problems(), c.cfg.Plane.Problems()...)
}

// Run serves until ctx ends, and leaves what is live as it is. An error means that it could not
// start.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.cfg.Validate(); err != nil {
		return err
	}
	if c.ran.Swap(true) {
		return errors.New("svcproxy: Controller.Run called twice")
	}
	c.compiler = newCompiler(c.cfg.Rules)
	c.health = newHealthServers(c.cfg.NodePortAddresses, c.Ready, c.healthPortTaken)
	c.outliers = newOutliers(c.cfg.Outliers, c.log)
	if c.outliers != nil {
		c.compiler.at.failing = c.outliers.Failing
	}
	defer c.outliers.close()
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	helpers.Go(func() { c.cfg.Plane.Run(ctx) })
	defer c.health.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	beat := time.NewTicker(c.late() / 4)
	defer beat.Stop()
	for {
		c.alive()
		if at := earlier(earlier(c.retry, c.compiler.nextLetGo()), c.health.again); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		case <-c.cfg.Store.Changed():
			c.gather(ctx)
			c.pace.took(c.take(), time.Now())
		case q := <-c.asked:
			q.answer <- c.explain(q)
		case <-timer.C:
			c.letGo()
			c.again()
			c.healthAgain()
		case f := <-c.outliers.failures():
			c.connectionFailed(ctx, f)
		case a := <-c.outliers.answered():
			c.probed(a)
		case <-c.outliers.due():
			c.tryAgain(ctx)
		}
	}
}

// gather waits for what follows a change of a stream of them.
func (c *Controller) gather(ctx context.Context) {
	d := c.pace.wait(time.Now())
	if d == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// letGo takes endpoints away that were held long enough.
func (c *Controller) letGo() {
	start := time.Now()
	if delta := c.compiler.letGo(); len(delta.Put) > 0 {
		c.program(delta, c.state.Load().source, time.Since(start))
	}
}

// take makes live what has changed in the Store, and gives how much that was.
func (c *Controller) take() (changes int) {
	change, ok := c.cfg.Store.Take()
	if !ok {
		return 0
	}
	start := time.Now()
	if c.since.IsZero() {
		c.since = change.Since
	}
	since := c.since
	c.pending.Store(&since)
	// The place first: all that is compiled afterwards goes by it.
	c.compiler.objects = change.Objects
	node := change.Objects.Node(c.cfg.NodeName)
	c.nodeSeen = c.nodeSeen || node != nil
	moved := c.compiler.setPlace(placeOf(c.cfg.NodeName, node))
	delta := c.compiler.apply(change)
	if len(moved.Put) > 0 {
		delta = moved.and(delta)
	}
	c.outliers.review(delta)
	c.program(delta, change.Problems, time.Since(start))
	if o := c.cfg.Observe; o != nil && o.Changed != nil {
		o.Changed(change)
	}
	return len(change.Refs)
}

// program makes live what has been compiled.
func (c *Controller) program(delta Delta, problems []manifests.Problem, compile time.Duration) {
	update := Update{Delta: delta, Complete: !c.complete}
	if network := c.cfg.with(c.compiler.objects); !c.complete || !slices.Equal(network.ServiceCIDRs, c.network.ServiceCIDRs) {
		c.network, update.Network = network, &network
	}
	start := time.Now()
	err := c.cfg.Plane.Apply(update)
	// From now on the data plane remembers what it was told, whether it was written or not.
	c.complete = true
	c.health.apply(delta)
	c.finish(err, problems, compile, time.Since(start))
}

// healthAgain tries to serve each healthCheckNodePort where it should be.
func (c *Controller) healthAgain() {
	if at := c.health.again; !at.IsZero() && !time.Now().Before(at) {
		c.health.settle()
	}
}

// healthPortTaken tells that a healthCheckNodePort cannot be served.
func (c *Controller) healthPortTaken(namespace, name string, port uint16, err error) {
	c.log.Warn("healthCheckNodePort cannot be served; free the port, or give the Service another",
		zap.String("service", namespace+"/"+name), zap.Error(err))
	o := c.cfg.Observe
	if o == nil || o.HealthPortTaken == nil {
		return
	}
	o.HealthPortTaken(c.reference(namespace, name), port, err)
}

// and gives both one after the other.
func (d Delta) and(next Delta) Delta {
	return Delta{
		Put:    append(slices.Clone(d.Put), next.Put...),
		Delete: append(slices.Clone(d.Delete), next.Delete...),
		Gone:   append(slices.Clone(d.Gone), next.Gone...),
	}
}

// again tries what has failed.
func (c *Controller) again() {
	if c.retry.IsZero() || time.Now().Before(c.retry) {
		return
	}
	start := time.Now()
	c.finish(c.cfg.Plane.Repair(), c.state.Load().source, 0, time.Since(start))
}

func (c *Controller) finish(err error, problems []manifests.Problem, compile, write time.Duration) {
	before := c.state.Load()
	next := &State{
		Ready: before.Ready || err == nil, Err: err, Updated: before.Updated,
		NodeEligible: eligible(c.compiler.objects.Node(c.cfg.NodeName), c.nodeSeen),
		services:     c.compiler.services.Copy(), troubled: c.compiler.troubled.Copy(), source: problems,
	}
	defer c.state.Store(next)
	if err != nil {
		if next.FailedSince = before.FailedSince; next.FailedSince.IsZero() {
			next.FailedSince = time.Now()
		}
		c.retry = time.Now().Add(c.wait)
		c.wait = min(2*c.wait, retryLast)
		c.log.Warn("Services could not be programmed; what is live stays, and it is tried again", zap.Error(err))
		if o := c.cfg.Observe; o != nil && o.Failed != nil {
			o.Failed(err)
		}
		return
	}
	c.retry, c.wait = time.Time{}, retryFirst
	next.Updated = time.Now()
	c.pending.Store(nil)
	if c.since.IsZero() {
		return
	}
	next.Programming = time.Since(c.since)
	c.since = time.Time{}
	if o := c.cfg.Observe; o != nil && o.Programmed != nil {
		o.Programmed(compile, write, next.Programming)
	}
}

// placeOf reads where a node is; n may be nil.
func placeOf(name string, n *corev1.Node) here {
	at := here{place: place{node: name}}
	if n == nil {
		return at
	}
	at.zone = n.Labels[corev1.LabelTopologyZone]
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			at.addresses = append(at.addresses, addr)
		}
	}
	return at
}
