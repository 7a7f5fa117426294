package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The chains that translate. Connection tracking brings only the first packet of a connection
// here, and does the same with all that follow.

// ctStatusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const ctStatusDNAT = 1 << 5

// translateChains are entered with the first packet of a connection.
func (f *family) translateChains() []chain {
	var translate, cluster, local []rule
	for _, fe := range f.frontends() {
		translate = append(translate, rule{"by kind", slices.Concat(fe.guard, fe.kind(fe.backends), []expr.Any{follow(f.set(translations), idAt)})})
		cluster = append(cluster, rule{"by shape", append(fe.id(idAt, 0), f.shape(pickCluster)...)})
		local = append(local, rule{"by shape", append(fe.id(idAt, localBit), f.shape(pickLocal)...)})
	}
	cluster, local = append(cluster, changedMeanwhile()), append(local, changedMeanwhile())
	toCluster, toLocal := goTo(f.chain("to-cluster")), goTo(f.chain("to-local"))
	mark := setMark(^uint32(MarkBit), MarkBit)
	markStrangers := rule{"masquerade strangers", append([]expr.Any{f.source(0), notIn(f.set(unmasqueraded), 0)}, mark...)}
	return []chain{
		{name: f.chain("translate"), rules: translate},
		{name: f.chain("cluster-ip"), rules: []rule{markStrangers, {"Cluster", []expr.Any{toCluster}}}},
		{name: f.chain("cluster-ip-local"), rules: []rule{markStrangers, {"Local", []expr.Any{toLocal}}}},
		{name: f.chain("external"), rules: []rule{{"Cluster, masqueraded", append(slices.Clone(mark), toCluster)}}},
		{name: f.chain("external-local"), rules: []rule{
			{"Pods use all endpoints", []expr.Any{f.source(0), in(f.set(podCIDRs)), toCluster}},
			{"so does this node, masqueraded", slices.Concat(fibLocal(true), mark, []expr.Any{toCluster})},
			{"Local", []expr.Any{toLocal}},
		}},
		{name: f.chain("to-cluster"), rules: cluster},
		{name: f.chain("to-local"), rules: local},
	}
}

// shape follows an id to the chain that chooses an endpoint.
func (f *family) shape(pick setID) []expr.Any {
	return append(number(f.set(shapes), idAt, idAt+2), follow(f.set(pick), idAt+2))
}

// pickChains choose an endpoint among those of a shape, one chain for each traffic policy.
func (f *family) pickChains(s shape) []chain {
	return []chain{f.pickChain("cluster", 0, s), f.pickChain("local", localBit, s)}
}

// pickElements lead to the pickChains of a shape.
func (f *family) pickElements(s shape) []element {
	key := string(appendNumber(nil, uint32(s)))
	return []element{
		{set: f.sets + pickCluster, key: key, data: f.pickName("cluster", s)},
		{set: f.sets + pickLocal, key: key, data: f.pickName("local", s)},
	}
}

func (f *family) pickName(policy string, s shape) string {
	name := fmt.Sprintf("pick%s-%s-%d", f.suffix, policy, s.endpoints())
	if a := s.affinity(); a > 0 {
		name += fmt.Sprintf("-%.0fs", a.Seconds())
	}
	return name
}

// pickChain tries, while the Service changes under the packet, the first place as well, which is
// there as long as there is any endpoint.
func (f *family) pickChain(policy string, local uint32, s shape) chain {
	c := chain{name: f.pickName(policy, s)}
	for _, among := range slices.Compact([]uint32{s.endpoints(), 1}) {
		for _, fe := range f.frontends() {
			if s.affinity() > 0 {
				c.rules = append(c.rules, f.affinityRules(&fe, local, among, s)...)
				continue
			}
			c.rules = append(c.rules, rule{"any", append(fe.id(idAt, local),
				numgen(idAt+1, among), find(f.set(endpoints), idAt, idAt+2), f.dnat(idAt+2))})
		}
	}
	c.rules = append(c.rules, changedMeanwhile())
	return c
}

// changedMeanwhile drops a packet whose Service changed between two looks at it. It must not go
// on: connection tracking would remember it untranslated, and all that follow would go the same
// way. Who sent it sends it again.
func changedMeanwhile() rule { return rule{"changed meanwhile", []expr.Any{counter(), drop()}} }

// affinityRules remember by number which endpoint a client had; the number counts as long as the
// Service has that endpoint, whatever its place. A full map of clients ends a rule before its
// verdict, and the next one serves without.
//
// Registers: the client up to idAt, the id, a word of nothing, the number. Where the number is
// looked up the id stands where nothing was.
func (f *family) affinityRules(fe *frontend, local, among uint32, s shape) []rule {
	const endpoint, to = idAt + 2, idAt + 3
	client := idAt - f.words
	known := f.set(affinities)
	id := fe.id(idAt, local)
	// The mark is for the nft program again: what is in the word of nothing does not matter.
	remember := func(op uint32) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(endpoint - 1)}, &expr.Dynset{
			SetName: known.name, SetID: setNumber(known.name), Operation: op, Timeout: s.affinity(),
			SrcRegKey: reg(client), SrcRegData: reg(endpoint - 1),
		}}
	}
	// The kernel wants data for a map even where it does not look at any.
	forget := []expr.Any{numgen(idAt+1, 1), &expr.Dynset{
		SetName: known.name, SetID: setNumber(known.name), Operation: nftDynsetOpDelete, SrcRegKey: reg(client), SrcRegData: reg(idAt),
	}}
	choose := append([]expr.Any{numgen(idAt+1, among)}, number(f.set(slots), idAt, endpoint)...)
	translate := append(fe.id(endpoint-1, local), find(f.set(members), endpoint-1, to), f.dnat(to))
	return []rule{
		{"the same as before", slices.Concat(id, []expr.Any{f.source(client)}, number(known, client, endpoint),
			remember(unix.NFT_DYNSET_OP_UPDATE), translate)},
		{"that is gone", slices.Concat(id, []expr.Any{f.source(client)}, forget)},
		{"any, and remember", slices.Concat(id, choose, []expr.Any{f.source(client)}, remember(unix.NFT_DYNSET_OP_ADD), translate)},
		{"any", slices.Concat(id, choose, translate)},
	}
}

func (f *family) dnat(at uint32) expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: reg(at), RegProtoMin: reg(at + f.words)}
}

func masqueradeMarked() rule {
	marked := append([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(0)}}, hasBits(0, MarkBit)...)
	return rule{"masquerade", slices.Concat(marked, setMark(^uint32(MarkBit), 0), []expr.Any{masquerade()})}
}

// hairpinRule masquerades who was sent back to itself: it would not take its own address for
// the Service's answer.
func (f *family) hairpinRule() rule {
	translated := append([]expr.Any{&expr.Ct{Register: reg(0), Key: expr.CtKeySTATUS}}, hasBits(0, ctStatusDNAT)...)
	return rule{"hairpin", f.only(append(translated,
		f.source(0), f.destination(f.words), in(f.set(hairpins)), masquerade())...)}
}
