package svcproxy

import (
	"net/netip"
	"slices"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// Network is what flags say about the cluster's addresses. The zero value works.
type Network struct {
	// ClusterCIDRs are where Pods are. Without them Pods are not told from strangers: they do not
	// use all endpoints of a Service with externalTrafficPolicy Local, and nobody who comes to a
	// cluster IP is masqueraded.
	ClusterCIDRs []netip.Prefix
	// NodePortAddresses are the ranges of this node's addresses that answer NodePorts; a family
	// without any answers on all.
	NodePortAddresses []netip.Prefix
	// MasqueradeAll masquerades everybody who comes to a cluster IP.
	MasqueradeAll bool
	// ServiceCIDRs are where cluster IPs come from, besides those that the cluster says itself: what
	// nobody has is dropped.
	ServiceCIDRs []netip.Prefix
}

// with adds the ServiceCIDRs of the cluster.
func (n Network) with(objects *manifests.Objects) Network {
	n.ServiceCIDRs = slices.Clone(n.ServiceCIDRs)
	for c := range objects.ServiceCIDRs() {
		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && !p.Addr().Is4In6() {
				n.ServiceCIDRs = append(n.ServiceCIDRs, p.Masked())
			}
		}
	}
	return n
}

var everywhere = map[bool]netip.Prefix{
	false: netip.PrefixFrom(netip.IPv4Unspecified(), 0),
	true:  netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// orEverywhere adds for each family that has none the range of all addresses.
func orEverywhere(prefixes []netip.Prefix) []netip.Prefix {
	all := slices.Clone(prefixes)
	for _, ipv6 := range []bool{false, true} {
		if !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() == ipv6 }) {
			all = append(all, everywhere[ipv6])
		}
	}
	return all
}

// kernelNode is the Network in the terms of the kernel's data plane.
func (n *Network) kernelNode() *nft.Node {
	k := &nft.Node{
		NodePorts:     orEverywhere(n.NodePortAddresses),
		Pods:          n.ClusterCIDRs,
		Unmasqueraded: orEverywhere(n.ClusterCIDRs),
		DropInvalid:   orEverywhere(n.ClusterCIDRs),
		ServiceCIDRs:  n.ServiceCIDRs,
	}
	if n.MasqueradeAll {
		k.Unmasqueraded = nil
	}
	return k
}
