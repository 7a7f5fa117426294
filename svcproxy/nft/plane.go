// Package nft is the data plane in the Linux kernel: Services as elements of a few nftables
// maps, behind rules that do not change with them. README.md has the picture.
package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.uber.org/zap"
)

// Config of a Plane. The zero value works.
type Config struct {
	// Log may be nil.
	Log *zap.Logger
	// Socket is for tests: it puts something between the Plane and the kernel.
	Socket func(kernel Socket) Socket
}

// Plane keeps the kernel of the network namespace that it was made in equal to what it was told.
// Its methods may be called from everywhere. What it has put into the kernel stays when the
// process ends; the next Plane takes it over.
type Plane struct {
	cfg Config
	log *zap.Logger

	mu      sync.Mutex
	conn    *conn
	monitor *monitor
	flows   *flows
	// table is the name of the live table, or "".
	table string
	// told: what is wanted is known, because there have been complete Changes.
	told    bool
	entries map[string]*entry
	node    Node
	// shared counts who wants an element.
	shared map[element]int
	shapes map[shape]struct{}
	// usedShapes is how many of them Services had when that was last looked at, and spare are those that
	// none had and that are about to be removed.
	usedShapes int
	spare      []shape
	// ids are whose they are.
	ids    map[uint32]*entry
	lastID uint32
	// unsure: what is in the kernel has to be read before it can be changed.
	unsure bool
	counts counts
	stats  Stats
	// withoutIPv6 is why IPv6 is not served, or nil; unserved are the Services that this is about.
	withoutIPv6 error
	unserved    map[string]struct{}
}

// Stats are what a Plane has done.
type Stats struct {
	// Writes are transactions; Elements those that they added or removed.
	Writes, Elements uint64
	// Failures are transactions that failed; Repairs are readings of the kernel that found
	// something to change, and Drift the elements that were changed by them.
	Failures, Repairs, Drift uint64
	// Rebuilds are new tables.
	Rebuilds uint64
	// Readings of all that the kernel has: at start, after a failed write, and when it is not known
	// what others have damaged.
	Readings uint64
}

// New opens the kernel and changes nothing. It takes CAP_NET_ADMIN.
func New(cfg Config) (*Plane, error) {
	p := &Plane{
		cfg: cfg, log: cfg.Log,
		entries: map[string]*entry{}, shared: map[element]int{}, shapes: map[shape]struct{}{}, ids: map[uint32]*entry{},
		unsure: true, unserved: map[string]struct{}{},
		counts: counts{},
	}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	var err error
	if p.conn, err = dial(); err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	if cfg.Socket != nil {
		p.conn.Socket = cfg.Socket(p.conn.Socket)
	}
	if p.monitor, err = newMonitor(); err != nil {
		p.conn.close()
		return nil, fmt.Errorf("nft: %w", err)
	}
	if p.flows, err = newFlows(p.log, p.serving); err != nil {
		p.conn.close()
		p.monitor.close()
		return nil, fmt.Errorf("nft: %w", err)
	}
	return p, nil
}

// Close leaves the kernel as it is.
func (p *Plane) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn.close()
	p.monitor.close()
	p.flows.close()
}

// Changes are what Apply makes at once.
type Changes struct {
	Put    []*Service
	Delete []string
	// Node replaces what all Services share, if it is not nil.
	Node *Node
	// Complete says that Put is all there is. The first Changes must be complete, so that what
	// another process left in the kernel is known to be wanted or not.
	Complete bool
}

// Apply makes changes live, in one transaction or, if they are many, in several, each of which
// leaves every Service whole. After an error the changes are remembered, and the next Apply or
// Repair makes them; but a Service that Validate refuses is left out, and its name stays what it
// was.
func (p *Plane) Apply(c Changes) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told && !c.Complete {
		return errors.New("nft: the first Changes must be complete")
	}
	p.told = true
	invalid := c.leaveOut()
	p.removeSpareShapes()
	ops := p.note(c)
	if p.unsure {
		return errors.Join(invalid, p.reconcile())
	}
	if err := p.writeOps(ops); err != nil {
		return errors.Join(invalid, err)
	}
	p.flows.written()
	return invalid
}

// leaveOut takes out what Validate refuses, and gives why.
func (c *Changes) leaveOut() error {
	var all []error
	put := make([]*Service, 0, len(c.Put))
	for _, s := range c.Put {
		if err := s.Validate(); err != nil {
			all = append(all, err)
			continue
		}
		put = append(put, s)
	}
	c.Put = put
	return errors.Join(all...)
}

// Repair reads the kernel and changes what is not as wanted.
func (p *Plane) Repair() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.told {
		return nil // nothing is wanted yet
	}
	p.unsure = true
	return p.reconcile()
}

// Stats gives a copy.
func (p *Plane) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// note takes what is wanted and gives the difference.
func (p *Plane) note(c Changes) (all []op) {
	if c.Complete {
		clear(p.unserved)
		put := make(map[string]struct{}, len(c.Put))
		for _, s := range c.Put {
			put[s.Name] = struct{}{}
		}
		for name := range p.entries {
			if _, ok := put[name]; !ok {
				c.Delete = append(c.Delete, name)
			}
		}
	}
	d := newDiff()
	for _, name := range c.Delete {
		d.group++
		p.replace(d, name, nil)
		delete(p.unserved, name)
	}
	for _, s := range c.Put {
		d.group++
		if p.conn.layout.serves(s.IPv6) {
			p.replace(d, s.Name, s)
			continue
		}
		if len(s.Frontends) > 0 {
			p.unserved[s.Name] = struct{}{}
		}
	}
	if c.Node != nil {
		d.group++
		d.remove(p.node.elements(p.conn.layout))
		p.node = *c.Node
		d.add(p.node.elements(p.conn.layout))
	}
	if p.unsure {
		return nil // the kernel itself will be compared
	}
	return d.ops()
}

// replace puts s in the place of the Service of that name; nil deletes it.
func (p *Plane) replace(d *diff, name string, s *Service) {
	var next *entry
	old := p.entries[name]
	p.flows.note(old, s)
	if s != nil {
		next = newEntry(s, old)
	}
	switch {
	case old == nil && next == nil:
		return
	case next == nil:
		delete(p.entries, name)
		delete(p.ids, old.id)
	default:
		p.entries[name] = next
		if next.id == 0 && !p.unsure {
			next.id = p.newID()
		}
		if next.id != 0 {
			p.ids[next.id] = next
		}
	}
	p.share(d, old, -1)
	p.share(d, next, +1)
	if p.unsure {
		return
	}
	if old != nil {
		d.remove(old.elements())
	}
	if next != nil {
		d.add(next.elements())
	}
}

// serving gives those of the named Services that have endpoints, if the kernel has them as they are wanted.
func (p *Plane) serving(names map[string]struct{}) (all []*Service, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range names {
		if e := p.entries[name]; e != nil && e.service.served() {
			all = append(all, e.service)
		}
	}
	return all, !p.unsure
}

// share counts those elements that several Services may want.
func (p *Plane) share(d *diff, e *entry, by int) {
	if e == nil {
		return
	}
	for _, h := range e.shared() {
		before := p.shared[h]
		p.shared[h] += by
		switch after := before + by; {
		case after == 0:
			delete(p.shared, h)
			d.remove([]element{h})
		case before == 0:
			d.add([]element{h})
		}
	}
}

// newID gives an id that nobody has, for Cluster; the one after it is that of Local.
func (p *Plane) newID() uint32 {
	for {
		p.lastID += 2
		if _, taken := p.ids[p.lastID]; !taken && p.lastID != 0 {
			return p.lastID
		}
	}
}

// missingShapes are those of the entries that have no chain yet.
func (p *Plane) missingShapes() []shape {
	var all []shape
	seen := map[shape]struct{}{0: {}}
	for _, e := range p.entries {
		for _, s := range e.shapes() {
			if _, ok := seen[s]; ok {
				continue
			}
			seen[s] = struct{}{}
			if _, ok := p.shapes[s]; !ok {
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	return all
}

// Run repairs what others do to the table, and deletes flows that lead to where a Service is not
// served (any more, or yet), until ctx ends.
func (p *Plane) Run(ctx context.Context) {
	var helpers sync.WaitGroup
	helpers.Go(func() { p.flows.run(ctx) })
	p.watch(ctx)
	helpers.Wait()
}

// op is one element to add or to remove. Those of one group belong together.
type op struct {
	element
	remove bool
	group  int
}

// diff collects what changes. What is removed and added again unchanged is no change.
type diff struct {
	group   int
	removed map[element]int
	added   map[element]int
}

func newDiff() *diff { return &diff{removed: map[element]int{}, added: map[element]int{}} }

func (d *diff) remove(all []element) {
	for _, e := range all {
		if _, ok := d.added[e]; ok {
			delete(d.added, e)
			continue
		}
		d.removed[e] = d.group
	}
}

func (d *diff) add(all []element) {
	for _, e := range all {
		if _, ok := d.removed[e]; ok {
			delete(d.removed, e)
			continue
		}
		d.added[e] = d.group
	}
}

// ops puts what replaces an element into one group with its removal, and sorts by group.
func (d *diff) ops() []op {
	replaced := make(map[elementKey]int, len(d.removed))
	all := make([]op, 0, len(d.added)+len(d.removed))
	for e, group := range d.added {
		all = append(all, op{element: e, group: group})
		if len(d.removed) > 0 {
			replaced[e.elementKey()] = group
		}
	}
	for e, group := range d.removed {
		if g, ok := replaced[e.elementKey()]; ok {
			group = g
		}
		all = append(all, op{element: e, remove: true, group: group})
	}
	slices.SortFunc(all, func(a, b op) int { return cmp.Compare(a.group, b.group) })
	return all
}
