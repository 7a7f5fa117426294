package manifests

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/workqueue"
)

// secretFetcher keeps the wanted Secrets in the Store and no others. A watch of metadata
// tells which Secrets there are and which version they have; the contents of a wanted one
// are fetched when it becomes wanted and whenever its version changes. The first fetch is
// made even if the metadata know no such Secret: one that was made together with what wants
// it may have reached the API server and not the watch. An error keeps the
// last good contents, or keeps the Secret pending if there are none, and is tried again.
type secretFetcher struct {
	client corev1client.SecretsGetter
	store  *Store
	access *access
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu     sync.Mutex
	scopes map[string]*secretScope
	wanted map[types.NamespacedName]struct{}
	have   map[types.NamespacedName]string // version in the Store
	asked  map[types.NamespacedName]bool   // fetched, or tried to, since it is wanted
}

const (
	secretWorkers  = 8
	secretRetryMin = 100 * time.Millisecond
	secretRetryMax = 2 * time.Second
)

func newSecretFetcher(client corev1client.SecretsGetter, store *Store, access *access) *secretFetcher {
	return &secretFetcher{
		client: client, store: store, access: access,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](secretRetryMin, secretRetryMax)),
		scopes: map[string]*secretScope{},
		wanted: map[types.NamespacedName]struct{}{},
		have:   map[types.NamespacedName]string{},
		asked:  map[types.NamespacedName]bool{},
	}
}

func (s *secretFetcher) start(ctx context.Context, running *sync.WaitGroup) {
	for range secretWorkers {
		running.Go(func() {
			for s.work(ctx) {
			}
		})
	}
}

func (s *secretFetcher) stop() { s.queue.ShutDown() }

// want sets the whole set. New ones are pending when it returns.
func (s *secretFetcher) want(refs []Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := make(map[types.NamespacedName]struct{}, len(refs))
	for _, ref := range refs {
		n := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
		wanted[n] = struct{}{}
		if _, old := s.wanted[n]; old {
			continue
		}
		s.store.SetPending(ref, true)
		s.queue.Add(n)
	}
	old := s.wanted
	s.wanted = wanted
	for n := range old {
		if _, ok := wanted[n]; !ok {
			s.drop(n)
			delete(s.asked, n)
			s.access.forget(secretQuestion(n))
		}
	}
}

// drop says that there is no such Secret, as far as the reader is concerned.
func (s *secretFetcher) drop(n types.NamespacedName) {
	delete(s.have, n)
	s.store.Delete(secretRef(n))
}

// version is what the metadata say; known is false as long as they say nothing.
func (s *secretFetcher) version(n types.NamespacedName) (version string, exists, known bool) {
	scope := s.scopes[""]
	if scope == nil {
		scope = s.scopes[n.Namespace]
	}
	if scope == nil || !scope.synced {
		return "", false, false
	}
	version, exists = scope.versions[n]
	return version, exists, true
}

// work does one wanted Secret; false means that the queue is shut down.
func (s *secretFetcher) work(ctx context.Context) bool {
	n, shutdown := s.queue.Get()
	if shutdown {
		return false
	}
	defer s.queue.Done(n)
	if err := s.bring(ctx, n); err != nil {
		s.queue.AddRateLimited(n)
	} else {
		s.queue.Forget(n)
	}
	return true
}

// bring makes the Store have what the metadata say there is.
func (s *secretFetcher) bring(ctx context.Context, n types.NamespacedName) error {
	if !s.outdated(n) {
		return nil
	}
	secret, err := s.client.Secrets(n.Namespace).Get(ctx, n.Name, metav1.GetOptions{})
	if ctx.Err() != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, wanted := s.wanted[n]; !wanted {
		return nil
	}
	s.access.report(secretQuestion(n), err)
	s.asked[n] = s.asked[n] || err == nil || apierrors.IsNotFound(err)
	switch {
	case apierrors.IsNotFound(err):
		s.drop(n) // deleted a moment ago; if it is made again, the metadata will say so
		return nil
	case err != nil:
		return err
	}
	s.have[n] = secret.ResourceVersion
	s.store.Put(trim(secret))
	return nil
}

// outdated says whether n has to be fetched. It settles what needs no fetching.
func (s *secretFetcher) outdated(n types.NamespacedName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	version, exists, known := s.version(n)
	_, wanted := s.wanted[n]
	switch {
	case !wanted, !known: // the first list queues all that is wanted
		return false
	case !exists && s.asked[n]:
		s.drop(n)
		return false
	}
	have, ok := s.have[n]
	return !ok || have != version
}

// changed queues a Secret whose metadata changed, if anybody wants it.
func (s *secretFetcher) changed(n types.NamespacedName) {
	if _, ok := s.wanted[n]; ok {
		s.queue.Add(n)
	}
}

func secretRef(n types.NamespacedName) Ref {
	return Ref{Kind: KindSecret, Namespace: n.Namespace, Name: n.Name}
}

func secretQuestion(n types.NamespacedName) question {
	return question{verb: "get", resource: "secrets", namespace: n.Namespace, name: n.Name}
}

// secretScope is the sink of one metadata watch.
type secretScope struct {
	of       *secretFetcher
	synced   bool
	versions map[types.NamespacedName]string
}

// scope makes the sink for the metadata of one namespace, or of all ("").
func (s *secretFetcher) scope(namespace string) *secretScope {
	s.mu.Lock()
	defer s.mu.Unlock()
	scope := &secretScope{of: s, versions: map[types.NamespacedName]string{}}
	s.scopes[namespace] = scope
	return scope
}

func (c *secretScope) put(obj metav1.Object) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	n := nameOf(obj)
	c.versions[n] = obj.GetResourceVersion()
	c.of.changed(n)
}

func (c *secretScope) remove(n types.NamespacedName) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	delete(c.versions, n)
	c.of.changed(n)
}

// replace queues every wanted Secret of the scope: whether it is outdated is decided there.
func (c *secretScope) replace(all []metav1.Object) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.versions = make(map[types.NamespacedName]string, len(all))
	for _, obj := range all {
		c.versions[nameOf(obj)] = obj.GetResourceVersion()
	}
	c.synced = true
	for n := range c.of.wanted {
		c.of.queue.Add(n)
	}
}
