package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// The Protocols, by their IP protocol number.
const (
	TCP uint8 = 6
	UDP uint8 = 17
)

// Service is one port of one Service in one IP family. It is immutable once a Plane has it.
type Service struct {
	// Name is unique among all Services of a Plane.
	Name string
	// Protocol is TCP or UDP. Others have a Problem for each Frontend.
	Protocol uint8
	// IPv6 says which family all addresses below are of.
	IPv6 bool
	// Frontends are where clients come to. No two Services of a Plane have the same one.
	Frontends []Frontend
	// Cluster and Local are the endpoints that the two traffic policies choose among.
	Cluster, Local []netip.AddrPort
	// Affinity is for how long after its last new connection a client goes to the same
	// endpoint; zero: not at all.
	Affinity time.Duration
	// Sources are who may come in by Frontends that are Restricted.
	Sources []netip.Prefix
	// ProxyProtocol is the version of the header that TCP connections to endpoints begin with: 1,
	// 2, or 0 for none.
	ProxyProtocol uint8
}

// Frontend is an address, or with no address a port of this host.
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

// String is "address:port", or "*:port" for a NodePort.
func (f Frontend) String() string {
	if !f.Addr.IsValid() {
		return fmt.Sprintf("*:%d", f.Port)
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String()
}

// Kind says what is done with a new connection.
type Kind uint8

// All the Kinds.
const (
	// Cluster goes to Service.Cluster.
	Cluster Kind = iota + 1
	// Local goes to Service.Local.
	Local
	// LocalOutside goes to Service.Local if it comes from outside, and to Service.Cluster if it
	// comes from Node.Pods or this host.
	LocalOutside
	// DropOutside is LocalOutside without a local endpoint: what comes from outside is not answered.
	DropOutside
	// Reject is refused: nobody listens, so the kernel answers with a reset or port unreachable.
	Reject
	// Drop is not answered.
	Drop
)

// Node is what all Services share. The zero value works.
type Node struct {
	// NodePorts are the ranges of this host's addresses that answer NodePorts; a family without
	// any answers on all, loopback too.
	NodePorts []netip.Prefix
	// Pods are where the Pods of the cluster are.
	Pods []netip.Prefix
}

// Validate reports what no Plane could serve.
func (s *Service) Validate() error {
	switch {
	case s.Name == "":
		return errors.New("relay: a Service without a name")
	case s.Affinity < 0:
		return fmt.Errorf("relay: %s: affinity of %v", s.Name, s.Affinity)
	case s.ProxyProtocol > 2:
		return fmt.Errorf("relay: %s: version %d of the PROXY protocol, want 1 or 2", s.Name, s.ProxyProtocol)
	}
	for _, f := range s.Frontends {
		switch {
		case f.Port == 0:
			return fmt.Errorf("relay: %s: a frontend with port 0", s.Name)
		case f.Kind < Cluster || f.Kind > Drop:
			return fmt.Errorf("relay: %s: frontend %v: kind %d", s.Name, f, f.Kind)
		case f.Addr.IsValid() && f.Addr.Unmap().Is4() == s.IPv6:
			return fmt.Errorf("relay: %s: frontend %v is of the other IP family", s.Name, f)
		case f.Restricted && !f.Addr.IsValid():
			return fmt.Errorf("relay: %s: a NodePort cannot be restricted", s.Name)
		}
	}
	for _, e := range slices.Concat(s.Cluster, s.Local) {
		if e.Port() == 0 || e.Addr().Unmap().Is4() == s.IPv6 {
			return fmt.Errorf("relay: %s: endpoint %v: no port, or of the other IP family", s.Name, e)
		}
	}
	return nil
}

// route is what a new connection to one frontend goes by. It is immutable.
type route struct {
	service  *Service
	frontend Frontend
	pods     []netip.Prefix
	own      []netip.Addr // addresses of this host
}

// Outcome is what becomes of a new connection, and why.
type Outcome string

// The Outcomes.
const (
	Forwarded Outcome = "forwarded"
	Refused   Outcome = "refused: no endpoint"
	NotSource Outcome = "dropped: not in the source ranges"
	NotLocal  Outcome = "dropped: no endpoint on this node, and the traffic policy is Local"
)

// decide gives the endpoints that a client may go to.
func (r *route) decide(client netip.Addr) ([]netip.AddrPort, Outcome) {
	s := r.service
	if r.frontend.Restricted && !contain(s.Sources, client) {
		return nil, NotSource
	}
	var all []netip.AddrPort
	switch r.frontend.Kind {
	case Cluster:
		all = s.Cluster
	case Local:
		all = s.Local
	case LocalOutside:
		if all = s.Local; r.inside(client) {
			all = s.Cluster
		}
	case DropOutside:
		if !r.inside(client) {
			return nil, NotLocal
		}
		all = s.Cluster
	case Drop:
		return nil, NotLocal
	}
	if len(all) == 0 {
		return nil, Refused
	}
	return all, Forwarded
}

func (r *route) inside(client netip.Addr) bool {
	return client.IsLoopback() || contain(r.pods, client) || slices.Contains(r.own, client)
}

func contain(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}
