package balancer

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/portico-ingress/portico/svcproxy/addresses"
)

// metallb is the API group of pools and advertisements.
var metallb = schema.GroupVersion{Group: "metallb.io", Version: "v1beta1"}

// lookAgain is how often to look whether the resources of MetalLB have come.
const lookAgain = 5 * time.Second

// watcher keeps the settings of a cluster.
type watcher struct {
	cfg     *Config
	log     *zap.Logger
	changed func()

	nodes, configMaps cache.SharedIndexInformer

	// reading is held from looking at what there is until good knows: the last that good hears is the newest.
	reading sync.Mutex
	good    lastGood

	mu        sync.Mutex
	pools, l2 cache.SharedIndexInformer // nil while the cluster does not have the resource
}

func newWatcher(cfg *Config, log *zap.Logger, changed func()) *watcher {
	one := informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, PoolsConfigMap).String()
	})
	w := &watcher{
		cfg: cfg, log: log, changed: changed,
		nodes:      informers.NewSharedInformerFactory(cfg.Client, 0).Core().V1().Nodes().Informer(),
		configMaps: informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithNamespace(cfg.Namespace), one).Core().V1().ConfigMaps().Informer(),
	}
	// It fails only after the start.
	_ = w.nodes.SetTransform(trimNode)
	return w
}

// run watches until ctx ends. synced is closed when everything has been listed once.
func (w *watcher) run(ctx context.Context, synced chan<- struct{}) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, i := range []cache.SharedIndexInformer{w.nodes, w.configMaps} {
		w.start(ctx, &all, i)
	}
	looked := make(chan struct{})
	all.Go(func() { w.look(ctx, &all, looked) })
	select {
	case <-looked:
	case <-ctx.Done():
		return
	}
	if cache.WaitForCacheSync(ctx.Done(), w.nodes.HasSynced, w.configMaps.HasSynced, w.resourcesSynced) {
		close(synced)
	}
	<-ctx.Done()
}

func (w *watcher) start(ctx context.Context, all *sync.WaitGroup, i cache.SharedIndexInformer) {
	_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { w.changed() }, DeleteFunc: func(any) { w.changed() },
		UpdateFunc: func(before, after any) {
			if differ(before, after) {
				w.changed()
			}
		},
	})
	if err != nil {
		w.log.Error("cannot watch", zap.Error(err))
		return
	}
	all.Go(func() { i.Run(ctx.Done()) })
}

// look watches the resources of MetalLB as soon as the cluster has them. An API server that
// does not say makes it wait: without the pools, what they gave would look as if it were of none.
func (w *watcher) look(ctx context.Context, all *sync.WaitGroup, looked chan<- struct{}) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for first := true; ; {
		list, err := w.cfg.Client.Discovery().ServerResourcesForGroupVersion(metallb.String())
		found := 0
		if err == nil {
			for _, r := range list.APIResources {
				found += w.found(ctx, all, r.Name)
			}
		}
		if first && (err == nil || apierrors.IsNotFound(err)) {
			close(looked)
			first = false
		}
		if found == 2 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// found counts 1 for a resource that is watched from now on, if not before.
func (w *watcher) found(ctx context.Context, all *sync.WaitGroup, name string) int {
	to := map[string]*cache.SharedIndexInformer{"ipaddresspools": &w.pools, "l2advertisements": &w.l2}[name]
	if to == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if *to == nil {
		*to = dynamicinformer.NewFilteredDynamicInformer(w.cfg.Dynamic, metallb.WithResource(name), "", 0, cache.Indexers{}, nil).Informer()
		w.start(ctx, all, *to)
	}
	return 1
}

func (w *watcher) resources() (pools, l2 cache.SharedIndexInformer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pools, w.l2
}

func (w *watcher) resourcesSynced() bool {
	pools, l2 := w.resources()
	return (pools == nil || pools.HasSynced()) && (l2 == nil || l2.HasSynced())
}

// settings are what is known now, in the order of names.
func (w *watcher) settings() *settings {
	w.reading.Lock()
	defer w.reading.Unlock()
	poolsIn, l2In := w.resources()
	s := &settings{self: w.cfg.Node, nodes: typed[corev1.Node](w.nodes), configMaps: typed[corev1.ConfigMap](w.configMaps)}
	s.setPools(within(s, addresses.KindPool, w.cfg.PoolNamespaces, decoded[addresses.IPAddressPool](poolsIn)))
	s.l2 = w.good.heed(s, within(s, addresses.KindL2Advertisement, w.cfg.PoolNamespaces, decoded[addresses.L2Advertisement](l2In)))
	return s
}

func sortedObjects(i cache.SharedIndexInformer) []any {
	if i == nil {
		return nil
	}
	all := i.GetStore().List()
	slices.SortFunc(all, func(a, b any) int { return strings.Compare(keyOf(a), keyOf(b)) })
	return all
}

func keyOf(obj any) string {
	key, _ := cache.MetaNamespaceKeyFunc(obj)
	return key
}

func typed[T any](i cache.SharedIndexInformer) []*T {
	var all []*T
	for _, obj := range sortedObjects(i) {
		if v, ok := obj.(*T); ok {
			all = append(all, v)
		}
	}
	return all
}

// resource is a custom resource. With err, only its metadata could be read.
type resource[T any] struct {
	meta  metav1.ObjectMeta
	value T
	err   error
}

// decoded reads custom resources. The schema of the CRD has been through the API server: what
// does not fit is of another version of it.
func decoded[T any](i cache.SharedIndexInformer) []resource[T] {
	var all []resource[T]
	for _, obj := range sortedObjects(i) {
		u, ok := obj.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		r := resource[T]{meta: metav1.ObjectMeta{Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), Labels: u.GetLabels()}}
		r.err = runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r.value)
		all = append(all, r)
	}
	return all
}
