package nft

import (
	"slices"

	"golang.org/x/sys/unix"
)

// damage is what others have done to tables of ours, as the kernel told it. The zero value is none.
type damage struct {
	// unknown: all has to be read to know.
	unknown bool
	// tables are those that it is about.
	tables map[string]struct{}
	// rules: chains or rules have changed.
	rules bool
	// elements are those of our sets that somebody added or deleted, by their keys.
	elements map[setID]map[string]touched
	// touched is how many they are.
	touched int
	// ranges are the sets of ranges in which somebody did.
	ranges map[setID]struct{}
}

// touched is what the last that was heard of an element left of it.
type touched struct {
	there bool
	data  string
	// lost is what its counter had seen when it was deleted.
	lost uint64
}

// maxTouched bounds what is remembered of others' doings; above it all is read.
const maxTouched = 1 << 20

// setIDs are the sets by name.
var setIDs = func() map[string]setID {
	ids := map[string]setID{}
	for i, s := range sets {
		ids[s.name] = setID(i)
	}
	return ids
}()

// hear takes one message that somebody else has caused, and tells whether it is about us.
func (d *damage) hear(m message) bool {
	typ, ok := m.nftType()
	if !ok || typ == unix.NFT_MSG_NEWGEN || typ == unix.NFT_MSG_TRACE {
		return false
	}
	table, set := namesIn(m)
	if !slices.Contains(tableNames[:], table) {
		return false
	}
	if d.tables == nil {
		d.tables, d.elements, d.ranges = map[string]struct{}{}, map[setID]map[string]touched{}, map[setID]struct{}{}
	}
	d.tables[table] = struct{}{}
	switch typ {
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		d.rules = true
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		id, ours := setIDs[set]
		if !ours {
			return false // somebody has made one for himself
		}
		return d.hearElements(id, m, typ == unix.NFT_MSG_NEWSETELEM)
	default:
		d.unknown = true
	}
	return true
}

// namesIn are the first two attributes of a message: the table, and of elements the set.
func namesIn(m message) (table, set string) {
	for typ, v := range attrs(m.body[genHead:]) {
		switch typ {
		case 1: // the table comes first everywhere
			table = attrText(v)
		case unix.NFTA_SET_ELEM_LIST_SET:
			set = attrText(v)
			return table, set
		}
	}
	return table, set
}

// hearElements tells whether there are any that somebody else should not touch: in sets that packets
// write to that is the catch-all alone.
func (d *damage) hearElements(id setID, m message, there bool) bool {
	if sets[id].flags&unix.NFT_SET_INTERVAL != 0 {
		d.ranges[id] = struct{}{}
		return true
	}
	keys := d.elements[id]
	if keys == nil {
		keys = map[string]touched{}
		d.elements[id] = keys
	}
	before := len(keys)
	eachElementOf(id, m, func(e element, c Counters) {
		if !sets[id].mirrored && !e.catchAll() {
			return
		}
		t := touched{there: there, data: e.data}
		if counted(id) {
			t.lost = keys[e.key].lost
			if !there {
				t.lost += c.Connections
			}
		}
		keys[e.key] = t
	})
	d.touched += len(keys) - before
	if d.unknown = d.unknown || d.touched > maxTouched; d.unknown {
		clear(d.elements) // nobody will ask
	}
	return len(keys) > 0
}

// onlyOf tells whether it is known what was damaged, and nothing but this table was.
func (d *damage) onlyOf(table string) bool {
	_, about := d.tables[table]
	return !d.unknown && about && len(d.tables) == 1
}
