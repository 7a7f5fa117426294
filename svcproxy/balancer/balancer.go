package balancer

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/announce"
)

// again is how long after a failure the next try comes.
const again = 3 * time.Second

// Balancer gives out addresses and announces them. Its Run does the work.
type Balancer struct {
	cfg    Config
	log    *zap.Logger
	watch  *watcher
	events *eventSender
	// changed and allocate are poked when there is something to announce, and to give out.
	changed, allocate chan struct{}

	mu      sync.Mutex
	objects *manifests.Objects
	dirty   map[string]manifests.Ref
	// resources: something has changed besides Services.
	resources bool
	// candidates follow objects.
	candidates candidates
	// allot: the next round of the leader decides about all candidates.
	allot bool

	// What follows belongs to the goroutine of follow.
	claims map[string]serviceClaim

	told      sync.Mutex
	desired   announce.Desired
	announcer *announce.Announcer
	by        map[netip.Addr][]corev1.ObjectReference
	problems  []manifests.Problem
}

// New gives a Balancer that does nothing yet.
func New(cfg Config) (*Balancer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	b := &Balancer{
		cfg: cfg, log: cfg.Log, changed: make(chan struct{}, 1), allocate: make(chan struct{}, 1),
		dirty: map[string]manifests.Ref{}, claims: map[string]serviceClaim{},
		candidates: candidates{},
	}
	b.watch = newWatcher(&b.cfg, b.log, b.resourceChanged)
	b.events = newEventSender(cfg.Client, cfg.Node, b.log)
	return b, nil
}

// Change is to be called with every change of the Services and EndpointSlices, after it is live
// in the data plane of this node. It does not block.
func (b *Balancer) Change(c manifests.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects = c.Objects
	services := false
	for _, r := range c.Refs {
		switch r.Kind {
		case manifests.KindService:
			services = true
			if b.candidates.replace(r, c.Objects.Service(r.Namespace, r.Name)) {
				b.allot = true
			}
		case manifests.KindEndpointSlice: // by the name of its Service
		default:
			continue
		}
		r.Kind = manifests.KindService
		b.dirty[r.Namespace+"/"+r.Name] = r
	}
	if services {
		poke(b.allocate)
	}
	poke(b.changed)
}

func (b *Balancer) resourceChanged() {
	b.mu.Lock()
	b.resources, b.allot = true, true
	b.mu.Unlock()
	poke(b.changed)
	poke(b.allocate)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run works until ctx ends; then it gives away the addresses of this node, and the Lease.
func (b *Balancer) Run(ctx context.Context) error {
	synced := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	// The watches and Events outlive ctx, until everything is given away.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { b.watch.run(working, synced) })
	helpers.Go(func() { b.events.run(working) })
	select {
	case <-synced:
	case <-ctx.Done():
		return nil
	}
	poke(b.changed)
	g.Go(func() error { b.follow(ctx); return nil })
	g.Go(func() error { b.announce(ctx); return nil })
	g.Go(func() error { return elect(ctx, &b.cfg, b.lead) })
	return g.Wait()
}

// follow keeps what is to be announced.
func (b *Balancer) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.changed:
		}
		b.mu.Lock()
		objects, dirty, resources := b.objects, b.dirty, b.resources
		b.dirty, b.resources = map[string]manifests.Ref{}, false
		b.mu.Unlock()
		if objects != nil && (b.reclaim(objects, dirty) || resources) {
			b.publish()
		}
	}
}

// reclaim reads the Services named, and says whether that changes what is to be announced.
func (b *Balancer) reclaim(objects *manifests.Objects, dirty map[string]manifests.Ref) (changed bool) {
	for key, r := range dirty {
		before, had := b.claims[key]
		var now serviceClaim
		has := false
		if svc := objects.Service(r.Namespace, r.Name); svc != nil && b.cfg.serves(svc) {
			now, has = claimOf(svc, objects.EndpointSlices(r.Namespace, r.Name))
		}
		switch {
		case has && (!had || !now.equal(before)):
			b.claims[key], changed = now, true
		case had && !has:
			delete(b.claims, key)
			changed = true
		}
	}
	return changed
}

// publish tells the Announcer and the leader what is to be announced.
func (b *Balancer) publish() {
	s := b.watch.settings()
	p := s.pooled(b.cfg.Pools)
	desired, by, problems := s.desired(&p, b.claims)
	b.told.Lock()
	defer b.told.Unlock()
	if !slices.Equal(problems, b.problems) {
		poke(b.allocate)
	}
	b.desired, b.problems = desired, problems
	// What is told of an address that was given back is still about the Service it was of.
	old := b.by
	b.by = maps.Clone(by)
	for addr, refs := range old {
		if _, ok := b.by[addr]; !ok && len(old) < 2*len(by)+64 {
			b.by[addr] = refs
		}
	}
	if b.announcer != nil {
		b.announcer.Set(desired)
	}
}

// announce runs an Announcer, and another one if that fails.
func (b *Balancer) announce(ctx context.Context) {
	for ctx.Err() == nil {
		if err := b.announceOnce(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("LoadBalancer addresses are not announced from this node; tried again", zap.Error(err), zap.Duration("after", again))
			wait(ctx, again)
		}
	}
}

func (b *Balancer) announceOnce(ctx context.Context) error {
	key, err := heartbeatKey(ctx, b.cfg.Client.CoreV1().Secrets(b.cfg.Namespace))
	if err != nil {
		return err
	}
	a, err := announce.New(announce.Config{
		Node: b.cfg.Node, Listen: netip.AddrPortFrom(b.family(), HeartbeatPort), Key: key,
		Store:      &announce.LeaseStore{Leases: b.cfg.Client.CoordinationV1().Leases(b.cfg.Namespace), Name: AnnounceLease, Identity: b.cfg.Node},
		Interfaces: b.cfg.Interfaces, Handover: b.cfg.Handover, Events: b.happened, Log: b.log.Named("announce"),
	})
	if err != nil {
		return err
	}
	b.told.Lock()
	b.announcer = a
	a.Set(b.desired)
	b.told.Unlock()
	return a.Run(ctx)
}

// family is the unspecified address of the family in which the nodes talk to each other.
func (b *Balancer) family() netip.Addr {
	for _, n := range b.watch.settings().nodes {
		if all := addressesOf(n); n.Name == b.cfg.Node && len(all) > 0 && all[0].Is6() {
			return netip.IPv6Unspecified()
		}
	}
	return netip.IPv4Unspecified()
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
