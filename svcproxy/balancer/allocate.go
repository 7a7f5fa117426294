package balancer

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
)

// gather is how long changes are collected before addresses are given out: a folder of
// Services that is applied is one round.
const gather = 20 * time.Millisecond

// lead gives out addresses until ctx ends.
func (b *Balancer) lead(ctx context.Context) {
	b.log.Info("this node's svcproxy is the leader: it gives LoadBalancer Services their addresses")
	namespaces := informers.NewSharedInformerFactory(b.cfg.Client, 0).Core().V1().Namespaces().Informer()
	if _, err := namespaces.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { b.allotAll() }, UpdateFunc: func(any, any) { b.allotAll() },
	}); err != nil {
		b.log.Error("cannot watch namespaces", zap.Error(err))
		return
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { namespaces.Run(ctx.Done()) })
	if !cache.WaitForCacheSync(ctx.Done(), namespaces.HasSynced) {
		return
	}
	controller, err := addresses.NewController(addresses.Config{Client: b.cfg.Client, Identity: b.cfg.Node, Class: b.cfg.Class, OnlyClass: b.cfg.OnlyClass, Log: b.log})
	if err != nil {
		b.log.Error("nobody gives out addresses", zap.Error(err))
		return
	}
	b.allotAll()
	var told []manifests.Problem
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-b.allocate:
		}
		wait(ctx, gather)
		unserved := b.unserved()
		if !b.due() && slices.Equal(unserved, told) {
			continue
		}
		s, ok := b.state(namespaces, unserved)
		if !ok {
			continue
		}
		told = unserved
		if _, err := controller.Sync(ctx, s); err != nil && ctx.Err() == nil {
			b.log.Warn("not everything about LoadBalancer Services could be written; tried again", zap.Error(err))
			wait(ctx, again)
			b.allotAll()
		}
	}
}

// allotAll has the next round decide about all candidates.
func (b *Balancer) allotAll() {
	b.mu.Lock()
	b.allot = true
	b.mu.Unlock()
	poke(b.allocate)
}

// due says whether anything has changed since the last round that addresses depend on. Most changes
// of a cluster are of Services that have none.
func (b *Balancer) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.allot
}

// state is what is decided from; false, if no Service is known yet. If nobody has made a pool
// LoadBalancer Services are somebody else's, and it has only those that something was written to. It costs what candidates and
// problems there are.
func (b *Balancer) state(namespaces cache.SharedIndexInformer, unserved []manifests.Problem) (addresses.State, bool) {
	b.mu.Lock()
	objects, services := b.objects, b.candidates.list()
	b.allot = b.allot && objects == nil // what changes from here on is for the next round
	b.mu.Unlock()
	if objects == nil {
		return addresses.State{}, false
	}
	settings := b.watch.settings()
	p := settings.pooled(b.cfg.Pools)
	s := addresses.State{
		Pools: p.pools, PoolProblems: append(p.problems, settings.problems...), Unserved: unserved,
		NamespaceLabels: map[string]map[string]string{},
	}
	for _, ns := range typed[corev1.Namespace](namespaces) {
		s.NamespaceLabels[ns.Name] = ns.Labels
	}
	for _, u := range unserved {
		if svc := objects.Service(u.Object.Namespace, u.Object.Name); svc != nil {
			settings.uid(u.Object, svc.UID)
		}
	}
	s.UIDs = settings.uids
	if len(p.pools)+len(p.problems)+len(settings.unreadable) == 0 {
		services = slices.DeleteFunc(services, func(svc *corev1.Service) bool { return !touched(svc) })
	}
	s.Services = services
	return s, true
}

// unserved are problems of Services besides those of giving out addresses.
func (b *Balancer) unserved() []manifests.Problem {
	b.told.Lock()
	all := append([]manifests.Problem(nil), b.problems...)
	b.told.Unlock()
	if b.cfg.Problems != nil {
		for _, p := range b.cfg.Problems() {
			if p.Object.Kind == manifests.KindService {
				all = append(all, p)
			}
		}
	}
	return unique(all)
}
