package nft

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// manyServices gives n Services with so many endpoints each.
func manyServices(n, each int) []*Service {
	all := make([]*Service, n)
	for i := range all {
		all[i] = manyService(i, each, 0)
	}
	return all
}

// manyService is the ith of them; other makes its first endpoint another one.
func manyService(i, each, other int) *Service {
	s := &Service{
		Name: fmt.Sprintf("ns/service-%d/http", i), Protocol: 6,
		Frontends: []Frontend{{Addr: netip.AddrFrom4([4]byte{172, 31, byte(i >> 8), byte(i)}), Port: 80, Kind: ClusterIP}},
	}
	for j := range each {
		a := netip.AddrFrom4([4]byte{10, byte(100 + j), byte(i >> 8), byte(i)})
		if j == 0 {
			a = netip.AddrFrom4([4]byte{10, byte(50 + other), byte(i >> 8), byte(i)})
		}
		s.Cluster = append(s.Cluster, netip.AddrPortFrom(a, 8080))
	}
	return s
}

func TestScaleFigures(t *testing.T) {
	for _, size := range []struct{ services, endpoints int }{{20_000, 2}, {10_000, 10}} {
		t.Run(fmt.Sprintf("%dx%d", size.services, size.endpoints), func(t *testing.T) {
			h := netlab.NewHost(t)
			p := newPlane(t, h, Config{})
			all := manyServices(size.services, size.endpoints)
			start := time.Now()
			if err := p.Apply(Changes{Complete: true, Put: all, Node: &Node{}}); err != nil {
				t.Fatal(err)
			}
			t.Logf("cold start: %v", time.Since(start))
			start = time.Now()
			const switches = 100
			for i := range switches {
				if err := p.Apply(Changes{Put: []*Service{manyService(i, size.endpoints, 1)}}); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("switch of one endpoint: %v", time.Since(start)/switches)
			start = time.Now()
			if err := p.Repair(); err != nil {
				t.Fatal(err)
			}
			t.Logf("read and compare: %v", time.Since(start))
			if s := p.Stats(); s.Drift != 0 || s.Rebuilds != 1 {
				t.Errorf("after a repair of nothing: %+v", s)
			}
		})
	}
}
