package nft

import (
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The chains that decide whether a new connection goes on. They come before the translation,
// see each of its first packets once, and count it there.

// decideChains are entered with a packet of a new connection.
func (f *family) decideChains() []chain {
	sourceIn := func(id setID, then ...expr.Any) []expr.Any {
		return append([]expr.Any{f.source(0), in(f.set(id))}, then...)
	}
	destinationIn := func(id setID, then ...expr.Any) []expr.Any {
		return append([]expr.Any{f.destination(0), in(f.set(id)), counter()}, then...)
	}
	var decide []rule
	for _, fe := range f.frontends() {
		decide = append(decide, rule{"known frontends", slices.Concat(fe.guard, fe.kind(fe.services), []expr.Any{follow(f.set(decisions), idAt)})})
	}
	decide = append(decide,
		rule{"unknown port of a cluster IP", destinationIn(clusterIPs, goTo("reject"))},
		rule{"cluster IP that another program serves", destinationIn(elsewhere, back())},
		rule{"cluster IP of nobody", destinationIn(serviceCIDRs, drop())})
	return []chain{
		{name: f.chain("decide"), rules: decide},
		{name: f.chain("absent"), rules: []rule{
			{"Pods may use all endpoints", sourceIn(podCIDRs, back())},
			{"so may this node", append(fibLocal(true), back())},
			{"no local endpoint", []expr.Any{counter(), drop()}},
		}},
		{name: f.chain("restricted"), rules: f.restrictedRules()},
		{name: f.chain("restricted-absent"), rules: []rule{
			{"source ranges", []expr.Any{jump(f.chain("restricted"))}},
			{"local endpoints", []expr.Any{goTo(f.chain("absent"))}},
		}},
		{name: f.chain("restricted-reject"), rules: []rule{
			{"source ranges", []expr.Any{jump(f.chain("restricted"))}},
			{"no endpoint", []expr.Any{goTo("reject")}},
		}},
	}
}

// restrictedRules drop who is not in the source ranges of the Service. The count comes first and in a
// rule of its own, which a full set ends.
func (f *family) restrictedRules() []rule {
	fe, count := f.frontends()[0], f.set(denied)
	stranger := append(fe.id(idAt, 0), f.source(idAt+1), notIn(f.set(sources), idAt))
	return []rule{
		{"denied by the Service", append(slices.Clone(stranger), &expr.Dynset{
			SetName: count.name, SetID: setNumber(count.name), Operation: unix.NFT_DYNSET_OP_UPDATE, SrcRegKey: reg(idAt),
		})},
		{"source ranges", append(stranger, counter(), drop())},
	}
}

// icmpPortUnreachable is the code of RFC 792.
const icmpPortUnreachable = 3

// rejectChains are those that both families share.
func (l *layout) rejectChains() []chain {
	unreachable := &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}
	if l.protocol == unix.NFPROTO_IPV4 {
		unreachable = &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPortUnreachable}
	}
	return []chain{
		{name: "reject", rules: []rule{
			{"TCP reset", []expr.Any{l4proto(0), is(unix.IPPROTO_TCP), counter(), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}},
			{"port unreachable", []expr.Any{counter(), unreachable}},
		}},
		{name: "dropped", rules: []rule{{"dropped by policy", []expr.Any{counter(), drop()}}}},
	}
}

// dropInvalidRule keeps segments that connection tracking does not take from leaving with a
// Pod's address, which the client would answer with a reset.
func (f *family) dropInvalidRule() rule {
	match := append([]expr.Any{l4proto(0), is(unix.IPPROTO_TCP)}, conntrackState(expr.CtStateBitINVALID)...)
	return rule{"invalid segments", f.only(append(match,
		f.source(0), in(f.set(dropInvalid)), counter(), drop())...)}
}
