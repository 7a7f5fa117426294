package announce

import (
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
	// restartFor is how long a node that stopped in order is believed to serve its connections
	// on: what is in its kernel works without this program, which may be just being replaced.
	restartFor = 30 * time.Second
	// lookForSilence is how often to look whether nodes are heard.
	lookForSilence = time.Second
	// handOverAgain is when to try again what a Handover could not do, if nothing moves before.
	handOverAgain = 5 * time.Second
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
		ring := append([]string{g.holder}, g.past...)
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
	p := f.peers[name]
	return !f.gone(name) && (now-f.started < grace || f.alive(name, now) || p != nil && p.draining && now-p.heard <= restartFor)
}

// handing is what an Announcer has told its Handover.
type handing struct {
	// last is what it has; nil if that is not known.
	last   map[netip.Addr]netip.Addr
	looked time.Duration
	// stale: it is to be looked again, once it is not busy.
	stale bool
	// busy: it is being written. No address is answered for before that is done: the first packets
	// to come are of connections that are open.
	busy bool
	done chan error
	// again is when to try again after an error; warned is what errors were reported.
	again  time.Duration
	warned map[string]bool
}

// handOver keeps the Handover up to date, and says whether it is.
func (a *Announcer) handOver(now time.Duration, moved bool) bool {
	if a.cfg.Handover == nil {
		return true
	}
	a.handing.stale = a.handing.stale || moved || now-a.handing.looked >= lookForSilence
	if !a.fence.known || len(a.fence.nodes) == 0 {
		// What a process before this one has told the Handover may be at work, and nothing better is known.
		return false
	}
	if a.handing.busy || !a.handing.stale {
		return !a.handing.busy
	}
	if now < a.handing.again && !moved {
		return true
	}
	next := map[netip.Addr]netip.Addr{}
	for addr, node := range a.fence.Past(now) {
		next[addr] = a.reach(node, addr)
	}
	a.handing.looked, a.handing.stale = now, false
	if a.handing.last != nil && maps.Equal(next, a.handing.last) {
		return true
	}
	a.handing.last, a.handing.busy = next, true
	go func() { a.handing.done <- a.cfg.Handover.Set(next) }()
	return false
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

// endHandOver waits for what is being written.
func (a *Announcer) endHandOver() {
	if a.handing.busy {
		a.handedOver(<-a.handing.done)
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
	if !a.handing.warned[err.Error()] && len(a.handing.warned) < maxWarned {
		if a.handing.warned == nil {
			a.handing.warned = map[string]bool{}
		}
		a.handing.warned[err.Error()] = true
		a.log.Warn("TCP connections that are open break when their address moves to this node", zap.Error(err))
	}
}
