package nft

import (
	"golang.org/x/sys/unix"
)

// A set or map of the kernel. They are all shared by all Services; what changes with a Service
// is elements and nothing else.
type set struct {
	name string
	key  []field
	// data is what a map has. verdicts is a map to verdicts.
	data     []field
	verdicts bool
	flags    uint32
	counted  bool // each element counts packets
	// size bounds what packets may add.
	size uint32
	// mirrored: its elements are written by this package, and compared when the kernel is read.
	mirrored bool
}

// field is one part of a key or of data. Its size is padded to four bytes, as in registers.
type field struct {
	size uint32
	typ  uint32 // as the nft program shows it: TYPE_... of its datatype.h
}

var (
	addr4    = field{4, 7}
	addr6    = field{16, 8}
	number32 = field{4, 19} // shown like a mark: a number in the order of the machine
	proto    = field{1, 12}
	port     = field{2, 13}
)

// setID says which set, and is its place in sets.
type setID uint8

// The sets of IPv4; of those of IPv6 the number is higher by ipv6.
const (
	services setID = iota
	nodePorts
	backends
	nodePortBackends
	shapes
	endpoints
	slots
	members
	affinities
	denied
	hairpins
	sources
	clusterIPs
	elsewhere
	podCIDRs
	unmasqueraded
	dropInvalid
	serviceCIDRs
	nodePortCIDRs
	decisions
	translations
	pickCluster
	pickLocal
	ipv6
)

// sets is the list of all sets, by setID.
var sets = append(setsOf("4", addr4), setsOf("6", addr6)...)

// maxAffinities bounds the clients that are remembered, so that an attacker with many addresses
// costs no more than that much memory. The clients beyond are served without affinity.
const maxAffinities = 1 << 18

// maxDenied bounds the Services that count whom their source ranges keep out.
const maxDenied = 1 << 16

func setsOf(suffix string, addr field) []*set {
	toNumber := []field{number32, number32}
	data := func(name string, key, data []field) *set {
		return &set{name: name + suffix, key: key, data: data, flags: unix.NFT_SET_MAP, mirrored: true}
	}
	plain := func(name string, key ...field) *set {
		return &set{name: name + suffix, key: key, mirrored: true}
	}
	ranges := func(name string, key ...field) *set {
		s := &set{name: name + suffix, key: key, flags: unix.NFT_SET_INTERVAL, mirrored: true}
		if len(key) > 1 {
			s.flags |= nftSetConcat
		}
		return s
	}
	verdicts := func(name string) *set {
		return &set{name: name + suffix, key: []field{number32}, verdicts: true, flags: unix.NFT_SET_MAP, mirrored: true}
	}
	all := make([]*set, ipv6)
	all[services] = data("services", []field{addr, proto, port}, toNumber)
	all[nodePorts] = data("nodeports", []field{proto, port}, toNumber)
	all[services].counted, all[nodePorts].counted = true, true
	all[backends] = data("backends", []field{addr, proto, port}, toNumber)
	all[nodePortBackends] = data("nodeport-backends", []field{proto, port}, toNumber)
	all[shapes] = data("shapes", []field{number32}, toNumber)
	all[endpoints] = data("endpoints", []field{number32, number32}, []field{addr, port})
	all[slots] = data("slots", []field{number32, number32}, toNumber)
	all[members] = data("members", []field{number32, number32}, []field{addr, port})
	all[affinities] = &set{
		name: "affinities" + suffix, key: []field{addr, number32}, data: toNumber,
		flags: unix.NFT_SET_MAP | unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT, size: maxAffinities,
	}
	all[denied] = &set{name: "denied" + suffix, key: []field{number32}, flags: unix.NFT_SET_EVAL, counted: true, size: maxDenied}
	all[hairpins] = plain("hairpins", addr, addr)
	all[sources] = ranges("sources", number32, addr)
	all[clusterIPs] = plain("cluster-ips", addr)
	all[elsewhere] = plain("elsewhere", addr)
	all[podCIDRs] = ranges("pods", addr)
	all[unmasqueraded] = ranges("unmasqueraded", addr)
	all[dropInvalid] = ranges("drop-invalid", addr)
	all[serviceCIDRs] = ranges("service-cidrs", addr)
	all[nodePortCIDRs] = ranges("nodeport-addresses", addr)
	all[decisions] = verdicts("decisions")
	all[translations] = verdicts("translations")
	all[pickCluster] = verdicts("pick-cluster")
	all[pickLocal] = verdicts("pick-local")
	return all
}

func (s *set) concatenated() bool { return s.flags&nftSetConcat != 0 }

func sizeOf(fields []field) (n uint32) {
	for _, f := range fields {
		n += (f.size + 3) &^ 3
	}
	return n
}

// typeOf is how the nft program writes a concatenation: six bits a part.
func typeOf(fields []field) (t uint32) {
	for _, f := range fields {
		t = t<<6 | f.typ
	}
	return t
}

func (s *set) appendTo(b []byte) []byte {
	b = appendAttrName(b, unix.NFTA_SET_NAME, s.name)
	b = appendAttrUint32(b, unix.NFTA_SET_FLAGS, s.flags)
	b = appendAttrUint32(b, unix.NFTA_SET_KEY_TYPE, typeOf(s.key))
	b = appendAttrUint32(b, unix.NFTA_SET_KEY_LEN, sizeOf(s.key))
	switch {
	case s.verdicts:
		b = appendAttrUint32(b, unix.NFTA_SET_DATA_TYPE, nftDataVerdict)
	case s.data != nil:
		b = appendAttrUint32(b, unix.NFTA_SET_DATA_TYPE, typeOf(s.data))
		b = appendAttrUint32(b, unix.NFTA_SET_DATA_LEN, sizeOf(s.data))
	}
	b = appendAttrUint32(b, unix.NFTA_SET_ID, setNumber(s.name))
	b = s.appendDescription(b)
	if s.counted {
		b = appendExpressions(b, nftaSetExpr, counter())
	}
	return b
}

// appendDescription gives the bound of a set, and the parts that its ranges are made of.
func (s *set) appendDescription(b []byte) []byte {
	if s.size == 0 && !s.concatenated() {
		return b
	}
	b, desc := beginNest(b, unix.NFTA_SET_DESC)
	if s.size != 0 {
		b = appendAttrUint32(b, unix.NFTA_SET_DESC_SIZE, s.size)
	}
	if s.concatenated() {
		var list, one int
		b, list = beginNest(b, nftaSetDescConcat)
		for _, f := range s.key {
			b, one = beginNest(b, unix.NFTA_LIST_ELEM)
			b = appendAttrUint32(b, nftaSetFieldLen, f.size)
			endNest(b, one)
		}
		endNest(b, list)
	}
	endNest(b, desc)
	return b
}

// setNumber names a set within the transaction that makes it. The kernel looks for the name
// first, and wants a number all the same.
func setNumber(name string) uint32 {
	for i, s := range sets {
		if s.name == name {
			return uint32(i) + 1
		}
	}
	return 0
}

// nftDataVerdict is the type of a map to verdicts (enum nft_data_types).
const nftDataVerdict = 0xffffff00
