package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Service is one port of one Service in one IP family, as the kernel is to serve it. It is
// immutable once it is given to a Plane.
type Service struct {
	// Name is unique among all Services of a Plane, and nothing more to it.
	Name string
	// Protocol is the IP protocol number: 6, 17 or 132.
	Protocol uint8
	// IPv6 says which family all addresses below are of.
	IPv6 bool
	// Frontends are where clients come to. No two Services of a Plane have the same one.
	Frontends []Frontend
	// Cluster and Local are the endpoints that the two traffic policies choose among. The order
	// says nothing: an endpoint that stays keeps its place in the kernel.
	Cluster, Local []netip.AddrPort
	// Kept are other endpoints that flows of UDP stay with, although no new ones go there: they serve, and
	// traffic policies and hints count when a flow begins, as for TCP.
	Kept []netip.AddrPort
	// OnNode are the addresses of those endpoints that run on this node: a connection that comes
	// back to where it came from is masqueraded.
	OnNode []netip.Addr
	// ClusterIPs are addresses whose ports are all known: what comes to one and is no Frontend of
	// any Service is rejected.
	ClusterIPs []netip.Addr
	// Elsewhere are addresses that another program serves: what comes to them goes on, although they
	// are in Node.ServiceCIDRs.
	Elsewhere []netip.Addr
	// Affinity is for how long after its last new connection a client goes to the same
	// endpoint, in whole seconds; zero: not at all.
	Affinity time.Duration
	// Sources are who may come in by Frontends that are Restricted.
	Sources []netip.Prefix
}

// Frontend is an address, or with no address a port of this node.
type Frontend struct {
	// Addr is not valid for a NodePort.
	Addr netip.Addr
	// Port is not zero.
	Port uint16
	// Kind says what is done with a new connection.
	Kind Kind
	// Restricted lets only Service.Sources in. It is not for a NodePort.
	Restricted bool
}

// Kind says what is done with a new connection. The numbers stand in the kernel and must not
// change their meaning.
type Kind uint8

// All the Kinds.
const (
	// ClusterIP goes to Cluster, masqueraded unless it comes from Node.Unmasqueraded.
	ClusterIP Kind = 1
	// ClusterIPLocal goes to Local, with the same rule.
	ClusterIPLocal Kind = 2
	// External goes to Cluster, masqueraded.
	External Kind = 3
	// ExternalLocal goes to Local as it is; from Node.Pods to Cluster as it is; from this node
	// itself to Cluster, masqueraded.
	ExternalLocal Kind = 4
	// ExternalAbsent is ExternalLocal without a local endpoint: what would go to Local is dropped.
	ExternalAbsent Kind = 5
	// Reject answers with a TCP reset or ICMP port unreachable.
	Reject Kind = 6
	// Drop does not answer.
	Drop Kind = 7
)

// restricted is added to the number of a Kind in the kernel.
const restricted = 16

// String is the name of the constant.
func (k Kind) String() string {
	names := [...]string{"", "ClusterIP", "ClusterIPLocal", "External", "ExternalLocal", "ExternalAbsent", "Reject", "Drop"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return names[k]
}

// Node is what all Services of a node share. Each list may be of both families; the empty list
// matches nothing.
type Node struct {
	// NodePorts are the ranges of this node's own addresses that answer NodePorts. Loopback
	// addresses never do.
	NodePorts []netip.Prefix
	// Pods are where the Pods of the cluster are.
	Pods []netip.Prefix
	// Unmasqueraded are the sources that reach a ClusterIP under their own address.
	Unmasqueraded []netip.Prefix
	// DropInvalid are the sources whose forwarded TCP segments are dropped if connection
	// tracking does not take them: they would leave without the Service's address.
	DropInvalid []netip.Prefix
	// ServiceCIDRs are where ClusterIPs come from: what nobody has is dropped.
	ServiceCIDRs []netip.Prefix
}

// MaxEndpoints is how many endpoints a Service can have: what a shape has room for.
const MaxEndpoints = 1<<shapeBits - 1

// Validate reports what the kernel could not serve.
func (s *Service) Validate() error {
	switch {
	case s.Name == "":
		return fmt.Errorf("nft: a Service without a name")
	case s.Affinity < 0 || s.Affinity > maxAffinity || s.Affinity%time.Second != 0:
		return fmt.Errorf("nft: %s: affinity of %v, want whole seconds up to %v", s.Name, s.Affinity, maxAffinity)
	case len(s.Cluster) > MaxEndpoints || len(s.Local) > MaxEndpoints:
		return fmt.Errorf("nft: %s: more than %d endpoints", s.Name, MaxEndpoints)
	}
	for _, f := range s.Frontends {
		switch {
		case f.Port == 0:
			return fmt.Errorf("nft: %s: a frontend with port 0", s.Name)
		case f.Kind < ClusterIP || f.Kind > Drop:
			return fmt.Errorf("nft: %s: frontend %v: %v", s.Name, f, f.Kind)
		case f.Addr.IsValid() && f.Addr.Unmap().Is4() == s.IPv6:
			return fmt.Errorf("nft: %s: frontend %v is of the other IP family", s.Name, f.Addr)
		case f.Restricted && !f.Addr.IsValid():
			return fmt.Errorf("nft: %s: a NodePort cannot be restricted", s.Name)
		}
	}
	for _, e := range slices.Concat(s.Cluster, s.Local) {
		if e.Port() == 0 || e.Addr().Unmap().Is4() == s.IPv6 {
			return fmt.Errorf("nft: %s: endpoint %v: no port, or of the other IP family", s.Name, e)
		}
	}
	for _, a := range slices.Concat(s.OnNode, s.ClusterIPs, s.Elsewhere) {
		if a.Unmap().Is4() == s.IPv6 { // the kernel would refuse the whole transaction
			return fmt.Errorf("nft: %s: address %v is of the other IP family", s.Name, a)
		}
	}
	return nil
}

// maxAffinity is the longest that the Kubernetes API allows.
const maxAffinity = 24 * time.Hour

// A shape says how an endpoint is chosen: among how many, and for how long a client stays with
// it. It stands in the kernel as one number and has a chain of its own, which all Services of
// that shape share.
type shape uint32

// shapeBits leaves 17 bits for the seconds of a day.
const shapeBits = 15

func newShape(endpoints int, affinity time.Duration) shape {
	if endpoints == 0 {
		return 0
	}
	return shape(affinity/time.Second)<<shapeBits | shape(endpoints)
}

func (s shape) endpoints() uint32 { return uint32(s) & MaxEndpoints }

func (s shape) affinity() time.Duration { return time.Duration(s>>shapeBits) * time.Second }
