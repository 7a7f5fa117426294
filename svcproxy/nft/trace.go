package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Packet is the first one of a connection, as a node meets it.
type Packet struct {
	// Protocol is the IP protocol number.
	Protocol uint8
	From     netip.Addr
	To       netip.AddrPort
	// FromNode and ToNode: the address is one of the node's own.
	FromNode, ToNode bool
}

// Verdict is what becomes of a Packet.
type Verdict string

// The Verdicts.
const (
	// Pass goes on to where it was sent, unchanged: it is no Service's.
	Pass Verdict = "pass"
	// Translate goes to one of the endpoints.
	Translate Verdict = "translate"
	// Refuse is answered with a TCP reset or ICMP port unreachable.
	Refuse Verdict = "refuse"
	// Discard is not answered.
	Discard Verdict = "discard"
)

// Fate is what becomes of a Packet, and by which elements.
type Fate struct {
	Verdict Verdict
	// Endpoints are those that it may go to, in order of address.
	Endpoints []netip.AddrPort
	// Masqueraded: it gets an address of the node, whichever endpoint it goes to. Hairpins are
	// the endpoints for which it does so because they are who sent it.
	Masqueraded bool
	Hairpins    []netip.AddrPort
	Affinity    time.Duration
	// Remembered is the endpoint that the client had last, if it has affinity and goes there
	// again; not valid: none.
	Remembered netip.AddrPort
	// Met are the elements that decided, as "map [key] : data".
	Met []string
	// Missing are those that were looked for because another one leads there.
	Missing []string
}

// Trace follows a packet through the snapshot's elements, look-up by look-up as the rules do.
// Connection tracking, which sends what belongs to an established connection the old way, is not
// part of it.
func (s *Snapshot) Trace(p Packet) Fate {
	f := families[0]
	if p.To.Addr().Is6() {
		f = families[1]
	}
	t := &tracer{snapshot: s, family: f, packet: p}
	if t.decide() {
		t.translate()
	}
	slices.SortFunc(t.fate.Endpoints, netip.AddrPort.Compare)
	slices.SortFunc(t.fate.Hairpins, netip.AddrPort.Compare)
	return t.fate
}

// tracer is one packet on its way.
type tracer struct {
	snapshot *Snapshot
	family   *family
	packet   Packet
	fate     Fate
	// decision is the map that knew the frontend, if one did: then it has to be translated, too.
	decision setID
	known    bool
}

// way is one of the two ways to ask for a Service, see family.frontends.
type way struct {
	key                string
	text               string
	services, backends setID
}

func (t *tracer) ways() []way {
	to := t.packet.To
	proto := protocolText(t.packet.Protocol)
	all := []way{{
		key:  string(frontendKey(to.Addr(), t.packet.Protocol, to.Port())),
		text: fmt.Sprintf("%s . %s . %d", to.Addr(), proto, to.Port()), services: services, backends: backends,
	}}
	if t.packet.ToNode && !to.Addr().IsLoopback() && t.inRange(nodePortCIDRs, to.Addr()) {
		all = append(all, way{
			key:  string(frontendKey(netip.Addr{}, t.packet.Protocol, to.Port())),
			text: fmt.Sprintf("%s . %d", proto, to.Port()), services: nodePorts, backends: nodePortBackends,
		})
	}
	return all
}

// decide follows the chain of that name; false ends the packet's way.
func (t *tracer) decide() bool {
	for _, w := range t.ways() {
		data, ok := t.find(w.services, w.key)
		if !ok {
			continue
		}
		kind := parseNumberData(data) & kindMask
		t.met(w.services, w.text, kindText(kind))
		t.decision, t.known = w.services, true
		chain, ok := t.follow(decisions, kind)
		if ok {
			return t.decided(strings.TrimSuffix(chain, t.family.suffix))
		}
	}
	to := t.packet.To.Addr()
	if _, ok := t.find(clusterIPs, string(appendAddr(nil, to))); ok {
		t.met(clusterIPs, to.String(), "")
		return t.end(Refuse)
	}
	if _, ok := t.find(elsewhere, string(appendAddr(nil, to))); ok {
		t.met(elsewhere, to.String(), "")
		return true
	}
	if t.inRange(serviceCIDRs, to) {
		t.met(serviceCIDRs, to.String(), "")
		return t.end(Discard)
	}
	return true
}

// decided follows one of the chains that decisions leads to.
func (t *tracer) decided(chain string) bool {
	chain, isRestricted := strings.CutPrefix(chain, "restricted")
	if isRestricted && !t.allowed() {
		return t.end(Discard)
	}
	switch strings.TrimPrefix(chain, "-") {
	case "reject":
		return t.end(Refuse)
	case "dropped":
		return t.end(Discard)
	case "absent":
		if !t.inRange(podCIDRs, t.packet.From) && !t.packet.FromNode {
			return t.end(Discard)
		}
	}
	return true
}

// allowed is the chain of source ranges.
func (t *tracer) allowed() bool {
	w := t.ways()[0]
	data, ok := t.find(w.backends, w.key)
	if !ok {
		t.missing(w.backends, w.text)
		return true
	}
	id, from := string(appendNumber(nil, parseNumberData(data)&idMask)), string(appendAddr(nil, t.packet.From))
	for k := range t.snapshot.elements {
		if k.set == t.family.sets+sources && k.key[:4] == id && k.key[4:] <= from && from <= k.end[4:] {
			t.met(sources, t.packet.From.String(), "")
			return true
		}
	}
	return false
}

func (t *tracer) end(v Verdict) bool {
	t.fate.Verdict = v
	return false
}

// translate follows the chain of that name, and those after it.
func (t *tracer) translate() {
	t.fate.Verdict = Pass
	for _, w := range t.ways() {
		data, ok := t.find(w.backends, w.key)
		if !ok {
			if t.known && t.decision == w.services {
				t.missing(w.backends, w.text)
			}
			continue
		}
		n := parseNumberData(data)
		t.met(w.backends, w.text, fmt.Sprintf("%s, Service %d", kindText(n&kindMask), n&idMask))
		chain, ok := t.follow(translations, n&kindMask)
		if !ok {
			continue
		}
		t.fate.Verdict = Translate
		t.translated(strings.TrimSuffix(chain, t.family.suffix), n&idMask)
		return
	}
}

func (t *tracer) translated(chain string, id uint32) {
	from := t.packet.From
	switch chain {
	case "cluster-ip", "cluster-ip-local":
		t.fate.Masqueraded = !t.inRange(unmasqueraded, from)
	case "external":
		t.fate.Masqueraded = true
	}
	switch {
	case chain == "cluster-ip-local", chain == "external-local" && !t.inRange(podCIDRs, from) && !t.packet.FromNode:
		id |= localBit
	case chain == "external-local" && !t.inRange(podCIDRs, from):
		t.fate.Masqueraded = true
	}
	t.pick(id)
}

// pick follows an id to the endpoints; without any the packet is dropped.
func (t *tracer) pick(id uint32) {
	live := Live{}
	r := reader{have: t.snapshot.elements, first: t.family.sets, live: &live, missing: t.missing}
	t.fate.Endpoints = r.endpoints(id)
	if t.fate.Affinity = live.Affinity; t.fate.Affinity > 0 {
		t.fate.Remembered = t.remembered(id)
	}
	if len(t.fate.Endpoints) == 0 {
		t.end(Discard)
		return
	}
	for _, e := range t.fate.Endpoints {
		from := appendAddr(nil, t.packet.From)
		if _, ok := t.find(hairpins, string(append(from, from...))); ok && e.Addr() == t.packet.From {
			t.fate.Hairpins = append(t.fate.Hairpins, e)
		}
	}
}

// remembered is the endpoint that the client had, unless the Service does not have it any more.
func (t *tracer) remembered(id uint32) netip.AddrPort {
	number, ok := t.find(affinities, string(appendNumber(appendAddr(nil, t.packet.From), id)))
	if !ok {
		return netip.AddrPort{}
	}
	to, _ := t.find(members, numbersKey(id, parseNumberData(number)))
	a, _ := parseAddrPort(to)
	return a
}

func (t *tracer) find(id setID, key string) (string, bool) {
	data, ok := t.snapshot.elements[elementKey{set: t.family.sets + id, key: key}]
	return data, ok
}

// follow finds the chain that a Kind leads to.
func (t *tracer) follow(id setID, kind uint32) (string, bool) {
	chain, ok := t.find(id, string(appendNumber(nil, kind)))
	if !ok {
		t.missing(id, kindText(kind))
	}
	return chain, ok
}

func (t *tracer) met(id setID, key, data string) {
	t.fate.Met = append(t.fate.Met, elementText(t.family.sets+id, key, data))
}

func (t *tracer) missing(id setID, key string) {
	t.fate.Missing = append(t.fate.Missing, elementText(t.family.sets+id, key, ""))
}

// inRange tells whether the greatest key up to an address begins a range rather than ends one.
func (t *tracer) inRange(id setID, a netip.Addr) bool {
	want, at, inside := string(appendAddr(nil, a)), "", false
	for k := range t.snapshot.elements {
		if k.set != t.family.sets+id || k.key > want || k.key < at {
			continue
		}
		// Where one range ends and the next one begins there are two elements.
		inside = !k.intervalEnd || inside && k.key == at
		at = k.key
	}
	return inside
}

func elementText(id setID, key, data string) string {
	if data != "" {
		data = " : " + data
	}
	return fmt.Sprintf("%s [%s]%s", sets[id].name, key, data)
}

func kindText(kind uint32) string {
	k := Kind(kind >> kindShift)
	if k >= restricted {
		return (k - restricted).String() + ", restricted"
	}
	return k.String()
}

func protocolText(p uint8) string {
	if name, ok := map[uint8]string{6: "tcp", 17: "udp", 132: "sctp"}[p]; ok {
		return name
	}
	return strconv.Itoa(int(p))
}
