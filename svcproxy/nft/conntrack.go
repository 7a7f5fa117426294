package nft

import (
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Connection tracking keeps sending what it has once seen to where it has once sent it. TCP ends by
// itself when an endpoint goes; a UDP client that goes on sending from one port would be sent
// to an address that is nobody's for as long as it does. So those flows are deleted, and their
// next packet finds another endpoint.

// flows deletes UDP flows that lead to endpoints which a Service does not have any more.
type flows struct {
	handle *netlink.Handle
	log    *zap.Logger
	poke   chan struct{}

	mu      sync.Mutex
	pending map[string]*Service
}

func newFlows(log *zap.Logger) (*flows, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &flows{handle: h, log: log, poke: make(chan struct{}, 1), pending: map[string]*Service{}}, nil
}

// note remembers a Service whose endpoints have changed, until they have changed in the kernel.
func (f *flows) note(old *entry, s *Service) {
	if s == nil || s.Protocol != unix.IPPROTO_UDP || len(s.Cluster)+len(s.Local) == 0 {
		return // without an endpoint flows are better left: they may be served yet
	}
	if old != nil && !moved(old.service, s) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending[s.Name] = s
}

// moved tells whether a flow that was right may be wrong now: an endpoint is gone, or there was none.
func moved(old, s *Service) bool {
	serving := servingSet(s)
	was := servingSet(old)
	for e := range was {
		if _, ok := serving[e]; !ok {
			return true
		}
	}
	return len(was) == 0
}

func servingSet(s *Service) map[netip.AddrPort]struct{} {
	set := make(map[netip.AddrPort]struct{}, len(s.Cluster))
	for _, all := range [][]netip.AddrPort{s.Cluster, s.Local} {
		for _, e := range all {
			set[e] = struct{}{}
		}
	}
	return set
}

// written says that the kernel has what was noted.
func (f *flows) written() {
	select {
	case f.poke <- struct{}{}:
	default: // one poke already waits
	}
}

// deleteStale deletes what is stale of the Services that were noted.
func (f *flows) deleteStale() {
	f.mu.Lock()
	all := f.pending
	f.pending = map[string]*Service{}
	f.mu.Unlock()
	if len(all) == 0 {
		return
	}
	stale, err := f.filter(all)
	if err != nil {
		f.log.Warn("addresses of this node", zap.Error(err))
		return
	}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		n, err := f.handle.ConntrackDeleteFilters(netlink.ConntrackTable, family, stale)
		if err != nil {
			f.log.Warn("stale UDP flows", zap.Error(err))
		}
		if n > 0 {
			f.log.Debug("stale UDP flows deleted", zap.Uint("flows", n))
		}
	}
}

// staleFlows matches flows to a frontend that are answered by none of its endpoints.
type staleFlows struct {
	byAddr map[netip.AddrPort]map[netip.AddrPort]struct{}
	// byPort are NodePorts, on the addresses of this node only.
	byPort map[bool]map[uint16]map[netip.AddrPort]struct{}
	local  map[netip.Addr]struct{}
}

func (f *flows) filter(all map[string]*Service) (*staleFlows, error) {
	s := &staleFlows{
		byAddr: map[netip.AddrPort]map[netip.AddrPort]struct{}{},
		byPort: map[bool]map[uint16]map[netip.AddrPort]struct{}{false: {}, true: {}},
		local:  map[netip.Addr]struct{}{},
	}
	addrs, err := f.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		s.local[addrOf(a.IP)] = struct{}{}
	}
	for _, service := range all {
		serving := servingSet(service)
		for _, fe := range service.Frontends {
			if fe.Addr.IsValid() {
				s.byAddr[netip.AddrPortFrom(fe.Addr.Unmap(), fe.Port)] = serving
			} else {
				s.byPort[service.IPv6][fe.Port] = serving
			}
		}
	}
	return s, nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s *staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to := addrOf(flow.Forward.DstIP)
	serving, ours := s.byAddr[netip.AddrPortFrom(to, flow.Forward.DstPort)]
	if !ours {
		if _, local := s.local[to]; !local {
			return false
		}
		if serving, ours = s.byPort[to.Is6()][flow.Forward.DstPort]; !ours {
			return false
		}
	}
	_, served := serving[netip.AddrPortFrom(addrOf(flow.Reverse.SrcIP), flow.Reverse.SrcPort)]
	return !served
}
