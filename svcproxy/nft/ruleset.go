package nft

import (
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// MarkBit is the bit of a packet's mark that asks for masquerading, between the hook that
// translates its destination and the hook after routing, where it is taken off again. It is
// neither kube-proxy's (0x4000) nor kubelet's (0x8000), and outside of what Cilium and Calico use.
const MarkBit = 0x2000

// Priorities of the hooks: Services are decided just before their addresses are translated,
// and translated where everybody does it.
const (
	beforeTranslation = -110
	destination       = -100
	filter            = 0
	source            = 100
)

// Names of the base chains.
const (
	filterPrerouting = "filter-prerouting"
	filterOutput     = "filter-output"
	filterForward    = "filter-forward"
	natPrerouting    = "nat-prerouting"
	natOutput        = "nat-output"
	natPostrouting   = "nat-postrouting"
)

// baseChains are where the kernel enters. Adding them makes the table live, all at once.
func (l *layout) baseChains() []chain {
	decide := func(name string, num uint32) chain {
		return chain{name, &hook{"filter", num, beforeTranslation}, l.eachFamily(func(f *family) rule {
			return rule{"new connections", f.only(append(conntrackState(expr.CtStateBitNEW), jump(f.chain("decide")))...)}
		})}
	}
	translate := func(name string, num uint32) chain {
		return chain{name, &hook{"nat", num, destination}, l.eachFamily(func(f *family) rule {
			return rule{"translate", f.only(jump(f.chain("translate")))}
		})}
	}
	return []chain{
		decide(filterPrerouting, unix.NF_INET_PRE_ROUTING),
		decide(filterOutput, unix.NF_INET_LOCAL_OUT),
		{filterForward, &hook{"filter", unix.NF_INET_FORWARD, filter}, l.eachFamily((*family).dropInvalidRule)},
		translate(natPrerouting, unix.NF_INET_PRE_ROUTING),
		translate(natOutput, unix.NF_INET_LOCAL_OUT),
		{natPostrouting, &hook{"nat", unix.NF_INET_POST_ROUTING, source}, append([]rule{masqueradeMarked()}, l.eachFamily((*family).hairpinRule)...)},
	}
}

// plainChains are all other chains that are always there.
func (l *layout) plainChains() []chain {
	all := l.rejectChains()
	for _, f := range l.families {
		all = append(all, f.decideChains()...)
		all = append(all, f.translateChains()...)
	}
	return all
}

// staticElements are the verdicts of the Kinds.
func (l *layout) staticElements() []element {
	var all []element
	for _, f := range l.families {
		add := func(s setID, k Kind, to string) {
			all = append(all, element{set: f.sets + s, key: string(appendNumber(nil, word(k, false, 0))), data: to})
		}
		for _, k := range []Kind{ClusterIP, ClusterIPLocal, External, ExternalLocal} {
			add(decisions, k, verdictReturn)
			add(decisions, k+restricted, f.chain("restricted"))
		}
		add(decisions, ExternalAbsent, f.chain("absent"))
		add(decisions, ExternalAbsent+restricted, f.chain("restricted-absent"))
		add(decisions, Reject, "reject")
		add(decisions, Reject+restricted, f.chain("restricted-reject"))
		add(decisions, Drop, "dropped")
		add(decisions, Drop+restricted, "dropped")
		add(translations, ClusterIP, f.chain("cluster-ip"))
		add(translations, ClusterIPLocal, f.chain("cluster-ip-local"))
		add(translations, External, f.chain("external"))
		add(translations, ExternalLocal, f.chain("external-local"))
		add(translations, ExternalAbsent, f.chain("external-local"))
	}
	return all
}

// family is what differs between IPv4 and IPv6.
type family struct {
	suffix  string
	nfproto byte
	sets    setID  // where its sets begin
	words   uint32 // of an address, in registers
	saddr   uint32 // offsets in the network header
	daddr   uint32
	loop    []byte // loopback: prefix
	alone   bool   // its table gets packets of no other family
}

var families = [2]*family{
	{suffix: "4", nfproto: unix.NFPROTO_IPV4, words: 1, saddr: 12, daddr: 16, loop: []byte{127}},
	{suffix: "6", nfproto: unix.NFPROTO_IPV6, sets: ipv6, words: 4, saddr: 8, daddr: 24, loop: append(make([]byte, 15), 1)},
}

func (f *family) chain(name string) string { return name + f.suffix }

func (f *family) set(id setID) *set { return sets[f.sets+id] }

// only puts before a rule that it is for packets of this family.
func (f *family) only(exprs ...expr.Any) []expr.Any {
	if f.alone {
		return exprs
	}
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg(0)}, is(f.nfproto)}, exprs...)
}

func (f *family) source(to uint32) expr.Any {
	return &expr.Payload{DestRegister: reg(to), Base: expr.PayloadBaseNetworkHeader, Offset: f.saddr, Len: 4 * f.words}
}

func (f *family) destination(to uint32) expr.Any {
	return &expr.Payload{DestRegister: reg(to), Base: expr.PayloadBaseNetworkHeader, Offset: f.daddr, Len: 4 * f.words}
}

// keyAt is the register where keys of frontends begin: after all that is found by them.
const keyAt = 8

// frontend is one of the two ways to ask for a Service.
type frontend struct {
	key      []expr.Any // writes the key to keyAt
	guard    []expr.Any // what has to be true first
	services *set
	backends *set
}

// frontends are by address, and by port of this node; in this order.
func (f *family) frontends() [2]frontend {
	guard := append(fibLocal(false), f.destination(0), in(f.set(nodePortCIDRs)),
		&expr.Payload{DestRegister: reg(0), Base: expr.PayloadBaseNetworkHeader, Offset: f.daddr, Len: uint32(len(f.loop))},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: f.loop})
	return [2]frontend{
		{
			key:      []expr.Any{f.destination(keyAt), l4proto(keyAt + f.words), destinationPort(keyAt + f.words + 1)},
			services: f.set(services), backends: f.set(backends),
		},
		{
			key:      []expr.Any{l4proto(keyAt), destinationPort(keyAt + 1)},
			guard:    guard,
			services: f.set(nodePorts), backends: f.set(nodePortBackends),
		},
	}
}

// A word is what a frontend leads to: its Kind in the upper bits, the id of its Service below.
// The lowest bit tells the id for traffic policy Local from that for Cluster.
const (
	kindShift = 27
	kindMask  = 0x1f << kindShift
	idMask    = 1<<kindShift - 2
	localBit  = 1
)

func word(k Kind, restrictedToo bool, id uint32) uint32 {
	n := uint32(k)
	if restrictedToo {
		n += restricted
	}
	return n<<kindShift | id
}

// idAt is the register of the id, between the address of the client and what is looked up by it.
const idAt = 4

// kind finds what is done with who comes to a frontend, and puts it at idAt.
func (fe *frontend) kind(in *set) []expr.Any {
	return slices.Concat(fe.key, number(in, keyAt, idAt), []expr.Any{bits(idAt, kindMask, 0)})
}

// id finds the id of a frontend's Service, and puts it at a register.
func (fe *frontend) id(at, local uint32) []expr.Any {
	return slices.Concat(fe.key, number(fe.backends, keyAt, at), []expr.Any{bits(at, idMask, local)})
}
