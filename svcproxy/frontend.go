package svcproxy

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
)

// Source says what makes an address one of a Service's.
type Source string

// The Sources, in the order of who has a greater right to an address.
const (
	SourceClusterIP    Source = "ClusterIP"
	SourceNodePort     Source = "NodePort"
	SourceLoadBalancer Source = "LoadBalancer"
	SourceExternalIP   Source = "ExternalIP"
)

func (s Source) rank() int {
	return map[Source]int{SourceClusterIP: 0, SourceNodePort: 1, SourceLoadBalancer: 2, SourceExternalIP: 3}[s]
}

// Action is what becomes of a new connection.
type Action string

// The Actions.
const (
	Forward Action = "forward"
	// Reject is answered with a TCP reset or ICMP port unreachable.
	Reject Action = "reject"
	// Drop is not answered.
	Drop Action = "drop"
	// DropStrangers drops what comes from outside of the cluster, and forwards what comes from its
	// Pods and this node.
	DropStrangers Action = "drop from outside"
)

// Frontend is an address or a NodePort that clients of a Service come to.
type Frontend struct {
	Source Source
	// Addr is not valid for a NodePort.
	Addr netip.Addr
	Port uint16
	// Local is the traffic policy that counts here: Local instead of Cluster.
	Local bool
	// Restricted by loadBalancerSourceRanges.
	Restricted bool
	Action     Action
	// Why says why the Action is not Forward.
	Why string
	// ClaimedBy is the Service ("namespace/name") that has this address and port instead; then
	// this Frontend is not served.
	ClaimedBy string
}

// String is "address:port", or "*:port" for a NodePort.
func (f Frontend) String() string {
	if !f.Addr.IsValid() {
		return fmt.Sprintf("*:%d", f.Port)
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String()
}

func (f Frontend) external() bool { return f.Source != SourceClusterIP }

// frontendsOf are those of one port in one family, without their Action.
func (c *pass) frontendsOf(p *corev1.ServicePort, ipv6 bool) []Frontend {
	s := c.service
	internal := value(s.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster) == corev1.ServiceInternalTrafficPolicyLocal
	external := s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	var all []Frontend
	for _, a := range c.addresses("spec.clusterIPs", clusterIPs(s), ipv6) {
		all = append(all, Frontend{Source: SourceClusterIP, Addr: a, Port: uint16(p.Port), Local: internal})
	}
	if p.NodePort > 0 && s.Spec.Type != corev1.ServiceTypeClusterIP {
		all = append(all, Frontend{Source: SourceNodePort, Port: uint16(p.NodePort), Local: external})
	}
	if !c.rules.NoExternalIPs {
		for _, a := range c.addresses("spec.externalIPs", s.Spec.ExternalIPs, ipv6) {
			all = append(all, Frontend{Source: SourceExternalIP, Addr: a, Port: uint16(p.Port), Local: external})
		}
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		restricted := c.restricted(ipv6)
		for _, a := range c.addresses("status.loadBalancer.ingress", ingressIPs(s), ipv6) {
			all = append(all, Frontend{Source: SourceLoadBalancer, Addr: a, Port: uint16(p.Port), Local: external, Restricted: restricted})
		}
	}
	return withoutRepetition(all)
}

// withoutRepetition keeps the first of two that are the same address and port.
func withoutRepetition(all []Frontend) []Frontend {
	kept := all[:0]
	for _, f := range all {
		same := false
		for _, k := range kept {
			same = same || k.Addr == f.Addr && k.Port == f.Port
		}
		if !same {
			kept = append(kept, f)
		}
	}
	return kept
}

func clusterIPs(s *corev1.Service) []string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs
	}
	if s.Spec.ClusterIP == "" {
		return nil
	}
	return []string{s.Spec.ClusterIP}
}

// ingressIPs are the addresses of a load balancer that sends packets on as they are: with ipMode
// Proxy they have to go to the load balancer itself.
func ingressIPs(s *corev1.Service) []string {
	var all []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		if i.IP != "" && value(i.IPMode, corev1.LoadBalancerIPModeVIP) == corev1.LoadBalancerIPModeVIP {
			all = append(all, i.IP)
		}
	}
	return all
}

// addresses are those of one family. One that is none, or that no Service may have, is a Problem.
func (c *pass) addresses(field string, texts []string, ipv6 bool) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || a.Zone() != "" || a.Is4In6():
			c.problem(field, fmt.Sprintf("%q is no IP address; it is not served, write it like 192.0.2.1 or 2001:db8::1", text))
		case a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast():
			c.problem(field, fmt.Sprintf("%s is loopback, unspecified, multicast or link-local; no Service may have it and it is not served, choose another address", a))
		case a.Is6() == ipv6:
			all = append(all, a)
		}
	}
	return all
}

// sourceRanges are loadBalancerSourceRanges, of both families; one that is none is a Problem and
// lets nobody in.
func (c *pass) sourceRanges() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range c.service.Spec.LoadBalancerSourceRanges {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			c.problem("spec.loadBalancerSourceRanges", fmt.Sprintf("%q is no range and lets nobody in; write it like 203.0.113.0/24", text))
			continue
		}
		all = append(all, p.Masked())
	}
	return all
}

// restricted tells whether sources are checked in a family. Ranges of one family close the other
// one, too, unless they are all of it: who writes 10.0.0.0/8 does not mean all of IPv6, and who
// writes 0.0.0.0/0 does not mean nobody else.
func (c *pass) restricted(ipv6 bool) bool {
	if len(c.service.Spec.LoadBalancerSourceRanges) == 0 {
		return false
	}
	same, everybody := false, false
	for _, p := range c.ranges {
		if p.Addr().Is6() == ipv6 {
			if p.Bits() == 0 {
				return false
			}
			same = true
		}
		everybody = everybody || p.Bits() == 0
	}
	return same || !everybody
}

// sources are who may come in by the frontends that are restricted: the ranges, and, if this
// node is in one, the addresses themselves, because a node that has a load balancer's address on
// an interface may use it as its own.
func (c *pass) sources(frontends []Frontend, ipv6 bool) []netip.Prefix {
	var all []netip.Prefix
	node := false
	for _, p := range c.ranges {
		if p.Addr().Is6() == ipv6 {
			all = append(all, p)
			for _, a := range c.at.addresses {
				node = node || p.Contains(a)
			}
		}
	}
	for _, f := range frontends {
		if node && f.Restricted {
			all = append(all, netip.PrefixFrom(f.Addr, f.Addr.BitLen()))
		}
	}
	return all
}

// decide gives a frontend its Action.
func (f *Frontend) decide(cluster, local int, usable bool) {
	switch {
	case f.external() && f.Local && usable && local == 0:
		f.Action, f.Why = DropStrangers, "externalTrafficPolicy is Local and no endpoint on this node is ready"
	case f.Local && usable && local == 0:
		f.Action, f.Why = Drop, "internalTrafficPolicy is Local and no endpoint on this node is ready"
	case f.Local && local == 0, !f.Local && cluster == 0:
		f.Action, f.Why = Reject, "no endpoint is ready"
	default:
		f.Action = Forward
	}
}

func (c *pass) problem(field, text string) {
	c.problems = append(c.problems, manifests.Problem{
		Object: manifests.Ref{Kind: manifests.KindService, Namespace: c.service.Namespace, Name: c.service.Name},
		Field:  field, Text: text,
	})
}
