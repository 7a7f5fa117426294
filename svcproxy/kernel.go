package svcproxy

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// Kernel is the data plane in the kernel, nft.Plane, as a Plane. It serves all there is but the PROXY
// protocol, which takes somebody who writes it.
type Kernel struct{ *nft.Plane }

// Apply makes changes live.
func (k Kernel) Apply(u Update) error {
	changes := kernelChanges(u.Delta)
	changes.Complete = u.Complete
	if u.Network != nil {
		changes.Node = u.Network.kernelNode()
	}
	return k.Plane.Apply(changes)
}

// Problems are the Services of IPv6 where the kernel has no nf_tables for it. All else that it does
// not take is an error of Apply.
func (k Kernel) Problems() []manifests.Problem {
	names, why := k.Unserved()
	all := make([]manifests.Problem, 0, len(names))
	for _, key := range names {
		service, _, _ := strings.Cut(key, ":")
		namespace, name, _ := strings.Cut(service, "/")
		all = append(all, manifests.Problem{
			Object: manifests.Ref{Kind: manifests.KindService, Namespace: namespace, Name: name},
			Field:  "spec.ipFamilies",
			Text: fmt.Sprintf("%s is not served on this node, whose kernel has no nf_tables for IPv6 (%v); IPv4 is. "+
				"Use a kernel with CONFIG_NF_TABLES_INET and CONFIG_NFT_FIB_INET, or --mode relay", key, why),
		})
	}
	return all
}

// Look reads the tables in the network namespace of the calling thread.
func (Kernel) Look() (Live, error) {
	s, err := nft.Look()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// kernelService is a Port in the terms of the kernel's data plane.
func kernelService(p *Port) *nft.Service {
	s := &nft.Service{
		Name: p.Key, Protocol: protocolNumber(p.Protocol), IPv6: p.IPv6,
		OnNode: p.usedOnNode(), Affinity: p.Affinity, Sources: p.Sources,
	}
	for i := range p.Frontends {
		f := &p.Frontends[i]
		if f.ClaimedBy != "" {
			continue
		}
		s.Frontends = append(s.Frontends, nft.Frontend{Addr: f.Addr, Port: f.Port, Kind: kernelKind(f), Restricted: f.Restricted})
		if f.Source == SourceClusterIP {
			s.ClusterIPs = append(s.ClusterIPs, f.Addr)
		}
	}
	cluster, local := p.count()
	s.Cluster, s.Local = make([]netip.AddrPort, 0, cluster), make([]netip.AddrPort, 0, local)
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		if e.Cluster && len(s.Cluster) < nft.MaxEndpoints {
			s.Cluster = append(s.Cluster, e.Addr)
		}
		if e.ForLocal && len(s.Local) < nft.MaxEndpoints {
			s.Local = append(s.Local, e.Addr)
		}
		if p.Protocol == corev1.ProtocolUDP && e.Ready && !e.Cluster && !e.ForLocal {
			s.Kept = append(s.Kept, e.Addr)
		}
	}
	return s
}

func kernelKind(f *Frontend) nft.Kind {
	switch {
	case f.Action == Reject:
		return nft.Reject
	case f.Action == Drop:
		return nft.Drop
	case f.Action == DropStrangers:
		return nft.ExternalAbsent
	case f.external() && f.Local:
		return nft.ExternalLocal
	case f.external():
		return nft.External
	case f.Local:
		return nft.ClusterIPLocal
	}
	return nft.ClusterIP
}

// kernelChanges are a Delta in the terms of the kernel's data plane.
func kernelChanges(d Delta) nft.Changes {
	c := nft.Changes{Delete: d.Delete}
	for _, s := range d.Put {
		if len(s.elsewhere) > 0 {
			c.Put = append(c.Put, kernelElsewhere(s)...)
		}
		for _, p := range s.Ports {
			if protocolNumber(p.Protocol) != 0 {
				c.Put = append(c.Put, kernelService(p))
			}
		}
	}
	return c
}

// elsewhereKeys name, in the kernel's data plane, the addresses of a Service that another program
// serves; no Port has such a Key.
func elsewhereKeys(service string) [2]string {
	return [2]string{service + "/elsewhere/IPv4", service + "/elsewhere/IPv6"}
}

func kernelElsewhere(s *Service) []*nft.Service {
	keys := elsewhereKeys(s.Key())
	all := []*nft.Service{{Name: keys[0]}, {Name: keys[1], IPv6: true}}
	for _, a := range s.elsewhere {
		of := all[0]
		if a.Is6() {
			of = all[1]
		}
		of.Elsewhere = append(of.Elsewhere, a)
	}
	return all
}
