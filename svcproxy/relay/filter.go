package relay

import (
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A filter on a listening socket lets the kernel drop what must not be answered: without it a
// client that has to hear nothing would be accepted first. It is one of classic BPF, which needs
// no privileges. What it lets through is still asked by route.decide, so that where the kernel
// takes no filter the client is reset instead.

// netOffset is where the IP header is for a load in a socket filter (SKF_NET_OFF).
const netOffset = 0xfff00000

// maxInstructions of a classic BPF program (BPF_MAXINSNS).
const maxInstructions = 4096

// admitted are lists of which a source must be in each; nil lets everybody in.
func (r *route) admitted() [][]netip.Prefix {
	var all [][]netip.Prefix
	if r.frontend.Restricted {
		all = append(all, r.service.Sources)
	}
	switch r.frontend.Kind {
	case Drop:
		all = append(all, nil)
	case DropOutside:
		inside := slices.Clone(r.pods)
		for _, a := range r.own {
			inside = append(inside, netip.PrefixFrom(a, a.BitLen()))
		}
		all = append(all, append(inside, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")))
	}
	return all
}

// sourceFilter is the program that lets through who is in one prefix of each list.
func sourceFilter(lists [][]netip.Prefix, ipv6 bool) []bpf.Instruction {
	var program []bpf.Instruction
	for _, list := range lists {
		var tests [][]bpf.Instruction
		for _, p := range list {
			if p.IsValid() && p.Addr().Is6() == ipv6 {
				tests = append(tests, prefixTest(p.Masked()))
			}
		}
		after := 1 // the drop at the end of the list
		for _, t := range tests {
			after += len(t) + 1
		}
		for _, t := range tests {
			after -= len(t) + 1
			program = append(append(program, t...), bpf.Jump{Skip: uint32(after)})
		}
		program = append(program, bpf.RetConstant{Val: 0})
	}
	return append(program, bpf.RetConstant{Val: 0xffffffff})
}

// prefixTest goes on after its end if the source is not in p, but one further: over the jump that
// follows it.
func prefixTest(p netip.Prefix) []bpf.Instruction {
	address, first := p.Addr().AsSlice(), uint32(netOffset+12)
	if p.Addr().Is6() {
		first = netOffset + 8
	}
	var words [][3]uint32 // offset, mask, value
	for bits, i := p.Bits(), 0; bits > 0; bits, i = bits-32, i+4 {
		mask := ^uint32(0)
		if bits < 32 {
			mask <<= 32 - bits
		}
		value := uint32(address[i])<<24 | uint32(address[i+1])<<16 | uint32(address[i+2])<<8 | uint32(address[i+3])
		words = append(words, [3]uint32{first + uint32(i), mask, value})
	}
	var all []bpf.Instruction
	for i, w := range words {
		left := 3*(len(words)-1-i) + 1 // the words after this one, and the jump
		all = append(all,
			bpf.LoadAbsolute{Off: w[0], Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: w[1]},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: w[2], SkipFalse: uint8(left)})
	}
	return all
}

// setFilter puts the filter of a route onto its socket, in the place of another one.
func setFilter(c syscall.RawConn, r *route) error {
	lists := r.admitted()
	var result error
	err := c.Control(func(fd uintptr) {
		if lists == nil {
			// ENOENT: there is none.
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != unix.ENOENT {
				result = err
			}
			return
		}
		program := sourceFilter(lists, r.service.IPv6)
		if len(program) > maxInstructions {
			result = unix.E2BIG
			return
		}
		raw, err := bpf.Assemble(program)
		if err != nil {
			result = err
			return
		}
		filter := make([]unix.SockFilter, len(raw))
		for i, in := range raw {
			filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
		}
		result = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err != nil {
		return err
	}
	return result
}
