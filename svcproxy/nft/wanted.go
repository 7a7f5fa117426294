package nft

import "net/netip"

// wanted finds what an element should be by its key alone, without looking at all that there are.
type wanted struct {
	plane *Plane
	// frontends are the Services of those frontends that somebody will ask for.
	frontends map[frontendID]*entry
	// members are the endpoints of each id that was asked for, by their number.
	members map[uint32]map[uint32]netip.AddrPort
}

// frontendID is the key of a frontend in the maps of one IP family.
type frontendID struct {
	ipv6 bool
	key  string
}

// wanted is for those keys.
func (p *Plane) wanted(keys map[setID]map[string]touched) *wanted {
	w := &wanted{plane: p, frontends: map[frontendID]*entry{}, members: map[uint32]map[uint32]netip.AddrPort{}}
	for id, all := range keys {
		switch id % ipv6 {
		case services, nodePorts, backends, nodePortBackends:
			for key := range all {
				w.frontends[frontendID{id >= ipv6, key}] = nil
			}
		}
	}
	if len(w.frontends) == 0 {
		return w
	}
	for _, e := range p.entries {
		for _, f := range e.service.Frontends {
			id := frontendID{e.service.IPv6, string(frontendKey(f.Addr, e.service.Protocol, f.Port))}
			if _, asked := w.frontends[id]; asked {
				w.frontends[id] = e
			}
		}
	}
	return w
}

// staticData are staticElements by their key.
var staticData = func() map[elementKey]string {
	all := map[elementKey]string{}
	for _, e := range dual.staticElements() {
		all[e.elementKey()] = e.data
	}
	return all
}()

// data is what the element of that key gives. ok is false if there should be none.
func (w *wanted) data(id setID, key string) (data string, ok bool) {
	if key == "" {
		return "", false
	}
	switch id % ipv6 {
	case decisions, translations:
		data, ok = staticData[elementKey{set: id, key: key}]
		return data, ok
	case pickCluster, pickLocal:
		return w.pick(id, key)
	case hairpins, clusterIPs, elsewhere:
		return "", w.plane.shared[element{set: id, key: key}] > 0
	case services, nodePorts, backends, nodePortBackends:
		return w.frontend(id, key)
	case shapes:
		all, e := w.endpoints(id, key)
		if len(all) == 0 {
			return "", false
		}
		return numberData(uint32(newShape(len(all), e.service.Affinity))), true
	case endpoints, slots, members:
		return w.endpoint(id, key)
	}
	return "", false
}

func (w *wanted) pick(id setID, key string) (data string, ok bool) {
	s := shape(native.Uint32([]byte(key)))
	if _, ok := w.plane.shapes[s]; !ok {
		return "", false
	}
	for _, e := range families[id/ipv6].pickElements(s) {
		if e.set == id {
			return e.data, true
		}
	}
	return "", false
}

func (w *wanted) frontend(id setID, key string) (data string, ok bool) {
	e := w.frontends[frontendID{id >= ipv6, key}]
	if e == nil {
		return "", false
	}
	for _, f := range e.service.Frontends {
		for _, made := range e.frontendElements(f) {
			if made.set == id && made.key == key {
				return made.data, true
			}
		}
	}
	return "", false
}

// endpoints are those that a key that begins with an id is about.
func (w *wanted) endpoints(id setID, key string) ([]netip.AddrPort, *entry) {
	n := native.Uint32([]byte(key))
	e := w.plane.ids[n&^localBit]
	switch {
	case e == nil || e.service.IPv6 != (id >= ipv6):
		return nil, nil
	case n&localBit != 0:
		return e.service.Local, e
	}
	return e.service.Cluster, e
}

func (w *wanted) endpoint(id setID, key string) (data string, ok bool) {
	all, e := w.endpoints(id, key)
	if e == nil || (e.numbers == nil) != (id%ipv6 == endpoints) {
		return "", false
	}
	n := native.Uint32([]byte(key[4:]))
	if id%ipv6 == members {
		a, ok := w.numbered(native.Uint32([]byte(key)), all, e)[n]
		if !ok {
			return "", false
		}
		return addrPort(a), true
	}
	if n >= uint32(len(all)) {
		return "", false
	}
	if id%ipv6 == slots {
		return numberData(e.numbers[all[n]]), true
	}
	return addrPort(all[n]), true
}

// numbered are the endpoints of an id by their number. They are found once: all of them may be asked for.
func (w *wanted) numbered(id uint32, all []netip.AddrPort, e *entry) map[uint32]netip.AddrPort {
	by, known := w.members[id]
	if !known {
		by = make(map[uint32]netip.AddrPort, len(all))
		for _, a := range all {
			by[e.numbers[a]] = a
		}
		w.members[id] = by
	}
	return by
}
