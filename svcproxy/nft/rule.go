package nft

import (
	"fmt"
	"hash/crc32"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A rule is a list of expressions: each reads and writes registers, or stops the rule.
type rule struct {
	why   string
	exprs []expr.Any
}

// chain is a list of rules; one with a hook is where the kernel begins.
type chain struct {
	name  string
	hook  *hook
	rules []rule
}

// comments are those of its rules.
func (c *chain) comments() []string {
	all := make([]string, 0, len(c.rules))
	for _, r := range c.rules {
		all = append(all, r.comment())
	}
	return all
}

type hook struct {
	typ      string
	num      uint32
	priority int32
}

// appendTo appends the rule's expressions.
func (r rule) appendTo(b []byte) []byte {
	return appendExpressions(b, unix.NFTA_RULE_EXPRESSIONS, r.exprs...)
}

// comment tells people what a rule is for, and this program that it is unchanged.
func (r rule) comment() string {
	return fmt.Sprintf("%s #%08x", r.why, crc32.ChecksumIEEE(r.appendTo(nil)))
}

// appendExpressions appends a list of expressions, or under nftaSetExpr the only one.
func appendExpressions(b []byte, typ uint16, exprs ...expr.Any) []byte {
	b, list := beginNest(b, typ)
	for _, e := range exprs {
		encoded, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			panic(fmt.Sprintf("nft: %T: %v", e, err)) // they are all constants of this package
		}
		if typ == nftaSetExpr {
			b = append(b, encoded...)
			continue
		}
		b = appendAttr(b, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, encoded)
	}
	endNest(b, list)
	return b
}

// reg is one of the sixteen registers of four bytes.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

// What follows are the words that rules are made of.

func counter() expr.Any { return &expr.Counter{} }

func drop() expr.Any { return &expr.Verdict{Kind: expr.VerdictDrop} }

func back() expr.Any { return &expr.Verdict{Kind: expr.VerdictReturn} }

func jump(to string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: to} }

func goTo(to string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: to} }

// find looks the key at register key up in a map and puts what it finds at register to. Not
// found: the rule ends.
func find(s *set, key, to uint32) expr.Any {
	return &expr.Lookup{SetName: s.name, SetID: setNumber(s.name), SourceRegister: reg(key), DestRegister: reg(to), IsDestRegSet: true}
}

// follow goes on where a map to verdicts says.
func follow(s *set, key uint32) expr.Any {
	return &expr.Lookup{SetName: s.name, SetID: setNumber(s.name), SourceRegister: reg(key), DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true}
}

// in goes on if the key at register 0 is in a set, notIn if the one at key is not.
func in(s *set) expr.Any {
	return &expr.Lookup{SetName: s.name, SetID: setNumber(s.name), SourceRegister: reg(0)}
}

func notIn(s *set, key uint32) expr.Any {
	return &expr.Lookup{SetName: s.name, SetID: setNumber(s.name), SourceRegister: reg(key), Invert: true}
}

func l4proto(to uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(to)}
}

// destinationPort is at the same place in TCP, UDP and SCTP.
func destinationPort(to uint32) expr.Any {
	return &expr.Payload{DestRegister: reg(to), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// is goes on if register 0 has this value.
func is(value ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: value} }

// number looks the key at register key up in a map to numbers and puts what it finds at register
// to. The map gives a word of nothing before it, which lands in the register before.
//
// That, and that the mark is loaded into to first, is for the nft program alone, which prints the
// rule as if the mark were looked at: it knows of no other way to go on with what a map gave, and
// would end in an assertion, which would be the end of every `nft list ruleset` on the node.
func number(s *set, key, to uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(to)}, find(s, key, to-1)}
}

// bits keeps some bits of a register and flips others.
func bits(register, keep, flip uint32) expr.Any {
	return &expr.Bitwise{
		SourceRegister: reg(register), DestRegister: reg(register), Len: 4,
		Mask: native.AppendUint32(nil, keep), Xor: native.AppendUint32(nil, flip),
	}
}

// hasBits goes on if one of the bits is set. It changes the register.
func hasBits(register, set uint32) []expr.Any {
	return []expr.Any{
		bits(register, set, 0),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(register), Data: make([]byte, 4)},
	}
}

func conntrackState(states uint32) []expr.Any {
	return append([]expr.Any{&expr.Ct{Register: reg(0), Key: expr.CtKeySTATE}}, hasBits(0, states)...)
}

// fibLocal goes on if the source or the destination is an address of this node.
func fibLocal(source bool) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg(0), FlagSADDR: source, FlagDADDR: !source, ResultADDRTYPE: true},
		is(native.AppendUint32(nil, unix.RTN_LOCAL)...),
	}
}

// setMark changes the bits of the packet's mark that mask does not keep.
func setMark(keep, set uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(0)},
		bits(0, keep, set),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(0), SourceRegister: true},
	}
}

func numgen(to, modulus uint32) expr.Any {
	return &expr.Numgen{Register: reg(to), Modulus: modulus, Type: unix.NFT_NG_RANDOM}
}

func masquerade() expr.Any { return &expr.Masq{FullyRandom: true} }
