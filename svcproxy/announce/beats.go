package announce

import (
	"slices"
	"time"
)

// This file is what a Fence says to its peers and hears from them.

// Urgent says whether heartbeats are to be sent at once, and not only at their regular time.
func (f *Fence) Urgent() bool {
	urgent := f.urgent
	f.urgent = false
	return urgent
}

// Beats are the heartbeats to send now, one to each of the other nodes.
func (f *Fence) Beats(now time.Duration) []beat {
	f.seq++
	f.sent[f.seq] = now
	silent := f.silentNodes(now)
	var all []beat
	for _, n := range f.nodes {
		if n.Name != f.self && !n.Gone {
			all = append(all, f.beatTo(n.Name, silent))
		}
	}
	return all
}

func (f *Fence) silentNodes(now time.Duration) []nodeID {
	var silent []nodeID
	for _, n := range f.nodes {
		if !f.alive(n.Name, now) {
			silent = append(silent, idOf(n.Name))
		}
	}
	return silent
}

func (f *Fence) beatTo(name string, silent []nodeID) beat {
	b := beat{
		from: f.self, to: name, incarnation: f.incarnation, seq: f.seq,
		epoch: f.record.epoch, draining: f.stopped, silent: silent,
	}
	p := f.peers[name]
	if f.known && p != nil {
		b.echoIncarnation, b.echoSeq = p.incarnation, p.seq
	}
	about := []nodeID{idOf(name)}
	for key := range f.learned {
		about = append(about, idOf(key.node))
	}
	if p != nil {
		about = append(about, p.fencing...)
	}
	slices.Sort(about[1:])
	for i, id := range about {
		if !slices.Contains(about[:i], id) {
			b.terms = append(b.terms, nodeTerm{id, f.terms[id]})
		}
	}
	return b
}

// Hear takes in a heartbeat. It says whether it deserves an answer at once: the sender waits
// for our word.
func (f *Fence) Hear(b beat, now time.Duration) (answer bool) {
	if b.to != f.self || b.from == f.self || !f.expects(b.from) {
		return false
	}
	p := f.peers[b.from]
	if p == nil {
		p = &peer{}
		f.peers[b.from] = p
	}
	echoedAt, mine := f.sent[b.echoSeq]
	fresh := mine && b.echoIncarnation == f.incarnation && now-echoedAt <= proofFor
	if !p.accepts(b, fresh, now) {
		return false
	}
	p.incarnation, p.seq, p.seen, p.arrived = b.incarnation, b.seq, now, true
	if !fresh {
		return false // echoed, so that it can prove itself with the next one
	}
	changed := !p.proven || now-p.heard > silence || !slices.Equal(p.silent, b.silent)
	p.heard, p.proven, p.draining, p.silent = now, true, b.draining, b.silent
	f.hurry = f.hurry || b.epoch > f.record.epoch && f.known
	f.learnTerms(p, b, echoedAt, now)
	return f.owesAnswer(p, b) || changed
}

func (f *Fence) expects(name string) bool {
	return slices.ContainsFunc(f.nodes, func(n Node) bool { return n.Name == name })
}

// accepts keeps out what was sent before what is known, be it repeated or late. Another run of
// the sender is believed once the one that is known is silent, or if it proves itself.
func (p *peer) accepts(b beat, fresh bool, now time.Duration) bool {
	switch {
	case !p.arrived:
		return true
	case b.incarnation == p.incarnation:
		return b.seq > p.seq
	}
	return fresh || now-p.seen > silence
}

// learnTerms takes in what a peer knows: whether it still stands behind us, and whether it has
// turned away from a node that we are fencing.
func (f *Fence) learnTerms(p *peer, b beat, echoedAt, now time.Duration) {
	self := idOf(f.self)
	for _, t := range b.terms {
		f.terms[t.node] = max(f.terms[t.node], t.term)
		if t.node == self && f.known && t.term == f.term() {
			p.echoed, p.confirmed = max(p.echoed, echoedAt), true
		}
	}
	if f.known && f.terms[self] > f.term() {
		f.disbelieve()
	}
	for key, acks := range f.acks {
		for _, t := range b.terms {
			if _, already := acks[b.from]; !already && t.node == idOf(key.node) && t.term >= key.term && b.echoIncarnation != 0 {
				acks[b.from] = now
			}
		}
	}
}

// disbelieve: something was taken from us. Whatever was confirmed is void, and the record has
// to be read again.
func (f *Fence) disbelieve() {
	f.believed, f.hurry = false, true
	for _, p := range f.peers {
		p.confirmed = false
	}
}

// owesAnswer notes what the peer is fencing, and says whether that is new.
func (f *Fence) owesAnswer(p *peer, b beat) bool {
	p.fencing = p.fencing[:0]
	for i, t := range b.terms {
		if i > 0 {
			p.fencing = append(p.fencing, t.node)
		}
	}
	fresh := !slices.Equal(p.answer, b.terms)
	p.answer = b.terms
	return fresh
}
