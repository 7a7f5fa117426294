package announce

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
)

// Handover passes on the packets of TCP connections that this node does not know, because they
// began when another node had the address. handover.Table is one.
type Handover interface {
	// Set says for each address whose connections another node may know where to pass them on to;
	// the zero Addr: to nobody. It replaces what it was told before.
	Set(next map[netip.Addr]netip.Addr) error
}

const (
	// stallFor is how long a node that is not heard is believed to serve its connections on: they need its
	// kernel alone, while this program, or all of the machine, may stand still for a moment, or be killed and
	// started. It is much longer than silence, for a reset cannot be taken back, and waiting for a dead node can.
	stallFor = 5 * time.Second
	// restartFor is the same for a node that stopped in order: this program may be just being replaced.
	restartFor = 30 * time.Second
	// lookForSilence is how often to look whether nodes are heard.
	lookForSilence = time.Second
	// handOverAgain is when to try again what a Handover could not do, if nothing moves before.
	handOverAgain = 5 * time.Second
	// handOverFor is how long addresses wait for a Handover at most: without it connections may break, but
	// without an answer there are none.
	handOverFor = 2 * time.Second
	// lookForRoutes is how often a Handover is told again what it was told: the ways to the nodes may be others.
	lookForRoutes = 5 * time.Second
	// maxWarned bounds how many different errors are reported until all is well again.
	maxWarned = 16
)

// Past says for each address that was moved, and that this node has or had, which node to ask next about
// connections that this one does not know; "" if there is none.
//
// Those that have or had an address ask each other in a ring: its holder asks the one before it, and so
// on, and the first one the holder. While an address is on its way, packets of both nodes' connections
// come to both. Between two nodes the ring is always the same.
func (f *Fence) Past(now time.Duration) map[netip.Addr]string {
	next := map[netip.Addr]string{}
	for addr, g := range f.record.grants {
		ring := g.ring()
		at := slices.Index(ring, f.self)
		if at < 0 || len(ring) == 1 {
			continue
		}
		others := slices.Concat(ring[at+1:], ring[:at])
		next[addr] = ""
		if i := slices.IndexFunc(others, func(n string) bool { return f.serves(n, now) }); i >= 0 {
			next[addr] = others[i]
		}
	}
	return next
}

// serves says whether a node can be expected to serve what it knows. To one that has just started
// nobody has spoken yet.
func (f *Fence) serves(name string, now time.Duration) bool {
	heard, long := f.started, stallFor
	if p := f.peers[name]; p != nil && p.proven {
		heard = max(heard, p.heard)
		if p.draining {
			long = restartFor
		}
	}
	return now-heard <= long && !f.gone(name)
}

// handing is what an Announcer has told its Handover.
type handing struct {
	// last is what it has; nil if that is not known. It was told at since.
	last          map[netip.Addr]netip.Addr
	looked, since time.Duration
	// stale: it is to be looked again, once it is not busy.
	stale bool
	// busy: it is being written. If there is news in that, or since, no address is answered for before all is
	// written, for handOverFor: the first packets to come are of connections that are open.
	busy, news bool
	done       chan error
	// again is when to try again after an error; warned is what errors were reported.
	again  time.Duration
	warned map[string]bool
}

// waits says whether addresses are not to be answered for yet.
func (h *handing) waits(now time.Duration) bool {
	return h.busy && h.news && now-h.since <= handOverFor
}

// handOver keeps the Handover up to date, and says whether it is, or takes too long.
func (a *Announcer) handOver(now time.Duration, moved bool) bool {
	if a.cfg.Handover == nil {
		return true
	}
	h := &a.handing
	h.stale = h.stale || moved || now-h.looked >= lookForSilence
	switch {
	case !a.fence.known || len(a.fence.nodes) == 0:
		// What a process before this one has told the Handover may be at work, and nothing better is known.
		return false
	case h.busy:
		h.news = h.news || moved
		if now-h.since > handOverFor {
			a.warnHandOver(errHandOverSlow)
		}
	case h.stale && (moved || now >= h.again):
		a.tellHandover(now)
	}
	return !h.waits(now)
}

// tellHandover tells the Handover what is new, or at times what it knows already.
func (a *Announcer) tellHandover(now time.Duration) {
	next := map[netip.Addr]netip.Addr{}
	for addr, node := range a.fence.Past(now) {
		next[addr] = a.reach(node, addr)
	}
	h := &a.handing
	h.looked, h.stale, h.news = now, false, h.last == nil || !maps.Equal(next, h.last)
	if !h.news && now-h.since < lookForRoutes {
		return
	}
	h.last, h.since, h.busy = next, now, true
	go func() { h.done <- a.cfg.Handover.Set(next) }()
}

// reach is where a node takes packets to an address.
func (a *Announcer) reach(node string, addr netip.Addr) netip.Addr {
	for _, hop := range a.nextHops[node] {
		if hop.Is4() == addr.Is4() {
			return hop
		}
	}
	return netip.Addr{}
}

// endHandOver waits for what is being written, unless that takes too long.
func (a *Announcer) endHandOver() {
	if !a.handing.busy {
		return
	}
	timer := time.NewTimer(handOverFor)
	defer timer.Stop()
	select {
	case err := <-a.handing.done:
		a.handedOver(err)
	case <-timer.C:
		a.warnHandOver(errHandOverSlow)
	}
}

// handedOver takes note that the Handover has done what it was told, or cannot.
func (a *Announcer) handedOver(err error) {
	a.handing.busy = false
	if err == nil {
		a.handing.again, a.handing.warned = 0, nil
		return
	}
	a.handing.last, a.handing.again = nil, boottime()+handOverAgain
	a.warnHandOver(err)
}

var errHandOverSlow = fmt.Errorf("announce: writing who knows them takes longer than %v", handOverFor)

// warnHandOver reports each error once, until all is well again.
func (a *Announcer) warnHandOver(err error) {
	h := &a.handing
	if h.warned[err.Error()] || len(h.warned) >= maxWarned {
		return
	}
	if h.warned == nil {
		h.warned = map[string]bool{}
	}
	h.warned[err.Error()] = true
	a.log.Warn("TCP connections that are open break when their address moves to this node", zap.Error(err))
}
