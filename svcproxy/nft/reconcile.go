package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// tableNames are the two names that a table of ours can have: a new one is filled beside the
// live one, and takes over.
var tableNames = [2]string{"portico-a", "portico-b"}

// tableComment begins the comment of our tables; the fingerprint follows.
const tableComment = "Portico, ruleset "

// reconcile reads the kernel and makes it what is wanted, whatever it was.
func (p *Plane) reconcile() error {
	if err := p.compare(); err != nil {
		p.unsure = true
		return err
	}
	p.flows.written()
	return nil
}

func (p *Plane) compare() error {
	p.stats.Readings++
	tables, err := p.readTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if !t.ours || !t.intact() {
			continue
		}
		if err := p.adopt(t); err != nil {
			return err
		}
		return p.removeTables(tables)
	}
	return p.rebuild(tables)
}

// adopt changes a live table by what differs.
func (p *Plane) adopt(t *table) error {
	p.table, p.shapes = t.name, t.shapes
	have, err := p.readElements(t.name)
	if err != nil {
		return err
	}
	p.adoptPlaces(have)
	known := len(have)
	ops := p.difference(maps.Clone(have))
	if len(ops) > 0 {
		// The kernel's list of a map that is just growing may leave out some of what is there.
		again, err := p.readElements(t.name)
		if err != nil {
			return err
		}
		maps.Copy(again, have)
		ops = p.difference(again)
	}
	if len(ops) > 0 {
		p.stats.Repairs++
		p.stats.Drift += uint64(len(ops))
		p.log.Info("nftables table adopted", zap.String("table", t.name), zap.Int("elements", known), zap.Int("changes", len(ops)))
	}
	if err := p.writeOps(ops); err != nil {
		return err
	}
	p.unsure = false
	return nil
}

// difference is what has to be changed of what the kernel has. It empties have.
func (p *Plane) difference(have map[elementKey]string) []op {
	d := newDiff()
	p.eachElement(func(group int, all []element) {
		d.group = group
		for _, e := range all {
			key := e.elementKey()
			if data, ok := have[key]; !ok || data != e.data {
				d.add([]element{e})
				continue
			}
			delete(have, key)
		}
	})
	d.group++
	for k, data := range have {
		d.remove([]element{k.element(data)})
	}
	return d.ops()
}

// eachElement gives all elements that are wanted, Service by Service.
func (p *Plane) eachElement(each func(group int, all []element)) {
	each(0, p.conn.layout.staticElements())
	for s := range p.shapes {
		each(0, p.conn.layout.pickElements(s))
	}
	each(0, p.node.elements(p.conn.layout))
	group := 0
	for _, name := range slices.Sorted(maps.Keys(p.entries)) {
		group++
		each(group, p.entries[name].elements())
	}
	each(group+1, slices.Collect(maps.Keys(p.shared)))
}

// adoptPlaces gives Services that have no id the one that the kernel has for a frontend of
// theirs, and endpoints their places.
func (p *Plane) adoptPlaces(have map[elementKey]string) {
	for k, data := range have {
		if k.set%ipv6 == backends || k.set%ipv6 == nodePortBackends {
			p.lastID = max(p.lastID, parseNumberData(data)&idMask)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.entries)) {
		e := p.entries[name]
		if e.id != 0 {
			continue
		}
		if e.id = p.adoptedID(e, have); e.id == 0 {
			e.id = p.newID()
		} else {
			e.adopt(have)
		}
		p.ids[e.id] = e
	}
}

func (p *Plane) adoptedID(e *entry, have map[elementKey]string) uint32 {
	for _, f := range e.service.Frontends {
		translate := e.frontendElements(f)[1]
		data, ok := have[translate.elementKey()]
		if !ok {
			continue
		}
		id := parseNumberData(data) & idMask
		if _, taken := p.ids[id]; !taken && id != 0 {
			return id
		}
	}
	return 0
}

// adopt gives endpoints the places and numbers that the kernel has.
func (e *entry) adopt(have map[elementKey]string) {
	old := map[netip.AddrPort]uint32{}
	places := func(id uint32) (all []netip.AddrPort) {
		first := e.family().sets
		for i := uint32(0); ; i++ {
			slot := numbersKey(id, i)
			data, ok := have[elementKey{set: first + endpoints, key: slot}]
			if number, numbered := have[elementKey{set: first + slots, key: slot}]; numbered {
				n := parseNumberData(number)
				data, ok = have[elementKey{set: first + members, key: numbersKey(id, n)}]
				if a, known := parseAddrPort(data); known {
					old[a] = n
				}
			}
			if !ok {
				return all
			}
			a, _ := parseAddrPort(data)
			all = append(all, a)
		}
	}
	cluster, local := places(e.id), places(e.id|localBit)
	e.settle(cluster, local, old)
}

// rebuild fills a new table, chunk by chunk, makes it live, and only then removes all others of ours:
// at every moment at least one of them serves, and that both do for a moment changes nothing.
//
// One transaction is not enough to change places. A packet that comes to the base chains of both
// tables, one after the other, would find neither full if the transaction comes between. And
// the rules of chains that are deleted are still walked for some milliseconds, while what is in the
// maps is gone.
func (p *Plane) rebuild(tables []*table) error {
	name, err := freeName(tables)
	if err != nil {
		return err
	}
	p.stats.Rebuilds++
	counted := p.countsOf(tables)
	p.shapes = map[shape]struct{}{}
	p.adoptPlaces(nil)
	// Where nobody serves, some Services are better than none.
	early := !slices.ContainsFunc(tables, (*table).live)
	if err := p.fill(name, early); err != nil {
		return err
	}
	p.table, p.unsure = name, false
	p.counts.add(counted) // not before: if it fails it is tried again, and the counters are read again
	p.log.Info("nftables table made", zap.String("table", name), zap.Int("services", len(p.entries)))
	return p.removeTables(tables)
}

// fill makes a table and at the end, or early, lets packets in.
func (p *Plane) fill(name string, early bool) error {
	b := newBatch(p.conn, name)
	b.addTable(tableComment + p.conn.layout.fingerprint)
	for _, s := range p.conn.layout.sets() {
		b.addSet(s)
	}
	b.addChains(p.conn.layout.plainChains())
	for _, s := range p.missingShapes() {
		b.addShapeChains(s)
		p.shapes[s] = struct{}{}
	}
	if early {
		b.addChains(p.conn.layout.baseChains())
	}
	n, size := 0, firstTransaction
	var failed error
	p.eachElement(func(_ int, all []element) {
		for _, e := range all {
			b.addElement(e)
		}
		p.stats.Elements += uint64(len(all))
		if n += len(all); n > size && failed == nil {
			failed = p.write(b)
			b, n, size = newBatch(p.conn, name), 0, min(2*size, maxTransaction)
		}
	})
	if failed != nil {
		return failed
	}
	if err := p.write(b); err != nil || early {
		return err
	}
	b = newBatch(p.conn, name)
	b.addChains(p.conn.layout.baseChains())
	return p.write(b)
}

// freeName is a name for a new table that nobody has. An unfinished table of ours is in the way
// only if the other name is taken, too.
func freeName(tables []*table) (string, error) {
	for _, name := range tableNames {
		if !slices.ContainsFunc(tables, func(t *table) bool { return t.name == name }) {
			return name, nil
		}
	}
	return "", errNoName
}

// errNoName: both names are taken.
var errNoName = fmt.Errorf("nft: tables inet %s and inet %s both exist; delete the one that Portico did not make", tableNames[0], tableNames[1])

// removeTables removes our tables that are not live: what a new table has replaced, or a process
// that ended early has left.
func (p *Plane) removeTables(tables []*table) error {
	var others []*table
	for _, t := range tables {
		if t.ours && t.name != p.table {
			others = append(others, t)
		}
	}
	return p.remove(others...)
}

// remove takes the rules out of base chains before it removes tables.
func (p *Plane) remove(tables ...*table) error {
	empty := newBatch(p.conn, p.table)
	gone := newBatch(p.conn, p.table)
	for _, t := range tables {
		for name, c := range t.chains {
			if c.hooked && len(c.rules) > 0 {
				empty.flushChainOf(t.name, name)
			}
		}
		gone.deleteTable(t.name)
	}
	if err := p.write(empty); err != nil {
		return err
	}
	return p.write(gone)
}

// Cleanup removes all that any Plane has put into the kernel, and nothing else.
func (p *Plane) Cleanup() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table, p.unsure, p.told = "", true, false
	p.entries, p.shared, p.ids = map[string]*entry{}, map[element]int{}, map[uint32]*entry{}
	mine := p.conn.layout
	defer func() { p.conn.layout = mine }()
	for _, p.conn.layout = range layouts {
		tables, err := p.listTables()
		if err != nil {
			return err
		}
		if err := p.removeTables(tables); err != nil {
			return err
		}
	}
	return nil
}

// table is what the kernel tells of one of the tables that have a name of ours.
type table struct {
	name    string
	layout  *layout
	ours    bool
	current bool // has our fingerprint
	flags   uint32
	// handle is higher the later the table was made.
	handle uint64
	chains map[string]*liveChain
	shapes map[shape]struct{}
}

// liveChain is what the kernel tells of a chain.
type liveChain struct {
	hooked bool
	// accepts what no rule decides.
	accepts bool
	// rules are their comments.
	rules []string
}

// hooked tells whether packets come to the table.
func (t *table) hooked() bool {
	for _, c := range t.chains {
		if c.hooked {
			return true
		}
	}
	return false
}

// live tells whether packets come to the table's rules.
func (t *table) live() bool {
	for _, c := range t.chains {
		if c.hooked && len(c.rules) > 0 {
			return true
		}
	}
	return false
}

// readTables reads the tables that have a name of ours, and the rules in them.
func (p *Plane) readTables() ([]*table, error) {
	all, err := p.listTables()
	if err != nil {
		return nil, err
	}
	return all, p.clearUnfinished(&all)
}

// listTables is readTables without any change to the kernel.
func (p *Plane) listTables() ([]*table, error) {
	var all []*table
	err := p.dump(unix.NFT_MSG_GETTABLE, "", "", func(m message) {
		t := parseTable(m.body[genHead:], p.conn.layout)
		if slices.Contains(tableNames[:], t.name) && m.body[0] == p.conn.layout.protocol {
			all = append(all, t)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if err := p.readStructure(t); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// clearUnfinished removes one of two tables of ours if no name is free for a new one: one that is not
// live, or the older one if both are.
func (p *Plane) clearUnfinished(all *[]*table) error {
	if len(*all) < len(tableNames) {
		return nil
	}
	best := -1
	for i, t := range *all {
		switch {
		case !t.ours || t.intact():
		case best < 0, !t.live() && (*all)[best].live(), t.live() == (*all)[best].live() && t.handle < (*all)[best].handle:
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	t := (*all)[best]
	*all = slices.Delete(*all, best, best+1)
	return p.remove(t)
}

func parseTable(v []byte, l *layout) *table {
	t := &table{layout: l, chains: map[string]*liveChain{}, shapes: map[shape]struct{}{}}
	for typ, v := range attrs(v) {
		switch typ {
		case unix.NFTA_TABLE_NAME:
			t.name = attrText(v)
		case unix.NFTA_TABLE_FLAGS:
			t.flags = attrUint32(v)
		case nftaTableHandle:
			t.handle = attrUint64(v)
		case nftaTableUserdata:
			version, ours := strings.CutPrefix(commentOf(v), tableComment)
			t.ours, t.current = ours, version == l.fingerprint
		}
	}
	return t
}

func (p *Plane) readStructure(t *table) error {
	err := p.dump(unix.NFT_MSG_GETCHAIN, t.name, "", func(m message) {
		var table, name string
		c := &liveChain{accepts: true}
		for typ, v := range attrs(m.body[genHead:]) {
			switch typ {
			case unix.NFTA_CHAIN_TABLE:
				table = attrText(v)
			case unix.NFTA_CHAIN_NAME:
				name = attrText(v)
			case unix.NFTA_CHAIN_HOOK:
				c.hooked = true
			case unix.NFTA_CHAIN_POLICY:
				c.accepts = attrUint32(v) == nfAccept
			}
		}
		if table == t.name {
			t.chains[name] = c
		}
	})
	if err != nil {
		return err
	}
	err = p.dump(unix.NFT_MSG_GETRULE, t.name, "", func(m message) {
		var table, chain, comment string
		for typ, v := range attrs(m.body[genHead:]) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				table = attrText(v)
			case unix.NFTA_RULE_CHAIN:
				chain = attrText(v)
			case unix.NFTA_RULE_USERDATA:
				comment = commentOf(v)
			}
		}
		if c := t.chains[chain]; table == t.name && c != nil {
			c.rules = append(c.rules, comment)
		}
	})
	if err != nil {
		return err
	}
	return p.readShapes(t)
}

// readShapes finds the shapes of a table by the map that leads to their chains.
func (p *Plane) readShapes(t *table) error {
	if !t.current {
		return nil
	}
	return p.eachKernelElement(t.name, pickCluster, func(e element, _ Counters) {
		if e.catchAll() {
			return
		}
		t.shapes[shape(native.Uint32([]byte(e.key)))] = struct{}{}
	})
}

// intact tells whether all rules are there, in order, and no others.
func (t *table) intact() bool {
	if !t.current || t.flags != 0 {
		return false
	}
	want := t.layout.wantedChains(t.shapes)
	for _, c := range want {
		have, ok := t.chains[c.name]
		if !ok || have.hooked != (c.hook != nil) || !have.accepts || !slices.Equal(c.comments(), have.rules) {
			return false
		}
	}
	return len(want) == len(t.chains)
}

// readElements reads all elements that this package writes, and what nobody should have written into
// the sets that packets write to.
func (p *Plane) readElements(table string) (map[elementKey]string, error) {
	have := make(map[elementKey]string)
	for i, s := range p.conn.layout.sets() {
		note := func(e element, _ Counters) { have[e.elementKey()] = e.data }
		if !s.mirrored {
			_ = p.ask(table, element{set: setID(i)}, note) // an error says that there is none
			continue
		}
		if err := p.eachKernelElement(table, setID(i), note); err != nil {
			return nil, err
		}
	}
	return have, nil
}

// eachKernelElement reads the elements of one set. One that no element of ours looks like is
// none of ours, and cannot be in a set that only we write to.
func (p *Plane) eachKernelElement(table string, id setID, each func(element, Counters)) error {
	return p.dump(unix.NFT_MSG_GETSETELEM, table, sets[id].name, func(m message) { eachElementOf(id, m, each) })
}

// dumpAttempts is how often a list is asked for while others keep changing what is listed.
const dumpAttempts = 20

// dump asks for a list: of tables, or of what a table or a set has. The kernel cuts a list short
// when the ruleset changes meanwhile, or has no memory for all of it; it is then asked for again.
func (p *Plane) dump(typ uint16, table, set string, each func(message)) error {
	var all []message
	for attempt := 0; ; attempt++ {
		all = all[:0]
		request, seq := p.dumpRequest(typ, table, set)
		err := p.conn.dump(request, seq, func(m message) {
			if _, ok := m.nftType(); ok {
				m.body = slices.Clone(m.body)
				all = append(all, m)
			}
		})
		if cut := errors.Is(err, errInterrupted) || errors.Is(err, errNoAnswer) || errors.Is(err, unix.ENOBUFS); cut && attempt < dumpAttempts {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	for _, m := range all {
		each(m)
	}
	return nil
}

func (p *Plane) dumpRequest(typ uint16, table, set string) (request []byte, seq uint32) {
	b := &batch{conn: p.conn}
	b.beginNFT(typ, unix.NLM_F_DUMP)
	seq = b.conn.seq
	if table != "" {
		b.buf = appendAttrName(b.buf, 1, table) // the table comes first everywhere
	}
	if set != "" {
		b.buf = appendAttrName(b.buf, unix.NFTA_SET_ELEM_LIST_SET, set)
	}
	b.end()
	return b.buf, seq
}
