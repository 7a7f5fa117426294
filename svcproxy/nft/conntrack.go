package nft

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Connection tracking keeps sending what it has once seen to where it has once sent it. TCP ends by
// itself when an endpoint goes; a UDP client that goes on sending from one port would be sent
// to an address that is nobody's for as long as it does. So those flows are deleted, and their
// next packet finds another endpoint.
//
// A TCP client that began before the Service was in the kernel is remembered as one whose packets
// are not translated, so that its repetitions go nowhere too, until it gives up (client-go after
// 30 s; kubernetes/kubernetes#48719). That flow is deleted as well if nobody has answered it yet.

// flowsPause is between two looks at all that connection tracking has, which on a busy node is a
// lot: Services that come one after the other share a look. Even where there is next to nothing, the kernel goes through all of
// its buckets. TCP can wait for longer, flowsPatience: a client repeats its first packet after a second; and while one change
// follows the other for up to flowsPatienceMost, which is before its third repetition.
const (
	flowsPause        = 250 * time.Millisecond
	flowsPatience     = time.Second
	flowsPatienceMost = 4 * time.Second
)

// flows deletes what connection tracking remembers of Services and what is not right any more.
type flows struct {
	handle *netlink.Handle
	log    *zap.Logger
	// poke says that there is something to look for, and urgent that it is not all TCP.
	poke, urgent chan struct{}

	mu      sync.Mutex
	pending map[string]*Service
	hurry   bool // some of pending are not TCP
}

func newFlows(log *zap.Logger) (*flows, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &flows{handle: h, log: log, poke: make(chan struct{}, 1), urgent: make(chan struct{}, 1), pending: map[string]*Service{}}, nil
}

// note remembers a Service to which flows may lead that are wrong now, until it is in the kernel.
func (f *flows) note(old *entry, s *Service) {
	if s == nil || len(s.Cluster)+len(s.Local) == 0 {
		return // without an endpoint flows are better left: they may be served yet
	}
	switch {
	case s.Protocol != unix.IPPROTO_UDP && s.Protocol != unix.IPPROTO_TCP:
		return
	case old == nil || gained(old.service, s):
	case s.Protocol == unix.IPPROTO_TCP || !lost(old.service, s):
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending[s.Name] = s
	f.hurry = f.hurry || s.Protocol != unix.IPPROTO_TCP
}

// gained tells whether packets may have passed untranslated that are translated now: there was no
// endpoint, or a frontend is new.
func gained(old, s *Service) bool {
	if len(old.Cluster)+len(old.Local) == 0 {
		return true
	}
	return slices.ContainsFunc(s.Frontends, func(fe Frontend) bool {
		return !slices.ContainsFunc(old.Frontends, func(was Frontend) bool { return was.Addr == fe.Addr && was.Port == fe.Port })
	})
}

// lost tells whether an endpoint is gone.
func lost(old, s *Service) bool {
	serving := servingSet(s)
	for e := range servingSet(old) {
		if _, ok := serving[e]; !ok {
			return true
		}
	}
	return false
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
	f.mu.Lock()
	hurry := f.hurry
	f.mu.Unlock()
	if hurry {
		poke(f.urgent)
	}
	poke(f.poke)
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one poke already waits
	}
}

// run deletes what is stale when it is poked, until ctx ends.
func (f *flows) run(ctx context.Context) {
	for patience := flowsPatience; ; {
		select {
		case <-f.poke: // already
			patience = min(2*patience, flowsPatienceMost)
		default:
			patience = flowsPatience
			select {
			case <-ctx.Done():
				return
			case <-f.poke:
			}
		}
		f.deleteStale()
		pause(ctx, flowsPause, nil)
		pause(ctx, patience-flowsPause, f.urgent)
		if ctx.Err() != nil {
			return
		}
	}
}

// pause ends early when it is poked.
func pause(ctx context.Context, d time.Duration, poked <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-poked:
	case <-timer.C:
	}
}

// deleteStale deletes what is stale of the Services that were noted.
func (f *flows) deleteStale() {
	f.mu.Lock()
	all, hurry := f.pending, f.hurry
	f.pending, f.hurry = map[string]*Service{}, false
	select {
	case <-f.urgent:
	default:
	}
	f.mu.Unlock()
	if len(all) == 0 {
		return
	}
	stale, err := f.filter(all)
	if err != nil {
		f.log.Warn("addresses of this node", zap.Error(err))
		f.again(all, hurry)
		return
	}
	for _, family := range familiesOf(all) {
		n, err := f.handle.ConntrackDeleteFilters(netlink.ConntrackTable, family, stale)
		if err != nil {
			f.log.Warn("stale flows", zap.Error(err))
		}
		if n > 0 {
			f.log.Debug("stale flows deleted", zap.Uint("flows", n))
		}
	}
}

// again has the next look, after a pause, look for what this one could not. What was noted since is newer.
func (f *flows) again(all map[string]*Service, hurry bool) {
	f.mu.Lock()
	maps.Copy(all, f.pending)
	f.pending, f.hurry = all, f.hurry || hurry
	f.mu.Unlock()
	poke(f.poke)
}

// familiesOf saves looks: each is through all buckets of the kernel's table, however empty.
func familiesOf(all map[string]*Service) (families []netlink.InetFamily) {
	for _, service := range all {
		family := netlink.InetFamily(unix.AF_INET)
		if service.IPv6 {
			family = unix.AF_INET6
		}
		if !slices.Contains(families, family) {
			families = append(families, family)
		}
	}
	return families
}

// staleFlows matches flows to a frontend that are answered by none of its endpoints.
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

func (f *flows) filter(all map[string]*Service) (*staleFlows, error) {
	s := &staleFlows{
		byAddr: map[flowTo]map[netip.AddrPort]struct{}{},
		byPort: map[flowToPort]map[netip.AddrPort]struct{}{},
		local:  map[netip.Addr]struct{}{},
	}
	addrs, err := f.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // they have changed in between: near enough
		return nil, err
	}
	for _, a := range addrs {
		s.local[addrOf(a.IP)] = struct{}{}
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
	return s, nil
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s *staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to := netip.AddrPortFrom(addrOf(flow.Forward.DstIP), flow.Forward.DstPort)
	serving, ours := s.byAddr[flowTo{flow.Forward.Protocol, to}]
	if !ours {
		if _, local := s.local[to.Addr()]; !local {
			return false
		}
		if serving, ours = s.byPort[flowToPort{flow.Forward.Protocol, to.Addr().Is6(), to.Port()}]; !ours {
			return false
		}
	}
	from := netip.AddrPortFrom(addrOf(flow.Reverse.SrcIP), flow.Reverse.SrcPort)
	if flow.Forward.Protocol == unix.IPPROTO_TCP {
		return from == to && unanswered(flow)
	}
	_, served := serving[from]
	return !served
}

// unanswered tells whether all of a TCP connection is the client's first packet.
func unanswered(flow *netlink.ConntrackFlow) bool {
	tcp, ok := flow.ProtoInfo.(*netlink.ProtoInfoTCP)
	return ok && tcp.State == nl.TCP_CONNTRACK_SYN_SENT
}
