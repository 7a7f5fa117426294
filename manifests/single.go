package manifests

import (
	"context"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// single watches one wanted object by its name: a ConfigMap, or a Secret or Service in a
// namespace that is not watched otherwise. They are few. A Service has its EndpointSlices
// beside it.
type single struct {
	cancel context.CancelFunc
	ref    Ref
	store  *Store
	access *access
	feeds  []*feed
	sinks  []*storeSink
}

func (r *clusterRun) startSingle(ref Ref) *single {
	ctx, cancel := context.WithCancel(r.ctx)
	s := &single{cancel: cancel, ref: ref, store: r.store, access: r.access}
	r.store.SetPending(ref, true)
	switch ref.Kind {
	case KindSecret:
		s.add(secrets(r.config.Client)).name = ref.Name
	case KindConfigMap:
		s.add(configMaps(r.config.Client)).name = ref.Name
	case KindService:
		// The slices first: when the Service is there, it is not pending any more.
		s.add(endpointSlices(r.config.Client)).selector = discoveryv1.LabelServiceName + "=" + ref.Name
		s.add(services(r.config.Client)).name = ref.Name
	}
	s.sinks[len(s.sinks)-1].wanted = &ref
	for i, f := range s.feeds[:len(s.feeds)-1] {
		f.synced = func() { r.runSingle(ctx, s.feeds[i+1]) }
	}
	r.runSingle(ctx, s.feeds[0])
	return s
}

func (r *clusterRun) runSingle(ctx context.Context, f *feed) {
	r.feeds.Go(func() {
		f.run(ctx)
		r.access.forget(f.question("list"), f.question("watch"))
	})
}

func (s *single) add(resource resource) *feed {
	sink := newStoreSink(s.store, resource.kind)
	f := &feed{resource: resource, namespace: s.ref.Namespace, to: sink, access: s.access, synced: func() {}}
	s.sinks, s.feeds = append(s.sinks, sink), append(s.feeds, f)
	return f
}

// stop ends the watch and takes the object out of the Store.
func (s *single) stop() {
	s.cancel()
	for _, sink := range s.sinks {
		sink.close()
	}
	s.store.SetPending(s.ref, false)
}
