package svcproxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/outlier"
)

// Service is what this node does for one Service. It is immutable.
type Service struct {
	Namespace, Name string
	// Skipped says why it has no Ports, if it has none on purpose.
	Skipped string
	// Ports are in the order of the Service, IPv4 before IPv6.
	Ports []*Port
	// HealthCheck is nil if the Service has none.
	HealthCheck *HealthCheck
	Problems    []manifests.Problem

	created metav1.Time
	ending  bool // it is being deleted
	// elsewhere are the cluster IPs that another program serves.
	elsewhere []netip.Addr
}

// Key is "namespace/name".
func (s *Service) Key() string { return s.Namespace + "/" + s.Name }

// Port is one port of a Service in one IP family: the desired state of a data plane.
type Port struct {
	// Key is unique: "namespace/name:port/TCP/IPv4".
	Key      string
	Name     string
	Protocol corev1.Protocol
	IPv6     bool
	// Frontends are where clients come to.
	Frontends []Frontend
	// Endpoints are all there are, used or not, by address.
	Endpoints []Endpoint
	// Affinity is for how long a client goes to the same endpoint; zero: not at all.
	Affinity time.Duration
	// Sources are who may come in by Frontends that are Restricted.
	Sources []netip.Prefix
	// ProxyProtocol is the version of the PROXY protocol's header that endpoints want; 0: none.
	ProxyProtocol uint8
	// Failing are the endpoints that fail, skipped or not.
	Failing []outlier.Failing
	// heldUntil is when endpoints that are not listed any more are let go; zero: there are none.
	heldUntil time.Time
}

// Rules are what flags say about all Services.
type Rules struct {
	// NodeName is the name of this node in Endpoints.
	NodeName string
	// ProxyName is the value of the label service.kubernetes.io/service-proxy-name of the Services
	// that are ours; empty: those without it.
	ProxyName string
	// NoExternalIPs ignores spec.externalIPs, which let anybody who may write a Service take the
	// traffic to any address.
	NoExternalIPs bool
	// LoopbackEndpoints lets endpoints be loopback addresses of this host. It is for a folder on
	// somebody's own computer: in a cluster whoever may write an EndpointSlice could then reach
	// what listens for its own host alone.
	LoopbackEndpoints bool
	// Hold is for how long the last endpoints of a Service port stay after they were taken out of its
	// EndpointSlices, unless they were said to be not ready or terminating, or others can be used;
	// zero: not at all.
	Hold time.Duration
	// ProxyProtocol says that the data plane can write that protocol's header.
	ProxyProtocol bool
	// MaxEjectionPercent is how many of a Service's endpoints are skipped at most because they fail;
	// zero: 50.
	MaxEjectionPercent int
}

// labelProxyName says that another program than the usual one serves a Service.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// here is what the passes know of this node.
type here struct {
	place
	addresses []netip.Addr
	// failing gives the endpoints of a Port, by its Key, that fail; nil: none do.
	failing func(port string) []outlier.Failing
}

// pass compiles one Service.
type pass struct {
	rules    *Rules
	at       *here
	service  *corev1.Service
	slices   []*discoveryv1.EndpointSlice
	ranges   []netip.Prefix
	problems []manifests.Problem
	past     past
}

// compile says what this node does for a Service. It reads nothing but that Service, its
// EndpointSlices, which of its endpoints fail, and what the Service was before.
func compile(rules *Rules, at *here, objects *manifests.Objects, s *corev1.Service, before past) *Service {
	c := &pass{rules: rules, at: at, service: s, past: before}
	out := &Service{Namespace: s.Namespace, Name: s.Name, created: s.CreationTimestamp, ending: s.DeletionTimestamp != nil}
	if out.Skipped = c.skipped(); out.Skipped != "" {
		out.elsewhere = c.elsewhere()
		return out
	}
	c.slices = slices.Collect(objects.EndpointSlices(s.Namespace, s.Name))
	c.ranges = c.sourceRanges()
	ports := c.ports()
	for i := range ports {
		for _, ipv6 := range []bool{false, true} {
			if p := c.port(&ports[i], ipv6); p != nil {
				out.Ports = append(out.Ports, p)
			}
		}
	}
	out.HealthCheck = c.healthCheck(out.Ports)
	slices.SortFunc(c.problems, func(a, b manifests.Problem) int {
		return cmp.Or(strings.Compare(a.Field, b.Field), strings.Compare(a.Text, b.Text))
	})
	out.Problems = slices.Compact(c.problems)
	return out
}

// skipped says why a Service asks nothing of a node, or "".
func (c *pass) skipped() string {
	s := c.service
	switch {
	case !c.mine():
		return fmt.Sprintf("label %s=%s: another program serves it", labelProxyName, s.Labels[labelProxyName])
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return "type ExternalName: DNS alone serves it"
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		return "headless: DNS alone serves it"
	case s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0:
		return "no cluster IP yet"
	}
	return ""
}

// mine tells whether this program is the one to serve a Service. Without a name of its own the label
// alone says that it is not, be its value empty (KEP-2447).
func (c *pass) mine() bool {
	name, labelled := c.service.Labels[labelProxyName]
	return labelled == (c.rules.ProxyName != "") && name == c.rules.ProxyName
}

// elsewhere are the cluster IPs of a Service that another program serves: what comes to them has
// to get there.
func (c *pass) elsewhere() (all []netip.Addr) {
	if c.mine() {
		return nil
	}
	for _, text := range clusterIPs(c.service) {
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a.Unmap())
		}
	}
	return all
}

// port compiles one port in one family; nil if the Service is not of that family.
func (c *pass) port(p *corev1.ServicePort, ipv6 bool) *Port {
	frontends := c.frontendsOf(p, ipv6)
	if len(frontends) == 0 || frontends[0].Source != SourceClusterIP {
		return nil
	}
	protocol := p.Protocol
	family := "IPv4"
	if ipv6 {
		family = "IPv6"
	}
	s := c.service
	out := &Port{
		Key:       fmt.Sprintf("%s/%s:%s/%s/%s", s.Namespace, s.Name, p.Name, protocol, family),
		Name:      p.Name,
		Protocol:  protocol,
		IPv6:      ipv6,
		Frontends: frontends,
		Endpoints: c.endpoints(p.Name, protocol, ipv6),
		Affinity:  affinityOf(s),
		Sources:   c.sources(frontends, ipv6),

		ProxyProtocol: c.proxyProtocol(protocol),
	}
	usable := categorize(out.Endpoints, policiesOf(frontends), c.at.place)
	usable = c.hold(out, usable)
	if c.at.failing != nil {
		out.Failing = slices.DeleteFunc(c.at.failing(out.Key), func(f outlier.Failing) bool {
			e := out.endpoint(f.Addr)
			return e == nil || !e.Ready
		})
		skipFailing(out.Endpoints, out.Failing, c.rules.MaxEjectionPercent)
	}
	cluster, local := out.count()
	for i := range out.Frontends {
		out.Frontends[i].decide(cluster, local, usable)
	}
	return out
}

// policiesOf are the policies that frontends need: with externalTrafficPolicy Local both, because
// Pods and the node itself may use all endpoints.
func policiesOf(frontends []Frontend) (need policies) {
	for _, f := range frontends {
		need.local = need.local || f.Local
		need.cluster = need.cluster || !f.Local || f.external()
	}
	return need
}

func (p *Port) count() (cluster, local int) {
	for i := range p.Endpoints {
		if p.Endpoints[i].Cluster {
			cluster++
		}
		if p.Endpoints[i].ForLocal {
			local++
		}
	}
	return cluster, local
}

// affinityOf is 0 without affinity; three hours if no time is said, as the API does.
func affinityOf(s *corev1.Service) time.Duration {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		seconds = value(c.ClientIP.TimeoutSeconds, seconds)
	}
	return time.Duration(min(max(seconds, 1), 86400)) * time.Second
}

// healthCheck counts what an external load balancer wants to know: terminating endpoints do not
// count while they still serve, so that it turns away in time.
func (c *pass) healthCheck(ports []*Port) *HealthCheck {
	s := c.service
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.HealthCheckNodePort <= 0 ||
		s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return nil
	}
	if !isPort(s.Spec.HealthCheckNodePort) {
		c.problem("spec.healthCheckNodePort", fmt.Sprintf("%d is no port; nobody answers there, give it one from 1 to 65535", s.Spec.HealthCheckNodePort))
		return nil
	}
	ready := map[bool]map[netip.Addr]struct{}{}
	for _, p := range ports {
		if ready[p.IPv6] == nil {
			ready[p.IPv6] = map[netip.Addr]struct{}{}
		}
		for i := range p.Endpoints {
			if e := &p.Endpoints[i]; e.Local && e.Ready {
				ready[p.IPv6][e.Addr.Addr()] = struct{}{}
			}
		}
	}
	out := &HealthCheck{Port: uint16(s.Spec.HealthCheckNodePort), LocalEndpoints: make(map[bool]int, len(ready))}
	for ipv6, addresses := range ready {
		out.LocalEndpoints[ipv6] = len(addresses)
	}
	return out
}
