package announce

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// beat is one heartbeat, from one node to one other. It proves itself fresh by what it
// echoes: a recorded one echoes what was long ago.
type beat struct {
	from, to string
	// incarnation tells one run of the sender from the next; seq counts within it.
	incarnation, seq uint64
	// echoIncarnation and echoSeq are the last of the receiver's heartbeats that arrived; zero
	// as long as the sender has not read the record, because its word is worth nothing yet.
	echoIncarnation, echoSeq uint64
	// epoch is the record that the sender knows.
	epoch uint64
	// draining says that the sender stops, or is not able to serve.
	draining bool
	// terms are those that matter to the receiver: its own, and those of nodes that one of the
	// two is fencing.
	terms []nodeTerm
	// silent are the nodes that the sender does not hear.
	silent []nodeID
}

type nodeTerm struct {
	node nodeID
	term uint64
}

// nodeID stands for a name where names would not fit: the first 8 bytes of its SHA-256.
type nodeID uint64

func idOf(name string) nodeID {
	sum := sha256.Sum256([]byte(name))
	return nodeID(binary.BigEndian.Uint64(sum[:]))
}

const (
	beatVersion = 1
	// A heartbeat fits into one datagram whatever is in it.
	maxBeat   = 1400
	maxName   = 253 // of a Kubernetes object
	maxTerms  = 8
	maxSilent = 8
	macLen    = sha256.Size
)

var beatMagic = [4]byte{'p', 'h', 'b', beatVersion}

var (
	errBeat    = errors.New("announce: not a heartbeat")
	errBeatMAC = errors.New("announce: a heartbeat with another key")
)

// marshal gives the datagram. Names longer than maxName are cut: no node has one.
func (b beat) marshal(key []byte) []byte {
	out := append(make([]byte, 0, 512), beatMagic[:]...)
	var flags byte
	if b.draining {
		flags = 1
	}
	out = append(out, flags)
	out = appendName(out, b.from)
	out = appendName(out, b.to)
	for _, n := range []uint64{b.incarnation, b.seq, b.echoIncarnation, b.echoSeq, b.epoch} {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	terms := b.terms[:min(len(b.terms), maxTerms)]
	out = append(out, byte(len(terms)))
	for _, t := range terms {
		out = binary.BigEndian.AppendUint64(out, uint64(t.node))
		out = binary.BigEndian.AppendUint64(out, t.term)
	}
	silent := b.silent[:min(len(b.silent), maxSilent)]
	out = append(out, byte(len(silent)))
	for _, id := range silent {
		out = binary.BigEndian.AppendUint64(out, uint64(id))
	}
	return append(out, sign(out, key)...)
}

func appendName(b []byte, name string) []byte {
	name = name[:min(len(name), maxName)]
	return append(append(b, byte(len(name))), name...)
}

func sign(b, key []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil)
}

// parseBeat reads a datagram. The signature is looked at before anything that it covers.
func parseBeat(datagram, key []byte) (beat, error) {
	if len(datagram) < len(beatMagic)+macLen || len(datagram) > maxBeat || [4]byte(datagram) != beatMagic {
		return beat{}, errBeat
	}
	body, signature := datagram[:len(datagram)-macLen], datagram[len(datagram)-macLen:]
	if !hmac.Equal(signature, sign(body, key)) {
		return beat{}, errBeatMAC
	}
	r := reader{b: body[len(beatMagic):]}
	flags := r.byte()
	b := beat{draining: flags&1 != 0, from: r.name(), to: r.name()}
	for _, n := range []*uint64{&b.incarnation, &b.seq, &b.echoIncarnation, &b.echoSeq, &b.epoch} {
		*n = r.uint64()
	}
	for range r.count(maxTerms) {
		b.terms = append(b.terms, nodeTerm{nodeID(r.uint64()), r.uint64()})
	}
	for range r.count(maxSilent) {
		b.silent = append(b.silent, nodeID(r.uint64()))
	}
	if r.bad || len(r.b) > 0 || flags > 1 || b.from == "" || b.to == "" {
		return beat{}, errBeat
	}
	return b, nil
}

// reader takes values from the front of b. Once something was missing, all that follows is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return make([]byte, n)
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *reader) name() string {
	n := int(r.byte())
	if n > maxName {
		r.bad = true
		return ""
	}
	return string(r.take(n))
}

func (r *reader) count(most int) int {
	n := int(r.byte())
	if n > most {
		r.bad = true
		return 0
	}
	return n
}
