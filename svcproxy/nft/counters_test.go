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
