package manifests

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// podSlicesManager is who the slices made here say they are managed by.
const podSlicesManager = "portico.dev"

// podSlices makes the EndpointSlices of a Service from Pods, as the endpointslice controller
// of a cluster does, but for two things: they are not cut at a hundred endpoints, and a Pod
// that lists no conditions at all is ready unless its phase says otherwise, because a person
// who writes `status: {podIP: 127.0.0.1}` means that. pods are those of the Service's
// namespace, in order of name.
func podSlices(service *corev1.Service, pods []*corev1.Pod) []*discoveryv1.EndpointSlice {
	if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	groups := map[string]*discoveryv1.EndpointSlice{}
	for _, pod := range pods {
		if !selected(service.Spec.Selector, pod.Labels) || !serves(pod) {
			continue
		}
		ports := podPorts(service, pod)
		for family, addresses := range podAddresses(service, pod) {
			k := sliceGroup(family, ports)
			if groups[k] == nil {
				groups[k] = newPodSlice(service, family, ports)
			}
			groups[k].Endpoints = append(groups[k].Endpoints, podEndpoint(service, pod, addresses))
		}
	}
	return named(service, groups)
}

// selected says whether labels carry all pairs of the selector.
func selected(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// serves says whether the Pod may be an endpoint at all: it has an address and is not over.
func serves(pod *corev1.Pod) bool {
	return len(podIPs(pod)) > 0 && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func podIPs(pod *corev1.Pod) []netip.Addr {
	var ips []netip.Addr
	add := func(text string) {
		if ip, err := netip.ParseAddr(text); err == nil && !slices.Contains(ips, ip) {
			ips = append(ips, ip)
		}
	}
	add(pod.Status.PodIP)
	for _, ip := range pod.Status.PodIPs {
		add(ip.IP)
	}
	return ips
}

// podAddresses gives the Pod's address in each family of the Service. Where neither ipFamilies
// nor a cluster IP tells the families, it is the family of the Pod's first address.
func podAddresses(service *corev1.Service, pod *corev1.Pod) map[discoveryv1.AddressType][]string {
	ips := podIPs(pod)
	families := serviceFamilies(service)
	if len(families) == 0 {
		families = []discoveryv1.AddressType{familyOf(ips[0])}
	}
	addresses := map[discoveryv1.AddressType][]string{}
	for _, ip := range ips {
		if f := familyOf(ip); slices.Contains(families, f) {
			addresses[f] = append(addresses[f], ip.String())
		}
	}
	return addresses
}

func serviceFamilies(service *corev1.Service) []discoveryv1.AddressType {
	var families []discoveryv1.AddressType
	for _, f := range service.Spec.IPFamilies {
		families = append(families, discoveryv1.AddressType(f))
	}
	if len(families) > 0 {
		return families
	}
	for _, text := range append([]string{service.Spec.ClusterIP}, service.Spec.ClusterIPs...) {
		if ip, err := netip.ParseAddr(text); err == nil {
			families = append(families, familyOf(ip))
		}
	}
	return families
}

func familyOf(ip netip.Addr) discoveryv1.AddressType {
	if ip.Is4() {
		return discoveryv1.AddressTypeIPv4
	}
	return discoveryv1.AddressTypeIPv6
}

// podPorts resolves the ports of a Service in one Pod. One that the Pod does not have is left out.
func podPorts(service *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	var ports []discoveryv1.EndpointPort
	for i := range service.Spec.Ports {
		p := &service.Spec.Ports[i]
		number, ok := targetPort(p, pod)
		if !ok {
			continue
		}
		ports = append(ports, discoveryv1.EndpointPort{
			Name: &p.Name, Protocol: &p.Protocol, Port: &number, AppProtocol: p.AppProtocol,
		})
	}
	return ports
}

func targetPort(p *corev1.ServicePort, pod *corev1.Pod) (int32, bool) {
	if p.TargetPort.Type == intstr.Int {
		return p.TargetPort.IntVal, true
	}
	find := func(containers []corev1.Container, sidecars bool) (int32, bool) {
		for i := range containers {
			c := &containers[i]
			if sidecars && (c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways) {
				continue
			}
			for _, port := range c.Ports {
				if port.Name == p.TargetPort.StrVal && port.Protocol == p.Protocol {
					return port.ContainerPort, true
				}
			}
		}
		return 0, false
	}
	if number, ok := find(pod.Spec.Containers, false); ok {
		return number, true
	}
	return find(pod.Spec.InitContainers, true)
}

// podEndpoint follows KEP-1669: a terminating Pod serves while it is ready to, and is ready
// only for a Service that publishes what is not.
func podEndpoint(service *corev1.Service, pod *corev1.Pod, addresses []string) discoveryv1.Endpoint {
	serving := podReady(pod)
	terminating := pod.DeletionTimestamp != nil
	ready := service.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  addresses,
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: KindPod, Namespace: pod.Namespace, Name: pod.Name},
	}
	if pod.Spec.NodeName != "" {
		e.NodeName = &pod.Spec.NodeName
	}
	if pod.Spec.Hostname != "" && pod.Spec.Subdomain == service.Name {
		e.Hostname = &pod.Spec.Hostname
	}
	return e
}

// podReady honours the Ready condition. See podSlices for a Pod without conditions.
func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return len(pod.Status.Conditions) == 0 && (pod.Status.Phase == "" || pod.Status.Phase == corev1.PodRunning)
}

// sliceGroup is equal for Pods that share a slice.
func sliceGroup(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	var b strings.Builder
	b.WriteString(string(family))
	for _, p := range ports {
		fmt.Fprintf(&b, " %s/%s/%d", *p.Name, *p.Protocol, *p.Port)
	}
	return b.String()
}

func newPodSlice(service *corev1.Service, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	labels := map[string]string{
		discoveryv1.LabelServiceName: service.Name,
		discoveryv1.LabelManagedBy:   podSlicesManager,
	}
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		labels[corev1.IsHeadlessService] = ""
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: service.Namespace, Labels: labels},
		AddressType: family,
		Ports:       ports,
	}
}

// named gives the slices names that no object of a folder can have.
func named(service *corev1.Service, groups map[string]*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	all := make([]*discoveryv1.EndpointSlice, 0, len(groups))
	for k, s := range groups {
		s.Name = service.Name + ":" + k
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
