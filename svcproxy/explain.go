package svcproxy

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/nft"
	"github.com/portico-ingress/portico/svcproxy/outlier"
)

// Packet is the first one of a connection.
type Packet struct {
	From     netip.Addr      `json:"from"`
	To       netip.AddrPort  `json:"to"`
	Protocol corev1.Protocol `json:"protocol"`
}

// Verdict is what becomes of a packet, in a word for a user.
type Verdict string

// The Verdicts.
const (
	// Delivered to one of the endpoints of a Service.
	Delivered Verdict = "delivered"
	// Rejected with a TCP reset or ICMP port unreachable.
	Rejected Verdict = "rejected"
	// Dropped without an answer.
	Dropped Verdict = "dropped"
	// PassedOn unchanged, because it is no Service's.
	PassedOn Verdict = "passed on"
)

// Explanation says what becomes of a packet on one node, and why.
type Explanation struct {
	Node    string  `json:"node"`
	Packet  Packet  `json:"packet"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
	// Service is "namespace/name", Frontend what of it the packet came to; empty if it came to none.
	Service  string `json:"service,omitempty"`
	Frontend string `json:"frontend,omitempty"`
	// The rules that were looked at, in words; empty for those that were not.
	SourceRanges  string `json:"sourceRanges,omitempty"`
	TrafficPolicy string `json:"trafficPolicy,omitempty"`
	Affinity      string `json:"affinity,omitempty"`
	Masquerade    string `json:"masquerade,omitempty"`
	// Endpoints are all that the Service's port has in the packet's IP family, used or not.
	Endpoints []ExplainedEndpoint `json:"endpoints,omitempty"`
	// Notes say what else a user may want to know: why there is no endpoint, and what to do.
	Notes []string `json:"notes,omitempty"`
	// Kernel is what the kernel says to it.
	Kernel Comparison `json:"kernel"`

	fate nft.Fate
}

// ExplainedEndpoint is one endpoint, and what it is to a packet.
type ExplainedEndpoint struct {
	Address string `json:"address"`
	Pod     string `json:"pod,omitempty"`
	Node    string `json:"node,omitempty"`
	// Used: the packet may go there.
	Used bool   `json:"used"`
	Why  string `json:"why"`
	// Masqueraded: the endpoint sees an address of this node instead of the client's.
	Masqueraded bool `json:"masqueraded"`
}

// Explainer says what becomes of packets on one node: from the same objects as a Controller, by
// the same compiler.
type Explainer struct {
	// Pods gives the Pods of a namespace; they are asked for only to say why a Service has no
	// endpoint. Nil means those of the objects.
	Pods func(namespace string) ([]*corev1.Pod, error)

	network   Network
	node      *nft.Node
	addresses []netip.Addr
	compiler  *compiler
}

// NewExplainer compiles all Services of objects. addresses are the node's own; nil means those of
// its Node object.
func NewExplainer(rules Rules, network Network, objects *manifests.Objects, addresses []netip.Addr) *Explainer {
	c := newCompiler(rules)
	c.setPlace(placeOf(rules.NodeName, objects.Node(rules.NodeName)))
	all := manifests.Change{Objects: objects}
	for s := range objects.Services() {
		all.Refs = append(all.Refs, manifests.Ref{Kind: manifests.KindService, Namespace: s.Namespace, Name: s.Name})
	}
	c.apply(all)
	return newExplainer(c, network.with(objects), addresses)
}

func newExplainer(c *compiler, network Network, addresses []netip.Addr) *Explainer {
	if addresses == nil {
		addresses = c.at.addresses
	}
	return &Explainer{network: network, node: network.kernelNode(), addresses: addresses, compiler: c}
}

// Failing says which endpoints the Controller of the node has found to fail, and how many percent of
// them it skips at most; it comes before Explain.
func (x *Explainer) Failing(all []outlier.Failing, percent int) {
	c := x.compiler
	c.rules.MaxEjectionPercent = percent
	c.at.failing = func(port string) (of []outlier.Failing) {
		for _, f := range all {
			if f.Port == port {
				of = append(of, f)
			}
		}
		return of
	}
	dirty := map[string]struct{}{}
	for _, f := range all {
		service, _, _ := strings.Cut(f.Port, ":")
		dirty[service] = struct{}{}
	}
	c.compile(dirty)
}

// own tells whether an address is the node's.
func (x *Explainer) own(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(x.addresses, a) }

func (x *Explainer) services() func(func(*Service) bool) {
	return (&State{services: x.compiler.services}).Services()
}

// frontend finds who serves an address and port, or with no address a NodePort.
func (x *Explainer) frontend(addr netip.Addr, p Packet) (*Service, *Port, *Frontend) {
	return x.compiler.frontend(claimKey{addr: addr, port: p.To.Port(), protocol: p.Protocol, ipv6: p.To.Addr().Is6()})
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
