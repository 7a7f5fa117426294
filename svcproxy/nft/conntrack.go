package nft

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Connection tracking keeps sending what it has once seen to where it has once sent it. TCP ends by
// itself when an endpoint goes; a UDP client that goes on sending from one port would be sent
// to an address that is nobody's for as long as it does. So those flows are deleted, and their
// next packet finds another endpoint.
//
// A TCP client that nobody has answered yet repeats its first packet, and connection tracking sends that
// where it sent the first one: to an endpoint that is gone since, or skipped; or, if the client began
// before the Service was in the kernel, untranslated to nowhere (kubernetes/kubernetes#48719). That would be so
// until the client gives up, and for what it begins from the same port after that. Those flows are deleted as well.

// Each look is through all buckets of the kernel's table, even where there is next to nothing in it. So Services
// that come one after the other share a look: flowsPause is between two. TCP can wait for longer,
// flowsPatience: a client repeats its first packet after a second. And a look that took the CPU long is followed
// by so many times as long a pause, so that a stream of changes costs 2% of a CPU at most, and 10% if they are of UDP.
const (
	flowsPause         = 250 * time.Millisecond
	flowsPatience      = time.Second
	flowsPauseTimes    = 10
	flowsPatienceTimes = 50
)

// pauses are after a look that took so much CPU: the first in any case, the second unless there is UDP to look for.
func pauses(took time.Duration) (first, second time.Duration) {
	first = max(flowsPause, flowsPauseTimes*took)
	return first, max(flowsPatience, flowsPatienceTimes*took) - first
}

// flows deletes what connection tracking remembers of Services and what is not right any more.
type flows struct {
	tracked *tracker
	links   *netlink.Handle
	log     *zap.Logger
	// serving gives Services by name as the kernel has them; false: it is not known what that is.
	serving func(names map[string]struct{}) ([]*Service, bool)
	// poke says that there is something to look for, and urgent that it is not all TCP.
	poke, urgent chan struct{}
	// failing: the last look did; it was said.
	failing bool

	mu      sync.Mutex
	pending map[string]struct{}
	hurry   bool // some of pending are not TCP
}

func newFlows(log *zap.Logger, serving func(map[string]struct{}) ([]*Service, bool)) (*flows, error) {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	tracked, err := newTracker()
	if err != nil {
		links.Close()
		return nil, err
	}
	return &flows{
		tracked: tracked, links: links, log: log, serving: serving,
		poke: make(chan struct{}, 1), urgent: make(chan struct{}, 1), pending: map[string]struct{}{},
	}, nil
}

func (f *flows) close() {
	f.tracked.close()
	f.links.Close()
}

// note remembers a Service to which flows may lead that are wrong now, until it is in the kernel.
func (f *flows) note(old *entry, s *Service) {
	switch {
	case s == nil || s.Protocol != unix.IPPROTO_UDP && s.Protocol != unix.IPPROTO_TCP || !s.served():
		return
	case old != nil && !gained(old.service, s) && !lost(old.service, s):
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending[s.Name] = struct{}{}
	f.hurry = f.hurry || s.Protocol != unix.IPPROTO_TCP
}

// served tells whether there is an endpoint. Without one flows are better left: they may be served yet.
func (s *Service) served() bool { return len(s.Cluster)+len(s.Local) > 0 }

// gained tells whether packets may have passed untranslated that are translated now: there was no
// endpoint, or a frontend is new.
func gained(old, s *Service) bool {
	if !old.served() {
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
	for _, all := range [][]netip.AddrPort{s.Cluster, s.Local, s.Kept} {
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
	runtime.LockOSThread() // whose time is taken
	defer runtime.UnlockOSThread()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.poke:
		}
		began := threadTime()
		f.deleteStale()
		first, second := pauses(threadTime() - began)
		pause(ctx, first, nil)
		pause(ctx, second, f.urgent)
	}
}

// threadTime is how much CPU the thread has used, in the kernel, too.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
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
	names, hurry := f.pending, f.hurry
	f.pending, f.hurry = map[string]struct{}{}, false
	select {
	case <-f.urgent:
	default:
	}
	f.mu.Unlock()
	if len(names) == 0 {
		return
	}
	all, known := f.serving(names)
	if !known {
		f.again(names, hurry) // and written will say when
		return
	}
	stale, err := f.stale(all)
	if err != nil {
		f.log.Warn("addresses of this node", zap.Error(err))
		f.again(names, hurry)
		poke(f.poke)
		return
	}
	var failed error
	for _, l := range looksFor(all) {
		n, err := f.tracked.deleteIf(l, stale.match)
		failed = errors.Join(failed, err)
		if n > 0 {
			f.log.Debug("stale flows deleted", zap.Int("flows", n))
		}
	}
	if failed != nil {
		if !f.failing {
			f.log.Warn("stale flows; it is tried again", zap.Error(failed))
		}
		f.again(names, hurry)
		poke(f.poke)
	}
	f.failing = failed != nil
}

// again has the next look look for what this one could not.
func (f *flows) again(names map[string]struct{}, hurry bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.Copy(f.pending, names)
	f.hurry = f.hurry || hurry
}

// stale reads which addresses this node has.
func (f *flows) stale(all []*Service) (*staleFlows, error) {
	addrs, err := f.links.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // they have changed in between: near enough
		return nil, err
	}
	local := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			local[addr.Unmap()] = struct{}{}
		}
	}
	return newStaleFlows(all, local), nil
}
