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
		translate = append(translate, rule{"by kind", slices.Concat(fe.guard, fe.backend(wordKind), []expr.Any{follow(f.set(translations), idAt)})})
		cluster = append(cluster, rule{"by shape", append(fe.backend(wordShape), follow(f.set(pickCluster), idAt))})
		local = append(local, rule{"by shape", append(fe.backend(wordLocal), follow(f.set(pickLocal), idAt))})
	}
	toCluster, toLocal := goTo(f.chain("to-cluster")), goTo(f.chain("to-local"))
	mark := setMark(^uint32(MarkBit), MarkBit)
	markStrangers := rule{"masquerade strangers", append([]expr.Any{f.source(0), notIn(f.set(unmasqueraded), 0)}, mark...)}
	return []chain{
		{name: f.chain("translate"), rules: translate},
		{name: f.chain("cluster-ip"), rules: []rule{markStrangers, {"Cluster", []expr.Any{toCluster}}}},
		{name: f.chain("cluster-ip-local"), rules: []rule{markStrangers, {"Local", []expr.Any{toLocal}}}},
		{name: f.chain("external"), rules: []rule{{"Cluster, masqueraded", append(slices.Clone(mark), toCluster)}}},
		{name: f.chain("external-local"), rules: []rule{
			{"Pods use all endpoints", []expr.Any{f.source(0), in(f.set(podCIDRs), 0), toCluster}},
			{"so does this node, masqueraded", slices.Concat(fibLocal(true), mark, []expr.Any{toCluster})},
			{"Local", []expr.Any{toLocal}},
		}},
		{name: f.chain("to-cluster"), rules: cluster},
		{name: f.chain("to-local"), rules: local},
	}
}

// pickChains choose an endpoint among those of a shape, one chain for each traffic policy.
func (f *family) pickChains(s shape) []chain {
	return []chain{f.pickChain("cluster", wordID, s), f.pickChain("local", wordLocalID, s)}
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

func (f *family) pickChain(policy string, word uint32, s shape) chain {
	c := chain{name: f.pickName(policy, s)}
	for _, fe := range f.frontends() {
		backend := fe.backend(word)
		if s.affinity() > 0 {
			c.rules = append(c.rules, f.affinityRules(backend, s)...)
		}
		c.rules = append(c.rules, rule{"any", slices.Concat(backend, []expr.Any{
			numgen(idAt+1, s.endpoints()), find(f.set(endpoints), idAt, idAt+2), f.dnat(idAt + 2),
		})})
	}
	return c
}

// affinityRules come before the choice of any endpoint. The endpoint that a client had is
// remembered as an address, and counts as long as the Service has it, whatever its place. A full
// map of clients ends the rule before its verdict, and the next rule serves.
func (f *family) affinityRules(backend []expr.Any, s shape) []rule {
	client, endpoint := idAt-f.words, uint32(idAt+1)
	known := f.set(affinities)
	remember := func(op uint32) expr.Any {
		return &expr.Dynset{
			SetName: known.name, SetID: setNumber(known.name), Operation: op, Timeout: s.affinity(),
			SrcRegKey: reg(client), SrcRegData: reg(endpoint),
		}
	}
	forget := &expr.Dynset{SetName: known.name, SetID: setNumber(known.name), Operation: nftDynsetOpDelete, SrcRegKey: reg(client)}
	return []rule{
		{"the same as before", slices.Concat(backend, []expr.Any{
			f.source(client), find(known, client, endpoint), in(f.set(members), idAt), remember(unix.NFT_DYNSET_OP_UPDATE), f.dnat(endpoint),
		})},
		{"that is gone", slices.Concat(backend, []expr.Any{f.source(client), forget})},
		{"any, and remember", slices.Concat(backend, []expr.Any{
			numgen(endpoint, s.endpoints()), find(f.set(endpoints), idAt, endpoint), f.source(client), remember(unix.NFT_DYNSET_OP_ADD), f.dnat(endpoint),
		})},
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
		f.source(0), f.destination(f.words), in(f.set(hairpins), 0), masquerade())...)}
}
