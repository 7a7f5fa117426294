package svcproxy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portico-ingress/portico/manifests"
)

// whyNoEndpoint says why the port of a packet has no endpoint that is ready, and what to do.
func (e *explaining) whyNoEndpoint() []string {
	s := e.compiler.objects.Service(e.service.Namespace, e.service.Name)
	if s == nil {
		return nil
	}
	w := &noEndpoint{service: s, port: e.port, objects: e.compiler.objects}
	if len(s.Spec.Selector) == 0 {
		return []string{w.withoutSelector()}
	}
	pods, err := e.pods(s.Namespace)
	if err != nil {
		return []string{fmt.Sprintf("why could not be found out: the Pods of namespace %s cannot be read: %v", s.Namespace, err)}
	}
	w.pods = pods
	return []string{w.withSelector()}
}

func (x *Explainer) pods(namespace string) ([]*corev1.Pod, error) {
	if x.Pods != nil {
		return x.Pods(namespace)
	}
	return slices.Collect(x.compiler.objects.Pods(namespace)), nil
}

// noEndpoint is a Service port that has no endpoint.
type noEndpoint struct {
	service *corev1.Service
	port    *Port
	objects *manifests.Objects
	pods    []*corev1.Pod
}

func (w *noEndpoint) withoutSelector() string {
	s := w.service
	fix := fmt.Sprintf("give it a selector, or an EndpointSlice with the label %s=%s", discoveryv1.LabelServiceName, s.Name)
	var ports []string
	for slice := range w.objects.EndpointSlices(s.Namespace, s.Name) {
		for _, p := range slice.Ports {
			ports = append(ports, fmt.Sprintf("%q %d/%s (%s)", value(p.Name, ""), value(p.Port, 0), value(p.Protocol, corev1.ProtocolTCP), slice.AddressType))
		}
		if len(slice.Ports) == 0 {
			ports = append(ports, "none")
		}
	}
	switch {
	case len(ports) == 0:
		return "the Service has no selector and no EndpointSlice: " + fix
	case len(w.port.Endpoints) > 0:
		return "the Service has no selector, and none of its EndpointSlices' endpoints is ready: their conditions are for whoever writes the EndpointSlices to set"
	}
	return fmt.Sprintf("the Service has no selector, and its EndpointSlices have no endpoint for port %q, protocol %s, %s; their ports are %s",
		w.port.Name, w.port.Protocol, w.family(), strings.Join(ports, ", "))
}

func (w *noEndpoint) family() string {
	if w.port.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

func (w *noEndpoint) withSelector() string {
	matching := selectedBy(w.service.Spec.Selector, w.pods)
	if len(matching) == 0 {
		return w.noPod()
	}
	if text := w.noSuchPort(matching); text != "" {
		return text
	}
	var states []string
	ready := 0
	for _, p := range matching {
		state := podState(p)
		if state == "" && !w.hasAddress(p) {
			state = "has no " + w.family() + " address"
		}
		if state == "" {
			ready++
			continue
		}
		states = append(states, p.Name+" "+state)
	}
	if ready > 0 {
		return howMany(ready, "Pod matches and is ready", "Pods match and are ready") +
			", but no EndpointSlice says so: the EndpointSlice controller (kube-controller-manager) has not made one yet, or does not run"
	}
	return fmt.Sprintf("%s but none is ready: %s", howMany(len(matching), "Pod matches", "Pods match"), list(states))
}

// listed is how many Pods are named before the rest is a number.
const listed = 5

func list(all []string) string {
	if len(all) > listed {
		all = append(slices.Clone(all[:listed]), fmt.Sprintf("and %d more", len(all)-listed))
	}
	return strings.Join(all, "; ")
}

func howMany(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func selectedBy(selector map[string]string, pods []*corev1.Pod) (all []*corev1.Pod) {
	for _, p := range pods {
		if matches(selector, p) == len(selector) {
			all = append(all, p)
		}
	}
	return all
}

// matches counts the pairs of a selector that a Pod has.
func matches(selector map[string]string, p *corev1.Pod) (n int) {
	for k, v := range selector {
		if got, ok := p.Labels[k]; ok && got == v {
			n++
		}
	}
	return n
}

// noPod names the label that is nearest to what the selector wants, among the Pods that have most of it.
func (w *noEndpoint) noPod() string {
	selector := w.service.Spec.Selector
	text := fmt.Sprintf("selector %s matches no Pod", pairs(selector))
	if len(w.pods) == 0 {
		return text + fmt.Sprintf(": namespace %s has none at all", w.service.Namespace)
	}
	most := 0
	for _, p := range w.pods {
		most = max(most, matches(selector, p))
	}
	var candidates []*corev1.Pod
	for _, p := range w.pods {
		if matches(selector, p) == most {
			candidates = append(candidates, p)
		}
	}
	missing := ""
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		if candidates[0].Labels[k] != selector[k] {
			missing = k
			break
		}
	}
	near := nearestLabel(missing, selector[missing], candidates)
	switch {
	case near == "" && most == 0:
		return text + ": no label of a Pod in its namespace is like it"
	case near == "":
		return text + fmt.Sprintf(": %s, but not %s=%s", howMany(len(candidates), "Pod has the rest of it", "Pods have the rest of it"), missing, selector[missing])
	case most == 0 && len(selector) == 1:
		return text + "; the nearest label is " + near
	}
	return text + fmt.Sprintf("; the nearest label to %s=%s is %s", missing, selector[missing], near)
}

func pairs(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return strings.Join(all, ",")
}

// nearestLabel is "app=b on 3 Pods": of the same key the nearest value, or the nearest key with
// the same value, or "".
func nearestLabel(key, value string, pods []*corev1.Pod) string {
	type label struct{ key, value string }
	count := map[label]int{}
	for _, p := range pods {
		for k, v := range p.Labels {
			if k == key || v == value {
				count[label{k, v}]++
			}
		}
	}
	// A key is a thing of its own: another one is farther than any other value.
	far := func(l label) int {
		if l.key == key {
			return editDistance(l.value, value)
		}
		return 1000 + editDistance(l.key, key)
	}
	all := slices.SortedFunc(maps.Keys(count), func(a, b label) int {
		return cmp.Or(far(a)-far(b), count[b]-count[a], strings.Compare(a.key, b.key), strings.Compare(a.value, b.value))
	})
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%s=%s on %s", all[0].key, all[0].value, howMany(count[all[0]], "Pod", "Pods"))
}

// editDistance is Levenshtein's, of bytes: labels are ASCII, and have at most 63 in a name or value.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// noSuchPort tells of a targetPort by a name that no container has.
func (w *noEndpoint) noSuchPort(pods []*corev1.Pod) string {
	at := slices.IndexFunc(w.service.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Name == w.port.Name && cmp.Or(p.Protocol, corev1.ProtocolTCP) == w.port.Protocol
	})
	if at < 0 || w.service.Spec.Ports[at].TargetPort.Type != intstr.String {
		return ""
	}
	want := w.service.Spec.Ports[at].TargetPort.StrVal
	var names []string
	for _, p := range pods {
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			for _, port := range c.Ports {
				protocol := cmp.Or(port.Protocol, corev1.ProtocolTCP)
				if port.Name == want && protocol == w.port.Protocol {
					return ""
				}
				if port.Name != "" {
					names = append(names, fmt.Sprintf("%s (%d/%s)", port.Name, port.ContainerPort, protocol))
				}
			}
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		names = []string{"none"}
	}
	return fmt.Sprintf("targetPort name %s: no container port (%s) of the %s is called so; the names there are: %s",
		want, w.port.Protocol, howMany(len(pods), "Pod that matches", "Pods that match"), list(names))
}

func (w *noEndpoint) hasAddress(p *corev1.Pod) bool {
	for _, ip := range append([]corev1.PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is6() == w.port.IPv6 {
			return true
		}
	}
	return false
}

// podState says why a Pod is not ready, or "".
func podState(p *corev1.Pod) string {
	switch {
	case p.DeletionTimestamp != nil:
		return "is terminating"
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return fmt.Sprintf("is over (%s%s)", p.Status.Phase, reasonText(p.Status.Reason, ""))
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "is not scheduled" + reasonText(c.Reason, c.Message)
		}
	}
	for i := range p.Status.ContainerStatuses {
		if w := p.Status.ContainerStatuses[i].State.Waiting; w != nil && !p.Status.ContainerStatuses[i].Ready {
			return fmt.Sprintf("has container %s waiting%s", p.Status.ContainerStatuses[i].Name, reasonText(w.Reason, w.Message))
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue {
			return "is not ready" + reasonText(c.Reason, c.Message)
		}
	}
	if p.Status.Phase == corev1.PodPending {
		return "is Pending"
	}
	return ""
}

// reasonText is ": reason: message" of what is there, cut to a line.
func reasonText(reason, message string) string {
	var text strings.Builder
	for _, part := range []string{reason, message} {
		part, _, _ = strings.Cut(part, "\n")
		if len(part) > 200 {
			part = part[:200] + "..."
		}
		if part != "" {
			text.WriteString(": " + part)
		}
	}
	return text.String()
}
