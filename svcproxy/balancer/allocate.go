package balancer

import (
	"context"
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
		AddFunc: func(any) { poke(b.allocate) }, UpdateFunc: func(any, any) { poke(b.allocate) },
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
	controller, err := addresses.NewController(addresses.Config{Client: b.cfg.Client, Identity: b.cfg.Node, Log: b.log})
	if err != nil {
		b.log.Error("nobody gives out addresses", zap.Error(err))
		return
	}
	poke(b.allocate)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-b.allocate:
		}
		wait(ctx, gather)
		s, ok := b.state(namespaces)
		if !ok {
			continue
		}
		if _, err := controller.Sync(ctx, s); err != nil && ctx.Err() == nil {
			b.log.Warn("not everything about LoadBalancer Services could be written; tried again", zap.Error(err))
			wait(ctx, again)
			poke(b.allocate)
		}
	}
}

// state is what is decided from; false, if there is nothing to decide: no Service is known yet,
// or nobody has made a pool, so that LoadBalancer Services are somebody else's.
func (b *Balancer) state(namespaces cache.SharedIndexInformer) (addresses.State, bool) {
	b.mu.Lock()
	objects := b.objects
	b.mu.Unlock()
	if objects == nil {
		return addresses.State{}, false
	}
	p := b.watch.settings().pooled(b.cfg.Pools)
	s := addresses.State{
		Pools: p.pools, PoolProblems: p.problems, UIDs: p.uids, Unserved: b.unserved(),
		NamespaceLabels: map[string]map[string]string{},
	}
	for _, ns := range typed[corev1.Namespace](namespaces) {
		s.NamespaceLabels[ns.Name] = ns.Labels
	}
	about := map[manifests.Ref]bool{}
	for _, u := range s.Unserved {
		about[u.Object] = true
	}
	ours := len(p.pools)+len(p.problems) > 0
	for svc := range objects.Services() {
		_, given := svc.Annotations[addresses.AnnotationFrom]
		ref := manifests.Ref{Kind: manifests.KindService, Namespace: svc.Namespace, Name: svc.Name}
		if given || svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
			s.Services = append(s.Services, svc)
		}
		if about[ref] {
			s.UIDs[ref] = svc.UID
		}
		ours = ours || given
	}
	if !ours {
		s.Services = nil
	}
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
