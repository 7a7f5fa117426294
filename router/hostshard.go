package router

// hostShard is an open-addressed hash table with linear probing. It has a power of two of
// slots, and at least a quarter of them is empty, so that every search ends soon.
type hostShard struct {
	slots []hostSlot
	used  int
}

// hostSlot is empty if it has no host. The hash spares looking at Hosts that are only
// passed.
type hostSlot struct {
	hash uint64
	host *Host
}

// emptySlots is what a shard without hosts has, so that a search need not ask for it.
var emptySlots = make([]hostSlot, 1)

func (s *hostShard) at(i uint64) *hostSlot { return &s.slots[i&uint64(len(s.slots)-1)] }

// find returns the slot of that name, or the empty one where it would be.
func (s *hostShard) find(hash uint64, name string) *hostSlot {
	for i := hash / fanout; ; i++ {
		slot := s.at(i)
		if slot.host == nil || slot.hash == hash && slot.host.name == name {
			return slot
		}
	}
}

// put fills the slot of a host, and tells whether it was empty.
func (s *hostShard) put(slot hostSlot) (added bool) {
	place := s.find(slot.hash, slot.host.name)
	if place.host != nil {
		*place = slot
		return false
	}
	if s.used+1 > len(s.slots)*3/4 {
		s.rebuild(len(s.slots)*2, nil)
		place = s.find(slot.hash, slot.host.name)
	}
	*place = slot
	s.used++
	return true
}

// remove makes the shard anew without a host that is in it: a hole would end the searches
// of those behind it.
func (s *hostShard) remove(h *Host) {
	s.rebuild(len(s.slots), h)
	s.used--
}

func (s *hostShard) rebuild(size int, without *Host) {
	old := s.slots
	s.slots = make([]hostSlot, size)
	for _, slot := range old {
		if slot.host != nil && slot.host != without {
			*s.find(slot.hash, slot.host.name) = slot
		}
	}
}
