package nft

import "fmt"

// Snapshot is what the kernel of this network namespace has of ours at one moment, whoever wrote it.
type Snapshot struct {
	// Table is the name of the live table, or "".
	Table string
	// Foreign says why its rules are not those that this program makes, or is "".
	Foreign  string
	elements map[elementKey]string
}

// Damage says why this is not what a Plane makes, or is "".
func (s *Snapshot) Damage() string {
	switch {
	case s.Table == "":
		return "it has no table of Portico's: portico svcproxy has not run in this network namespace, or somebody has removed it"
	case s.Foreign != "":
		return fmt.Sprintf("the rules of table inet %s are not what they should be: %s", s.Table, s.Foreign)
	}
	return ""
}

// Look reads the kernel and changes nothing in it. It takes CAP_NET_ADMIN, and at 100,000
// elements about a second.
func Look() (*Snapshot, error) {
	c, err := dial()
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	p := &Plane{conn: c}
	defer c.close()
	s := &Snapshot{}
	var t *table
	for _, c.layout = range layouts {
		tables, err := p.listTables()
		if err != nil {
			return nil, fmt.Errorf("nft: %w", err)
		}
		if t = entered(tables); t != nil {
			break
		}
	}
	if t == nil {
		return s, nil
	}
	s.Table = t.name
	switch {
	case !t.current:
		s.Foreign = "they are of another version"
	case !t.intact():
		s.Foreign = "somebody has changed them"
	}
	if s.elements, err = p.readElements(t.name); err == nil {
		if set := catchAllIn(s.elements); set != "" && s.Foreign == "" {
			s.Foreign = "somebody has added an element for everything to " + set
		}
		err = p.addAffinities(t.name, s.elements)
	}
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	return s, nil
}

// catchAllIn names a set that has a catch-all, or is "".
func catchAllIn(all map[elementKey]string) string {
	for k := range all {
		if k.key == "" {
			return sets[k.set].name
		}
	}
	return ""
}

// entered is the table of ours that packets come to, or would if somebody had not emptied its chains.
func entered(tables []*table) (best *table) {
	for _, t := range tables {
		if t.ours && t.hooked() && (best == nil || t.live() && !best.live()) {
			best = t
		}
	}
	return best
}

// addAffinities adds what packets have written: which client had which endpoint.
func (p *Plane) addAffinities(table string, to map[elementKey]string) error {
	for _, f := range p.conn.layout.families {
		err := p.eachKernelElement(table, f.sets+affinities, func(e element, _ Counters) { to[e.elementKey()] = e.data })
		if err != nil {
			return err
		}
	}
	return nil
}
