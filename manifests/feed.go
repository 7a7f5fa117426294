package manifests

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// feed is one list-and-watch: one resource, in one namespace or all, or one object. It is
// the cache that client-go's Reflector writes to, and passes everything on trimmed, so that
// an object is held once, in the Store.
type feed struct {
	resource  resource
	namespace string // empty for all
	name      string // of the one object; empty for all
	selector  string // of labels, where the resource's own does not do
	to        sink
	access    *access
	synced    func() // called once: the first list is complete
}

// sink is where a feed's objects go.
type sink interface {
	put(obj metav1.Object)
	remove(name types.NamespacedName)
	// replace tells all that there is: what it does not have is gone.
	replace(all []metav1.Object)
}

// backoff is how long a feed waits after an error. The cap is lower than client-go's 30 s:
// a cluster that comes back is noticed soon, and a handful of requests every few seconds
// hurt nobody.
var backoff = wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Steps: 10, Cap: 2 * time.Second, Jitter: 0.5}

// run lists and watches until ctx ends, whatever happens to the API server.
func (f *feed) run(ctx context.Context) {
	f.synced = sync.OnceFunc(f.synced)
	lw := &cache.ListWatch{ListWithContextFunc: f.list, WatchFuncWithContext: f.watch}
	quiet := klog.Logger{} // access tells what is wrong, once
	r := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(lw, f.resource.client), f.resource.example, f,
		cache.ReflectorOptions{Name: "manifests/" + f.resource.name, Logger: &quiet, Backoff: &backoff})
	r.RunWithContext(klog.NewContext(ctx, quiet))
}

func (f *feed) list(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	list, err := f.resource.list(ctx, f.namespace, f.narrow(opts))
	if ctx.Err() == nil && f.access.report(f.question("list"), err) == denied && f.resource.optional {
		f.synced() // empty, as far as may be seen
	}
	if apierrors.IsNotFound(err) && f.resource.recent {
		f.synced()
		f.rest(ctx)
	}
	return list, err
}

// absentAgain is how often an API server is asked for a kind that it did not know: it may be a newer
// one by now.
const absentAgain = 10 * time.Minute

func (f *feed) rest(ctx context.Context) {
	again := time.NewTimer(absentAgain)
	defer again.Stop()
	select {
	case <-ctx.Done():
	case <-again.C:
	}
}

func (f *feed) watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	w, err := f.resource.watch(ctx, f.namespace, f.narrow(opts))
	streams := opts.SendInitialEvents != nil
	if ctx.Err() != nil || streams && apierrors.IsInvalid(err) { // an old API server cannot stream lists
		return w, err
	}
	f.access.report(f.question("watch"), err)
	if err != nil && streams {
		// The reflector sleeps on some errors of a streaming list without looking at ctx.
		// One that it does not know makes it try an ordinary list at once.
		return nil, fmt.Errorf("stream %s: %v", f.resource.name, err) //nolint:errorlint // see above
	}
	return w, err
}

func (f *feed) question(verb string) question {
	return question{verb: verb, resource: f.resource.name, namespace: f.namespace, name: f.name}
}

func (f *feed) narrow(opts metav1.ListOptions) metav1.ListOptions {
	opts.LabelSelector, opts.FieldSelector = f.resource.labels, f.resource.fields
	if f.selector != "" {
		opts.LabelSelector = f.selector
	}
	if f.name != "" {
		opts.FieldSelector = "metadata.name=" + f.name
	}
	return opts
}

// Transformer makes the reflector trim and pack each object of a streaming list as it arrives.
func (f *feed) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return compact(obj), nil }
}

// Add is called by the reflector.
func (f *feed) Add(obj any) error {
	f.to.put(compact(obj))
	return nil
}

// Update is called by the reflector.
func (f *feed) Update(obj any) error { return f.Add(obj) }

// Delete is called by the reflector.
func (f *feed) Delete(obj any) error {
	f.to.remove(nameOf(trim(obj)))
	return nil
}

// Replace is called by the reflector after every list.
func (f *feed) Replace(list []any, _ string) error {
	objects := make([]metav1.Object, len(list))
	for i, obj := range list {
		objects[i] = compact(obj)
	}
	f.to.replace(objects)
	f.access.report(f.question("list"), nil) // a streaming list may have done it
	f.synced()
	return nil
}

// Resync is called by the reflector never: there is no resync period.
func (f *feed) Resync() error { return nil }

func nameOf(obj metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// storeSink puts the objects of one feed into the Store.
type storeSink struct {
	store *Store
	kind  string

	mu   sync.Mutex
	have map[types.NamespacedName]struct{} // what this feed has put, and nothing else
	// wanted is the one object of a feed that has one: absent is then an answer too.
	wanted *Ref
	closed bool
}

func newStoreSink(store *Store, kind string) *storeSink {
	return &storeSink{store: store, kind: kind, have: map[types.NamespacedName]struct{}{}}
}

func (s *storeSink) ref(n types.NamespacedName) Ref {
	return Ref{Kind: s.kind, Namespace: n.Namespace, Name: n.Name}
}

func (s *storeSink) put(obj metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.have[nameOf(obj)] = struct{}{}
	s.store.Put(obj)
}

func (s *storeSink) remove(n types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	delete(s.have, n)
	s.store.Delete(s.ref(n))
}

// replace makes the difference one Update, so that a list after a long absence of the API
// server is one change and objects that are the same are none.
func (s *storeSink) replace(all []metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	now := make(map[types.NamespacedName]struct{}, len(all))
	had := s.store.snapshot()
	var changed []metav1.Object
	for _, obj := range all {
		n := nameOf(obj)
		now[n] = struct{}{}
		// Not by resourceVersion: after a restored backup the same one can mean two things.
		if !had.same(s.ref(n), obj) {
			changed = append(changed, obj)
		}
	}
	s.store.Update(func(put func(metav1.Object), remove func(Ref)) {
		for _, obj := range changed {
			put(obj)
		}
		for n := range s.have {
			if _, ok := now[n]; !ok {
				remove(s.ref(n))
			}
		}
		if s.wanted != nil && len(all) == 0 {
			remove(*s.wanted)
		}
	})
	s.have = now
}

// close removes all that the feed has put; what still comes is ignored.
func (s *storeSink) close() {
	s.replace(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}
