package manifests

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Store is the one mutable place between a Source and its reader. The Source Puts and
// Deletes; the reader waits on Changed and Takes. A Store is closed at first: nothing
// can be taken until the Source Opens it, so that a half-synced view is never served.
type Store struct {
	mu       sync.Mutex
	objects  *Objects
	refs     map[Ref]struct{}
	since    time.Time
	problems map[Ref][]Problem
	pending  map[Ref]struct{}
	open     bool
	changed  chan struct{}
}

// Change is what a reader takes from a Store: the snapshot, and what differs from the
// one it took before.
type Change struct {
	Objects *Objects
	// Refs names the objects put or deleted since the last Take, in order. A changed
	// EndpointSlice stands as {KindEndpointSlice, namespace, name of its Service}.
	// The first Take names everything.
	Refs []Ref
	// Since is when the first of Refs reached the Store; zero if Refs is empty.
	Since time.Time
	// Problems are all that the Source itself has at the moment (unreadable files), in order.
	Problems []Problem
	// Pending are the wanted objects of which the Source does not know yet whether they
	// exist. What needs one is not ready to be served.
	Pending map[Ref]struct{}
}

// NewStore returns an empty, closed Store.
func NewStore() *Store {
	return &Store{
		objects:  newObjects(),
		refs:     map[Ref]struct{}{},
		problems: map[Ref][]Problem{},
		pending:  map[Ref]struct{}{},
		changed:  make(chan struct{}, 1),
	}
}

// Changed is poked when there is something to Take. One poke may stand for many changes.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Open says that the view is complete. Later calls do nothing.
func (s *Store) Open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.open = true
		s.poke()
	}
}

// Take returns the present snapshot and all that has changed since the last Take.
// ok is false while the Store is closed.
func (s *Store) Take() (c Change, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return Change{}, false
	}
	c = Change{Objects: s.objects.snapshot(), Since: s.since, Pending: make(map[Ref]struct{}, len(s.pending))}
	for r := range s.refs {
		c.Refs = append(c.Refs, r)
	}
	slices.SortFunc(c.Refs, Ref.Compare)
	c.Problems = s.sortedProblems()
	for r := range s.pending {
		c.Pending[r] = struct{}{}
	}
	clear(s.refs)
	s.since = time.Time{}
	return c, true
}

// Waiting is since when there is a change that nobody took; zero: there is none.
func (s *Store) Waiting() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// Problems are those that a Take would give, for who asks why the Store is still closed.
func (s *Store) Problems() []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sortedProblems()
}

// snapshot is for a Source that compares what it has with what it has put.
func (s *Store) snapshot() *Objects {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects.snapshot()
}

// Put adds or replaces one object. The Store keeps obj itself: the caller has trimmed it
// and never touches it again. It panics on a type that no Source has: that is a bug.
func (s *Store) Put(obj metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(obj)
}

// Delete removes one object; an EndpointSlice by its own name. A Secret or ConfigMap is
// thereby known not to exist. An object that is not there is no error.
func (s *Store) Delete(ref Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(ref)
}

// Update makes several changes that no Take can come between.
func (s *Store) Update(change func(put func(metav1.Object), remove func(Ref))) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.put, s.remove)
}

// SetPending says whether ref is wanted but not yet known to exist or not. Put and
// Delete of it end that by themselves.
func (s *Store) SetPending(ref Ref, pending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pending {
		s.pending[ref] = struct{}{}
		return
	}
	s.settle(ref)
}

// SetProblems replaces the Source's own problems about one object or file; none clears them.
func (s *Store) SetProblems(about Ref, problems ...Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.problems[about], problems) {
		return
	}
	if len(problems) == 0 {
		delete(s.problems, about)
	} else {
		s.problems[about] = problems
	}
	s.poke()
}

func (s *Store) sortedProblems() []Problem {
	var all []Problem
	for _, p := range s.problems {
		all = append(all, p...)
	}
	sortProblems(all)
	return all
}

func (s *Store) put(obj metav1.Object) {
	ns, name := obj.GetNamespace(), obj.GetName()
	k := key(ns, name)
	o := s.objects
	var kind string
	switch v := obj.(type) {
	case *networkingv1.Ingress:
		kind = KindIngress
		o.ingresses.Set(k, v)
	case *networkingv1.IngressClass:
		kind = KindIngressClass
		o.classes.Set(k, v)
	case *corev1.Service:
		kind = KindService
		o.services.Set(k, v)
	case *discoveryv1.EndpointSlice:
		s.putSlice(packSlice(v))
		return
	case *packedSlice:
		s.putSlice(v)
		return
	case *corev1.Secret:
		kind = KindSecret
		o.secrets.Set(k, v)
	case *corev1.ConfigMap:
		kind = KindConfigMap
		o.configMaps.Set(k, v)
	case *corev1.Pod:
		kind = KindPod
		o.pods.Set(k, v)
	case *corev1.Namespace:
		kind = KindNamespace
		o.namespaces.Set(k, v)
	case *corev1.Node:
		kind = KindNode
		o.nodes.Set(k, v)
	case *networkingv1.ServiceCIDR:
		kind = KindServiceCIDR
		o.cidrs.Set(k, v)
	default:
		panic(fmt.Sprintf("manifests: Store.Put of %T", obj))
	}
	ref := Ref{Kind: kind, Namespace: ns, Name: name}
	s.settle(ref)
	s.mark(ref)
}

// putSlice files a slice under its Service, which its label may have changed. A slice
// without the label belongs to nobody and is not kept.
func (s *Store) putSlice(v *packedSlice) {
	own := key(v.Namespace, v.Name)
	service := v.service
	if old, ok := s.objects.sliceOwner.Get(own); ok && old != service {
		s.removeSlice(v.Namespace, v.Name)
	}
	if service == "" {
		return
	}
	s.objects.sliceOwner.Set(own, service)
	s.objects.slices.Set(sliceKey(v.Namespace, service, v.Name), v.packed)
	s.mark(Ref{Kind: KindEndpointSlice, Namespace: v.Namespace, Name: service})
}

func (s *Store) removeSlice(namespace, name string) {
	own := key(namespace, name)
	service, ok := s.objects.sliceOwner.Get(own)
	if !ok {
		return
	}
	s.objects.sliceOwner.Delete(own)
	s.objects.slices.Delete(sliceKey(namespace, service, name))
	s.mark(Ref{Kind: KindEndpointSlice, Namespace: namespace, Name: service})
}

func (s *Store) remove(ref Ref) {
	k := key(ref.Namespace, ref.Name)
	o := s.objects
	var had bool
	switch ref.Kind {
	case KindIngress:
		had = remove(o.ingresses, k)
	case KindIngressClass:
		had = remove(o.classes, k)
	case KindService:
		had = remove(o.services, k)
	case KindEndpointSlice:
		s.removeSlice(ref.Namespace, ref.Name)
		return
	case KindSecret:
		had = remove(o.secrets, k)
	case KindConfigMap:
		had = remove(o.configMaps, k)
	case KindPod:
		had = remove(o.pods, k)
	case KindNamespace:
		had = remove(o.namespaces, k)
	case KindNode:
		had = remove(o.nodes, k)
	case KindServiceCIDR:
		had = remove(o.cidrs, k)
	}
	s.settle(ref)
	if had {
		s.mark(ref)
	}
}

// settle ends the wait for a wanted object. The reader is told even if nothing else changed.
func (s *Store) settle(ref Ref) {
	if _, ok := s.pending[ref]; ok {
		delete(s.pending, ref)
		s.mark(ref)
	}
}

func (s *Store) mark(ref Ref) {
	if s.since.IsZero() {
		s.since = time.Now()
	}
	s.refs[ref] = struct{}{}
	s.poke()
}

func (s *Store) poke() {
	if !s.open {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // one poke already waits
	}
}

func sortProblems(all []Problem) {
	slices.SortFunc(all, func(a, b Problem) int {
		return cmp.Or(a.Object.Compare(b.Object), strings.Compare(a.Field, b.Field), strings.Compare(a.Text, b.Text))
	})
}
