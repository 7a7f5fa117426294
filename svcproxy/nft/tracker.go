package nft

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// tracker deletes flows from connection tracking, of the network namespace that it was made in. One
// goroutine may use it at a time.
type tracker struct {
	// A flow is deleted while others are still listed, so that it has no time to become something else.
	lists, deletes *conn
}

func newTracker() (*tracker, error) {
	lists, err := dial()
	if err != nil {
		return nil, err
	}
	deletes, err := dial()
	if err != nil {
		lists.close()
		return nil, err
	}
	return &tracker{lists, deletes}, nil
}

func (t *tracker) close() {
	t.lists.close()
	t.deletes.close()
}

// look is which flows the kernel is to list: those of a protocol in an IP family, of TCP without those that
// were answered (since Linux 5.18; before, with them).
type look struct {
	ipv6     bool
	protocol uint8
}

// looksFor are those for all flows to the Services. It saves looks: each is through all buckets of the
// kernel's table, however empty.
func looksFor(all []*Service) (looks []look) {
	for _, s := range all {
		if l := (look{s.IPv6, s.Protocol}); !slices.Contains(looks, l) {
			looks = append(looks, l)
		}
	}
	return looks
}

// deleteIf deletes those flows of a look that match, and says how many there were.
func (t *tracker) deleteIf(l look, match func(*tracked) bool) (n int, err error) {
	seq := t.lists.nextSeq()
	var failed error
	err = t.lists.dump(l.request(seq), seq, func(m message) {
		if len(m.body) < genHead {
			return
		}
		f := parseTracked(m.body[genHead:])
		if !match(&f) {
			return
		}
		switch err := t.delete(m.body); {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOENT): // it is over
			failed = err
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return n, fmt.Errorf("connection tracking: %w", err)
	}
	return n, nil
}

// Numbers of linux/netfilter/nfnetlink_conntrack.h and, in the kernel, net/netfilter/nf_internals.h.
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	ctFilterProtoNum   = 1 << 3
	ctaZone            = 18
)

// request asks for the list.
func (l look) request(seq uint32) []byte {
	b := ctRequest(ctMessageGet, unix.NLM_F_DUMP, l.ipv6, seq)
	b, tuple := beginNest(b, ctaTupleOrig)
	b, proto := beginNest(b, ctaTupleProto)
	b = appendAttr(b, ctaProtoNum, []byte{l.protocol})
	endNest(b, proto)
	endNest(b, tuple)
	b, filter := beginNest(b, ctaFilter)
	b = native.AppendUint32(appendAttrHead(b, ctaFilterOrigFlags, 4), ctFilterProtoNum)
	endNest(b, filter)
	if l.protocol == unix.IPPROTO_TCP {
		b = appendAttrUint32(b, ctaStatus, 0)
		b = appendAttrUint32(b, ctaStatusMask, ctStatusAnswered)
	}
	native.PutUint32(b, uint32(len(b)))
	return b
}

// delete deletes the flow that a message of a list is about, and no other that has its addresses since.
func (t *tracker) delete(listed []byte) error {
	seq := t.deletes.nextSeq()
	b := ctRequest(ctMessageDelete, unix.NLM_F_ACK, listed[0] == unix.AF_INET6, seq)
	for typ, v := range attrs(listed[genHead:]) {
		switch typ {
		case ctaTupleOrig:
			b = appendAttr(b, typ|unix.NLA_F_NESTED, v)
		case ctaZone, ctaID:
			b = appendAttr(b, typ, v)
		}
	}
	native.PutUint32(b, uint32(len(b)))
	return t.deletes.ask(b, seq, func(message) {})
}

// ctRequest begins a message; its length is to be set when it is done.
func ctRequest(typ, flags uint16, ipv6 bool, seq uint32) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, 128)
	native.PutUint16(b[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|typ)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	native.PutUint32(b[8:], seq)
	family := byte(unix.AF_INET)
	if ipv6 {
		family = unix.AF_INET6
	}
	return append(b, family, 0, 0, 0)
}
