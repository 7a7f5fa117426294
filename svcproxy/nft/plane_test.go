package nft

import (
	"net/netip"
	"testing"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// newPlane makes a Plane in a namespace.
func newPlane(t testing.TB, h *netlab.Host, cfg Config) *Plane {
	t.Helper()
	var p *Plane
	var err error
	h.Do(t, func() { p, err = New(cfg) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

var anywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

func TestSmoke(t *testing.T) {
	l := netlab.New(t, 2)
	for _, pods := range l.Pods {
		for _, p := range pods {
			p.Serve(t, 8080)
		}
	}
	p := newPlane(t, l.Nodes[0], Config{})
	err := p.Apply(Changes{Complete: true, Node: &Node{NodePorts: anywhere, Unmasqueraded: anywhere}, Put: []*Service{{
		Name: "a", Protocol: 6,
		Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 80, Kind: ClusterIP}},
		Cluster:   []netip.AddrPort{ap("10.180.0.10:8080"), ap("10.180.1.10:8080")},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		a, err := l.Client.Ask(t, "tcp", ap("172.30.0.1:80"))
		t.Log(a, err)
	}
}
