package nft

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// Connections are counted by what was done with them, and counts survive a change of that, of the
// endpoints, and of the table.
func TestCounters(t *testing.T) {
	l, all := servers(t)
	p := newPlane(t, l.Nodes[0], Config{})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	ask := func(n int, want error) {
		t.Helper()
		for range n {
			if _, err := l.Client.AskPatiently(t, "tcp", ap("172.30.0.1:80")); !errors.Is(err, want) {
				t.Error(err)
			}
		}
	}
	ask(3, nil)
	apply(t, p, Changes{Put: []*Service{tcpService("10.180.0.11:8080")}})
	ask(2, nil)
	refused := tcpService()
	refused.Frontends[0].Kind = Reject
	apply(t, p, Changes{Put: []*Service{refused}})
	ask(4, netlab.ErrRefused)
	foreign(t, l.Nodes[0], "add rule inet portico-a filter-forward counter")
	if err := p.Repair(); err != nil {
		t.Fatal(err)
	}
	ask(1, netlab.ErrRefused)
	counts, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	got := map[Kind]uint64{}
	for _, c := range counts {
		if c.Addr == netip.MustParseAddr("172.30.0.1") && c.Port == 80 && c.Protocol == 6 {
			got[c.Kind] = c.Connections
		}
	}
	if got[External] != 5 || got[Reject] != 5 {
		t.Errorf("counted %v, want 5 of each", got)
	}
}

// refusing is a Socket that can be told to write nothing.
type refusing struct {
	Socket
	refuse bool
}

func (r *refusing) Send(data []byte) error {
	if r.refuse {
		return netlab.Bystander{Socket: r.Socket}.Send(data)
	}
	return r.Socket.Send(data)
}

// A new table that could not be made at first has the counters of the old one once.
func TestCountersAfterFailedRebuilds(t *testing.T) {
	l, all := servers(t)
	r := &refusing{}
	p := newPlane(t, l.Nodes[0], Config{Socket: func(kernel Socket) Socket { r.Socket = kernel; return r }})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	works(t, l)
	want, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	foreign(t, l.Nodes[0], "add rule inet portico-a filter-forward counter")
	r.refuse = true
	for range 3 {
		if err := p.Repair(); !errors.Is(err, netlab.ErrWrites) {
			t.Fatal(err)
		}
	}
	r.refuse = false
	if err := p.Repair(); err != nil {
		t.Fatal(err)
	}
	got, err := p.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if sumOf(got) != sumOf(want) || sumOf(want) < 5 {
		t.Errorf("%d connections are counted, %d were made", sumOf(got), sumOf(want))
	}
}

func sumOf(all []Count) (n uint64) {
	for _, c := range all {
		n += c.Connections
	}
	return n
}
