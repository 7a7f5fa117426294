package ingress

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/manifests"
)

// ingressState is one Ingress as it was read last. A change makes a new one; only the object
// and the class of an Ingress that asks for the same as before are replaced.
type ingressState struct {
	key    string // namespace/name
	object *networkingv1.Ingress
	class  classReason
	spec   *spec // nil if it is not ours
}

// compareIngresses is the order of precedence: the oldest first, then by namespace/name.
func compareIngresses(a, b *ingressState) int {
	if d := a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time); d != 0 {
		return d
	}
	return cmp.Or(
		strings.Compare(a.object.Namespace, b.object.Namespace),
		strings.Compare(a.object.Name, b.object.Name),
	)
}

// whyFirst says why one Ingress goes before another.
func whyFirst(winner, loser *ingressState) string {
	same := winner.object.CreationTimestamp.Equal(&loser.object.CreationTimestamp)
	switch {
	case winner.object.CreationTimestamp.IsZero() && same:
		return "comes first by namespace and name"
	case winner.object.CreationTimestamp.IsZero():
		return "has no creationTimestamp and so comes first"
	case same:
		return "is as old and comes first by namespace and name"
	}
	return "is older"
}

// insertIngress keeps a list in order of precedence. An older version of the same Ingress may
// still be in it.
func insertIngress(list []*ingressState, st *ingressState) []*ingressState {
	i, _ := slices.BinarySearchFunc(list, st, compareIngresses)
	return slices.Insert(list, i, st)
}

func removeIngress(list []*ingressState, st *ingressState) []*ingressState {
	if i := slices.Index(list, st); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// noteIngress reads an Ingress that was put or deleted.
func (c *compiler) noteIngress(ref manifests.Ref) {
	key := ref.Namespace + "/" + ref.Name
	c.touched[key] = struct{}{}
	object := c.objects.Ingress(ref.Namespace, ref.Name)
	old := c.ingresses[key]
	if object == nil {
		if old != nil {
			c.retire(old)
			delete(c.ingresses, key)
			c.problems.set(ofIngress, key, nil)
			c.problems.set(ofBackends, key, nil)
			c.problems.set(ofTLS, key, nil)
			c.problems.set(ofStatus, key, nil)
		}
		return
	}
	class := c.policy.classOf(object, c.objects)
	if old != nil && old.class.ours() == class.ours() && asksTheSame(old.object, object) {
		old.object = object
		c.setClass(old, class)
		return
	}
	c.replace(old, &ingressState{key: key, object: object}, class)
}

// noteClasses looks at all Ingresses again, because the classes have changed.
func (c *compiler) noteClasses() {
	for key, st := range c.ingresses {
		class := c.policy.classOf(st.object, c.objects)
		if class.ours() == st.class.ours() {
			c.setClass(st, class)
			continue
		}
		c.touched[key] = struct{}{}
		c.replace(st, &ingressState{key: key, object: st.object}, class)
	}
}

// replace puts a new version in the place of an old one, which may be nil. The new one comes
// in first, so that what both use stays in use.
func (c *compiler) replace(old, st *ingressState, class classReason) {
	c.admit(st, class)
	if old != nil {
		c.retire(old)
	}
}

// asksTheSame tells whether two versions of an Ingress differ only in what is not compiled,
// such as the status that we write ourselves.
func asksTheSame(a, b *networkingv1.Ingress) bool {
	return a.CreationTimestamp.Equal(&b.CreationTimestamp) &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		maps.Equal(a.Annotations, b.Annotations) &&
		reflect.DeepEqual(&a.Spec, &b.Spec)
}

func (c *compiler) setClass(st *ingressState, class classReason) {
	st.class = class
	all := class.problem(st.object, c.policy)
	if st.spec != nil {
		all = append(all, st.spec.problems...)
	}
	c.problems.set(ofIngress, st.key, all)
}

// admit takes an Ingress in, and marks what it may change.
func (c *compiler) admit(st *ingressState, class classReason) {
	c.ingresses[st.key] = st
	if class.ours() {
		st.spec = specOf(st.object)
		c.useServices(st)
		c.useHosts(st)
		c.useTLS(st)
		c.useClientAuth(st)
	}
	c.setClass(st, class)
	c.setBackendProblems(st)
	c.setTLSProblems(st)
}

// retire takes an Ingress out again.
func (c *compiler) retire(st *ingressState) {
	if st.spec == nil {
		return
	}
	c.releaseClientAuth(st)
	c.releaseTLS(st)
	c.releaseHosts(st)
	c.releaseServices(st)
}

func (c *compiler) useHosts(st *ingressState) {
	for i := range st.spec.hosts {
		name := st.spec.hosts[i].name
		c.touch(name)
		h := c.hosts[name]
		if h == nil {
			h = &hostState{}
			c.hosts[name] = h
			c.addName(name)
		}
		h.askers = insertIngress(h.askers, st)
		c.dirty.hosts[name] = struct{}{}
	}
	if st.spec.catchAll && st.spec.fallback != nil {
		c.catchAll = insertIngress(c.catchAll, st)
		c.dirty.fallback = true
	}
}

func (c *compiler) releaseHosts(st *ingressState) {
	for i := range st.spec.hosts {
		name := st.spec.hosts[i].name
		c.touch(name)
		h := c.hosts[name]
		h.askers = removeIngress(h.askers, st)
		c.dirty.hosts[name] = struct{}{}
	}
	if st.spec.catchAll && st.spec.fallback != nil {
		c.catchAll = removeIngress(c.catchAll, st)
		c.dirty.fallback = true
	}
}

// eachBackend calls f for everything the Ingress leads to.
func (s *spec) eachBackend(f func(field func() string, host string, ref *backendRef)) {
	if s.fallback != nil {
		f(func() string { return fallbackField }, "", s.fallback)
	}
	for i := range s.hosts {
		for j := range s.hosts[i].paths {
			p := &s.hosts[i].paths[j]
			f(func() string { return p.field() + ".backend" }, s.hosts[i].name, &p.backend)
		}
	}
}

func (st *ingressState) service(ref *backendRef) types.NamespacedName {
	return types.NamespacedName{Namespace: st.object.Namespace, Name: ref.service}
}
