package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// view is what a whole folder says.
type view struct {
	objects  map[Ref]metav1.Object
	problems map[Ref][]Problem // by file
}

// assemble puts files together, in the order of their paths: of two that have the same
// object the first wins. Then Services without EndpointSlices get some from Pods. What is in
// other than these namespaces is left out, unless they are none.
func assemble(files map[string]*file, namespaces []string) view {
	v := view{objects: map[Ref]metav1.Object{}, problems: map[Ref][]Problem{}}
	from := map[Ref]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, about := files[name], fileRef(name)
		v.problems[about] = slices.Concat(f.failure, f.content.problems)
		for _, o := range f.content.objects {
			if len(namespaces) > 0 && o.ref.Namespace != "" && !slices.Contains(namespaces, o.ref.Namespace) {
				continue
			}
			if first, taken := from[o.ref]; taken {
				v.problems[about] = append(v.problems[about], Problem{
					Object: about, Field: lineField(o.line),
					Text: fmt.Sprintf("%s is already in %s; this one is not used", o.ref, first),
				})
				continue
			}
			from[o.ref] = name
			v.objects[o.ref] = o.object
		}
	}
	v.addPodSlices()
	return v
}

func (v *view) addPodSlices() {
	var services []*corev1.Service
	pods := map[string][]*corev1.Pod{}
	sliced := map[Ref]bool{}
	for _, obj := range v.objects {
		switch o := obj.(type) {
		case *corev1.Service:
			services = append(services, o)
		case *corev1.Pod:
			pods[o.Namespace] = append(pods[o.Namespace], o)
		case *discoveryv1.EndpointSlice:
			sliced[Ref{Kind: KindService, Namespace: o.Namespace, Name: o.Labels[discoveryv1.LabelServiceName]}] = true
		}
	}
	for _, p := range pods {
		slices.SortFunc(p, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	}
	for _, s := range services {
		if sliced[Ref{Kind: KindService, Namespace: s.Namespace, Name: s.Name}] {
			continue
		}
		for _, slice := range podSlices(s, pods[s.Namespace]) {
			v.objects[Ref{Kind: KindEndpointSlice, Namespace: slice.Namespace, Name: slice.Name}] = slice
		}
	}
}

// sortedRefs gives the keys of m in order.
func sortedRefs[V any](m map[Ref]V) []Ref { return slices.SortedFunc(maps.Keys(m), Ref.Compare) }
