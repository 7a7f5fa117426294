package engine

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// h2pool has the connections of a Pool whose upstream speaks HTTP/2. Requests go to the first
// that has room, so that as few as possible are used, and the others end after a while.
type h2pool struct {
	conns atomic.Pointer[[]*h2client]

	mu    sync.Mutex // for what follows, and for writing conns
	dials []*h2dial
}

// h2dial is a connection that is being made, for all who wait for it.
type h2dial struct {
	done    chan struct{}
	waiting int
	conn    *h2client
	own     bool // the one who has made it has a place
	failed  *UpstreamError
}

// h2Guess is how many requests wait for one connection: as many as most upstreams allow.
const h2Guess = 100

// call finds a connection with room for one more stream, or makes one within that time.
func (p *Pool) call(timeout time.Duration) (*h2call, bool, *UpstreamError) {
	for until := time.Now().Add(timeout); ; {
		conns := p.h2.conns.Load()
		if conns != nil {
			for _, c := range *conns {
				if ok, reused := c.reserve(); ok {
					return c.newCall(), reused, nil
				}
			}
		}
		d, mine := p.h2.join(conns)
		switch {
		case d == nil:
			continue
		case mine:
			d.run(p, time.Until(until))
		case await(d.done, time.Until(until)) != nil:
			return nil, false, &UpstreamError{Cause: CauseConnect, Unsent: true, Err: errH2Timeout}
		}
		if d.failed != nil {
			return nil, false, &UpstreamError{Cause: d.failed.Cause, Unsent: true, Err: d.failed.Err}
		}
		ok, reused := d.own, false
		if !mine {
			ok, reused = d.conn.reserve()
		}
		switch {
		case ok:
			return d.conn.newCall(), reused, nil
		case mine, time.Now().After(until):
			return nil, false, &UpstreamError{Cause: CauseConnect, Unsent: true, Err: errNoStreams}
		}
	}
}

// join waits with others for a connection, or says that one has to be made. It returns nil if
// there are others by now than those that were seen to have no room.
func (h *h2pool) join(seen *[]*h2client) (d *h2dial, mine bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conns.Load() != seen {
		return nil, false
	}
	for _, d := range h.dials {
		if d.waiting < h2Guess {
			d.waiting++
			return d, false
		}
	}
	d = &h2dial{done: make(chan struct{}), waiting: 1}
	h.dials = append(h.dials, d)
	return d, true
}

// run makes the connection.
func (d *h2dial) run(p *Pool, timeout time.Duration) {
	if d.conn, d.failed = p.dialH2(timeout); d.failed == nil {
		d.own, _ = d.conn.reserve()
	}
	h := &p.h2
	h.mu.Lock()
	if i := slices.Index(h.dials, d); i >= 0 {
		h.dials = slices.Delete(h.dials, i, i+1)
	}
	if d.failed == nil {
		d.conn.mu.Lock()
		if !d.conn.leaving {
			h.add(d.conn)
		}
		d.conn.mu.Unlock()
	}
	h.mu.Unlock()
	close(d.done)
	if p.closed.Load() && d.failed == nil { // Close may not have seen it
		d.conn.leave()
	}
}

func (h *h2pool) add(c *h2client) {
	next := []*h2client{c}
	if conns := h.conns.Load(); conns != nil {
		next = append(slices.Clone(*conns), c)
	}
	h.conns.Store(&next)
}

// drop takes a connection out, to which no more requests go.
func (h *h2pool) drop(c *h2client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := h.conns.Load()
	if conns == nil || !slices.Contains(*conns, c) {
		return
	}
	next := slices.DeleteFunc(slices.Clone(*conns), func(other *h2client) bool { return other == c })
	h.conns.Store(&next)
}

// close ends all connections once their streams have.
func (h *h2pool) close() {
	if conns := h.conns.Load(); conns != nil {
		for _, c := range *conns {
			c.leave()
		}
	}
}
