package svcproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/nft"
	"github.com/portico-ingress/portico/svcproxy/relay"
)

// Relay is the data plane in userspace, relay.Plane, as a Plane.
type Relay struct {
	*relay.Plane

	mu sync.Mutex
	// ports are those that it has been told of, by Key.
	ports map[string]*Port
}

// NewRelay returns the Plane that p is.
func NewRelay(p *relay.Plane) *Relay { return &Relay{Plane: p, ports: map[string]*Port{}} }

// Apply makes changes live.
func (r *Relay) Apply(u Update) error {
	changes := relay.Changes{Delete: u.Delete, Complete: u.Complete}
	if u.Network != nil {
		changes.Node = &relay.Node{NodePorts: u.Network.NodePortAddresses, Pods: u.Network.ClusterCIDRs}
	}
	r.mu.Lock()
	if u.Complete {
		clear(r.ports)
	}
	for _, key := range u.Delete {
		delete(r.ports, key)
	}
	for _, s := range u.Put {
		for _, p := range s.Ports {
			r.ports[p.Key] = p
			changes.Put = append(changes.Put, relayService(p))
		}
	}
	r.mu.Unlock()
	return r.Plane.Apply(changes)
}

// relayService is a Port in the terms of the data plane in userspace.
func relayService(p *Port) *relay.Service {
	s := &relay.Service{
		Name: p.Key, Protocol: protocolNumber(p.Protocol), IPv6: p.IPv6,
		Affinity: p.Affinity, Sources: p.Sources, ProxyProtocol: p.ProxyProtocol,
	}
	for i := range p.Frontends {
		if f := &p.Frontends[i]; f.ClaimedBy == "" {
			s.Frontends = append(s.Frontends, relay.Frontend{Addr: f.Addr, Port: f.Port, Kind: relayKind(f), Restricted: f.Restricted})
		}
	}
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		if e.Cluster {
			s.Cluster = append(s.Cluster, e.Addr)
		}
		if e.ForLocal {
			s.Local = append(s.Local, e.Addr)
		}
	}
	return s
}

func relayKind(f *Frontend) relay.Kind {
	switch {
	case f.Action == Reject:
		return relay.Reject
	case f.Action == Drop:
		return relay.Drop
	case f.Action == DropStrangers:
		return relay.DropOutside
	case f.external() && f.Local:
		return relay.LocalOutside
	case f.Local:
		return relay.Local
	}
	return relay.Cluster
}

// Look gives what listens.
func (r *Relay) Look() (Live, error) { return relayLive{r.Plane}, nil }

// relayLive is a relay.Plane in the words of the kernel's data plane.
type relayLive struct{ *relay.Plane }

// Damage is none: what this process has, nobody else changes.
func (relayLive) Damage() string { return "" }

// Trace says Pass where nobody of ours listens: then the host answers, or refuses.
func (l relayLive) Trace(p nft.Packet) nft.Fate {
	t := l.Plane.Trace(p.Protocol, p.From, p.To)
	if t.Service == "" {
		return nft.Fate{Verdict: nft.Pass}
	}
	fate := nft.Fate{Met: []string{fmt.Sprintf("%v of %s: %s", t.Frontend, t.Service, t.Outcome)}}
	switch t.Outcome {
	case relay.Forwarded:
		fate.Verdict, fate.Endpoints, fate.Masqueraded = nft.Translate, slices.SortedFunc(slices.Values(t.Endpoints), netip.AddrPort.Compare), true
		fate.Affinity, fate.Remembered = t.Affinity, t.Stays
	case relay.Refused:
		fate.Verdict = nft.Refuse
	default:
		fate.Verdict = nft.Discard
	}
	return fate
}

// Problems are the frontends that cannot be served on this host, each with what would help.
func (r *Relay) Problems() []manifests.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []manifests.Problem
	for _, p := range r.Plane.Problems() {
		port := r.ports[p.Service]
		if port == nil {
			continue
		}
		source := SourceClusterIP
		if i := slices.IndexFunc(port.Frontends, func(f Frontend) bool {
			return f.Addr == p.Frontend.Addr && f.Port == p.Frontend.Port
		}); i >= 0 {
			source = port.Frontends[i].Source
		}
		service, _, _ := strings.Cut(p.Service, ":")
		namespace, name, _ := strings.Cut(service, "/")
		all = append(all, manifests.Problem{
			Object: manifests.Ref{Kind: manifests.KindService, Namespace: namespace, Name: name},
			Field:  fieldOf(source),
			Text:   fmt.Sprintf("%s %v/%s is not served in userspace: %v", source, p.Frontend, port.Protocol, p.Err),
		})
	}
	return all
}

// annotationProxyProtocol asks for a header of the PROXY protocol before each connection to an
// endpoint. It has the name that it has on an Ingress.
const annotationProxyProtocol = "portico.dev/proxy-protocol-to-backend"

// proxyProtocol is the version that is asked for. What cannot be done is a Problem, and then there
// is no header.
func (c *pass) proxyProtocol(protocol corev1.Protocol) uint8 {
	value := c.service.Annotations[annotationProxyProtocol]
	field := "metadata.annotations[" + annotationProxyProtocol + "]"
	version, ok := map[string]uint8{"": 0, "v1": 1, "v2": 2}[value]
	switch {
	case !ok:
		c.problem(field, fmt.Sprintf("%q is neither \"v1\" nor \"v2\"; connections begin with no header", value))
	case version != 0 && !c.rules.ProxyProtocol:
		c.problem(field, "the kernel cannot write it: connections begin with no header; run svcproxy with --mode relay, or use externalTrafficPolicy Local to see the client's address")
		return 0
	case version != 0 && protocol != corev1.ProtocolTCP:
		c.problem(field, fmt.Sprintf("is for TCP; port of %s has no header", protocol))
		return 0
	}
	return version
}
