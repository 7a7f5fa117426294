package nft

import (
	"net/netip"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// What is said to be wanted by its key is what all that is wanted has there, and nothing else is.
func TestWantedByKey(t *testing.T) {
	p := newPlane(t, netlab.NewHost(t), Config{})
	all := steadyServices()
	local := changing(80, 0, "10.180.0.10:8080", "10.180.0.11:8080")
	local.Local = []netip.AddrPort{ap("10.180.0.11:8080")}
	six := &Service{
		Name: "six-affine", Protocol: 17, IPv6: true, Affinity: time.Minute, Cluster: []netip.AddrPort{ap("[fd00::1]:1"), ap("[fd00::2]:2")},
		Frontends: []Frontend{{Port: 30080, Kind: External}}, Elsewhere: []netip.Addr{netip.MustParseAddr("fd00::9")},
	}
	apply(t, p, Changes{Complete: true, Put: append(all, local, six), Node: node})
	want := map[setID]map[string]touched{}
	data := map[elementKey]string{}
	p.eachElement(func(_ int, all []element) {
		for _, e := range all {
			if want[e.set] == nil {
				want[e.set] = map[string]touched{}
			}
			want[e.set][e.key] = touched{}
			data[e.elementKey()] = e.data
		}
	})
	w := p.wanted(want)
	for k, d := range data {
		if _, ranges := map[setID]bool{sources: true, podCIDRs: true, unmasqueraded: true, dropInvalid: true, serviceCIDRs: true, nodePortCIDRs: true}[k.set%ipv6]; ranges {
			continue
		}
		if got, ok := w.data(k.set, k.key); !ok || got != d {
			t.Errorf("%s %x is %x %v, want %x", sets[k.set].name, k.key, got, ok, d)
		}
		for id := range setID(len(sets)) {
			if _, there := data[elementKey{set: id, key: k.key}]; there || len(k.key) != int(sizeOf(sets[id].key)) {
				continue
			}
			if got, ok := w.data(id, k.key); ok {
				t.Errorf("%s %x is %x, and should not be", sets[id].name, k.key, got)
			}
		}
	}
	if len(data) < 60 {
		t.Errorf("only %d elements", len(data))
	}
}
