package manifests

import (
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func named1(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func testService(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: named1(namespace, name)}
}

func testSecret(namespace, name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: named1(namespace, name)}
}

func testSlice(namespace, name, service string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: named1(namespace, name)}
	if service != "" {
		s.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	}
	return s
}

func names[T metav1.Object](seq iter.Seq[T]) []string {
	out := []string{}
	for v := range seq {
		out = append(out, v.GetNamespace()+"/"+v.GetName())
	}
	return out
}

func refs(c Change) []string {
	out := []string{}
	for _, r := range c.Refs {
		out = append(out, r.String())
	}
	return out
}

func take(t *testing.T, s *Store) Change {
	t.Helper()
	c, ok := s.Take()
	if !ok {
		t.Fatal("the Store is closed")
	}
	return c
}

func poked(s *Store) bool {
	select {
	case <-s.Changed():
		return true
	default:
		return false
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestStore_NothingIsTakenBeforeOpen(t *testing.T) {
	s := NewStore()
	s.Put(testService("a", "x"))
	if _, ok := s.Take(); ok || poked(s) {
		t.Fatal("a closed Store gave something")
	}
	s.Open()
	s.Open()
	if !poked(s) || poked(s) {
		t.Fatal("opening pokes once")
	}
	equal(t, "first take", refs(take(t, s)), []string{"Service a/x"})
}

func TestStore_FirstTakeNamesEverything(t *testing.T) {
	s := NewStore()
	for _, obj := range []metav1.Object{
		&networkingv1.Ingress{ObjectMeta: named1("a", "i")},
		&networkingv1.IngressClass{ObjectMeta: named1("", "c")},
		testService("a", "s"), testSlice("a", "s-1", "s"), testSecret("a", "t"),
		&corev1.ConfigMap{ObjectMeta: named1("a", "m")},
		&corev1.Pod{ObjectMeta: named1("a", "p")},
		&corev1.Namespace{ObjectMeta: named1("", "a")},
	} {
		s.Put(obj)
	}
	s.Open()
	c := take(t, s)
	equal(t, "refs", refs(c), []string{
		"ConfigMap a/m", "EndpointSlice a/s", "Ingress a/i", "IngressClass c",
		"Namespace a", "Pod a/p", "Secret a/t", "Service a/s",
	})
	o := c.Objects
	if o.Ingress("a", "i") == nil || o.IngressClass("c") == nil || o.Service("a", "s") == nil || o.Secret("a", "t") == nil ||
		o.ConfigMap("a", "m") == nil || o.Namespace("a") == nil {
		t.Error("an object is missing")
	}
	if o.Ingress("a", "j") != nil || o.Service("a", "") != nil || o.Secret("", "t") != nil {
		t.Error("an object is there that nobody put")
	}
	equal(t, "pods", names(o.Pods("a")), []string{"a/p"})
	equal(t, "slices", names(o.EndpointSlices("a", "s")), []string{"a/s-1"})
	if c.Since.IsZero() {
		t.Error("Since is not set")
	}
	c = take(t, s)
	if len(c.Refs) != 0 || !c.Since.IsZero() {
		t.Errorf("second take: %v since %v", c.Refs, c.Since)
	}
}

func TestStore_ManyChangesAreOnePoke(t *testing.T) {
	s := NewStore()
	s.Open()
	poked(s)
	take(t, s)
	for range 3 {
		s.Put(testService("a", "x"))
	}
	s.Put(testService("a", "y"))
	s.Delete(Ref{KindService, "a", "y"})
	if !poked(s) || poked(s) {
		t.Error("want one poke")
	}
	c := take(t, s)
	equal(t, "refs", refs(c), []string{"Service a/x", "Service a/y"})
	equal(t, "services", names(c.Objects.Services()), []string{"a/x"})
	s.Delete(Ref{KindService, "a", "never was"})
	if poked(s) {
		t.Error("deleting nothing is no change")
	}
}

func TestStore_OrderIsNamespaceThenName(t *testing.T) {
	s := NewStore()
	want := []string{"a/x", "a/x-1", "a/x.b", "a-b/a", "a.b/a", "b/a"}
	for _, i := range []int{4, 0, 5, 2, 3, 1} {
		ns, name, _ := cut(want[i])
		s.Put(testService(ns, name))
		s.Put(&corev1.Pod{ObjectMeta: named1(ns, name)})
	}
	s.Open()
	o := take(t, s).Objects
	equal(t, "services", names(o.Services()), want)
	equal(t, "pods of a alone", names(o.Pods("a")), []string{"a/x", "a/x-1", "a/x.b"})
	for range o.Services() {
		break // stopping early is allowed
	}
}

func cut(s string) (string, string, bool) {
	i := slices.Index([]byte(s), '/')
	return s[:i], s[i+1:], true
}

func TestStore_SlicesMoveBetweenServices(t *testing.T) {
	s := NewStore()
	s.Open()
	s.Put(testSlice("a", "1", "web"))
	s.Put(testSlice("a", "2", "web"))
	s.Put(testSlice("a", "3", "web-2")) // no prefix confusion
	equal(t, "web", names(take(t, s).Objects.EndpointSlices("a", "web")), []string{"a/1", "a/2"})

	s.Put(testSlice("a", "1", "api"))
	c := take(t, s)
	equal(t, "both are told", refs(c), []string{"EndpointSlice a/api", "EndpointSlice a/web"})
	equal(t, "web", names(c.Objects.EndpointSlices("a", "web")), []string{"a/2"})
	equal(t, "api", names(c.Objects.EndpointSlices("a", "api")), []string{"a/1"})

	s.Put(testSlice("a", "1", "")) // the label is gone
	s.Put(testSlice("a", "9", "")) // and never was
	c = take(t, s)
	equal(t, "old service is told", refs(c), []string{"EndpointSlice a/api"})
	equal(t, "api", names(c.Objects.EndpointSlices("a", "api")), []string{})

	s.Delete(Ref{KindEndpointSlice, "a", "2"})
	s.Delete(Ref{KindEndpointSlice, "a", "1"})
	c = take(t, s)
	equal(t, "by the name of its service", refs(c), []string{"EndpointSlice a/web"})
	if c.Objects.lookup(Ref{KindEndpointSlice, "a", "2"}) != nil {
		t.Error("a deleted slice is found")
	}
}

func TestStore_Pending(t *testing.T) {
	s := NewStore()
	s.Open()
	a, b, c := Ref{KindSecret, "a", "a"}, Ref{KindSecret, "a", "b"}, Ref{KindSecret, "a", "c"}
	for _, r := range []Ref{a, b, c} {
		s.SetPending(r, true)
	}
	first := take(t, s)
	if len(first.Pending) != 3 || len(first.Refs) != 0 {
		t.Fatalf("pending %v, refs %v", first.Pending, first.Refs)
	}
	s.Put(testSecret("a", "a"))
	s.Delete(b)
	s.SetPending(c, false)
	got := take(t, s)
	equal(t, "each is told", got.Refs, []Ref{a, b, c})
	if len(got.Pending) != 0 {
		t.Errorf("still pending: %v", got.Pending)
	}
	if len(first.Pending) != 3 {
		t.Error("an earlier Change was written to")
	}
}

func TestStore_Problems(t *testing.T) {
	s := NewStore()
	p := func(file, line string) Problem { return Problem{Object: fileRef(file), Field: line, Text: "broken"} }
	s.SetProblems(fileRef("b"), p("b", "line 2"), p("b", "line 1"))
	s.SetProblems(fileRef("a"), p("a", ""))
	equal(t, "before it opens", len(s.Problems()), 3)
	s.Open()
	poked(s)
	equal(t, "in order", take(t, s).Problems, []Problem{p("a", ""), p("b", "line 1"), p("b", "line 2")})
	s.SetProblems(fileRef("a"), p("a", ""))
	if poked(s) {
		t.Error("the same problem is no change")
	}
	s.SetProblems(fileRef("a"))
	s.SetProblems(fileRef("b"))
	if !poked(s) || len(take(t, s).Problems) != 0 {
		t.Error("problems are not cleared")
	}
}

func TestStore_SnapshotsDoNotChange(t *testing.T) {
	s := NewStore()
	s.Open()
	s.Put(testService("a", "x"))
	before := take(t, s).Objects
	s.Put(testService("a", "y"))
	s.Delete(Ref{KindService, "a", "x"})
	equal(t, "snapshot", names(before.Services()), []string{"a/x"})
	equal(t, "now", names(take(t, s).Objects.Services()), []string{"a/y"})
}

func TestStore_UpdateIsAtomic(t *testing.T) {
	s := NewStore()
	s.Put(testService("a", "0"))
	s.Open()
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := range 500 {
			s.Update(func(put func(metav1.Object), remove func(Ref)) {
				remove(Ref{KindService, "a", fmt.Sprint(i)})
				put(testService("a", fmt.Sprint(i+1)))
			})
			s.SetPending(Ref{KindSecret, "a", "s"}, i%2 == 0)
			s.SetProblems(fileRef("f"), Problem{Text: fmt.Sprint(i)})
		}
	})
	done := make(chan struct{})
	go func() { writing.Wait(); close(done) }()
	for {
		if n := len(names(take(t, s).Objects.Services())); n != 1 {
			t.Fatalf("%d services between two Updates", n)
		}
		select {
		case <-done:
			return
		case <-s.Changed():
		}
	}
}

func TestStore_PutOfAnUnknownTypeIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewStore().Put(&corev1.PersistentVolume{})
}
