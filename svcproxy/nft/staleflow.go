package nft

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// staleFlows knows which flows to a frontend are answered by none of its endpoints.
type staleFlows struct {
	byAddr map[flowTo]map[netip.AddrPort]struct{}
	// byPort are NodePorts, on the addresses of this node only.
	byPort map[flowToPort]map[netip.AddrPort]struct{}
	local  map[netip.Addr]struct{}
}

type flowTo struct {
	protocol uint8
	addr     netip.AddrPort
}

type flowToPort struct {
	protocol uint8
	ipv6     bool
	port     uint16
}

// newStaleFlows is for these Services, on a node that has the addresses local.
func newStaleFlows(all []*Service, local map[netip.Addr]struct{}) *staleFlows {
	s := &staleFlows{
		byAddr: map[flowTo]map[netip.AddrPort]struct{}{},
		byPort: map[flowToPort]map[netip.AddrPort]struct{}{},
		local:  local,
	}
	for _, service := range all {
		serving := servingSet(service)
		for _, fe := range service.Frontends {
			if fe.Addr.IsValid() {
				s.byAddr[flowTo{service.Protocol, netip.AddrPortFrom(fe.Addr.Unmap(), fe.Port)}] = serving
			} else {
				s.byPort[flowToPort{service.Protocol, service.IPv6, fe.Port}] = serving
			}
		}
	}
	return s
}

// match tells whether a flow is stale. Of TCP those alone are of which there is nothing but the
// client's first packet: a connection stays with its endpoint.
func (s *staleFlows) match(t *tracked) bool {
	if t.orig.protocol == unix.IPPROTO_TCP && (t.state != ctStateSYNSent || t.status&ctStatusAnswered != 0) {
		return false
	}
	serving, ours := s.of(t.orig.protocol, t.orig.to())
	_, served := serving[t.reply.from()]
	return ours && !served
}

// of gives the endpoints of the frontend at an address and port, if it is one.
func (s *staleFlows) of(protocol uint8, to netip.AddrPort) (serving map[netip.AddrPort]struct{}, ours bool) {
	if serving, ours = s.byAddr[flowTo{protocol, to}]; ours {
		return serving, true
	}
	if _, local := s.local[to.Addr()]; !local {
		return nil, false
	}
	serving, ours = s.byPort[flowToPort{protocol, to.Addr().Is6(), to.Port()}]
	return serving, ours
}
