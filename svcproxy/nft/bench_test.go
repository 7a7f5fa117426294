package nft

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// BenchmarkConnect times connect() to a Pod on another host, directly and by a cluster IP among
// few and many Services.
func BenchmarkConnect(b *testing.B) {
	l := netlab.New(b, 1)
	l.Pods[1][0].Serve(b, 8080)
	p := newPlane(b, l.Nodes[0], Config{})
	service := &Service{
		Name: "bench", Protocol: 6, Cluster: []netip.AddrPort{ap("10.180.1.10:8080")},
		Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 80, Kind: ClusterIP}},
	}
	b.Run("direct", func(b *testing.B) { connects(b, l, "10.180.1.10:8080") })
	for _, n := range []int{10, 20_000} {
		if err := p.Apply(Changes{Complete: true, Node: node, Put: append(manyServices(n, 2), service)}); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { connects(b, l, "172.30.0.1:80") })
	}
}

func connects(b *testing.B, l *netlab.Lab, to string) {
	b.Helper()
	took := make([]time.Duration, 0, b.N)
	l.Pods[0][0].Do(b, func() {
		for b.Loop() {
			began := time.Now()
			c, err := net.Dial("tcp", to)
			took = append(took, time.Since(began))
			if err != nil {
				b.Error(err)
				return
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	})
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
}

// BenchmarkSwitch times the write of one changed endpoint among ten thousand Services of ten.
func BenchmarkSwitch(b *testing.B) {
	p := newPlane(b, netlab.NewHost(b), Config{})
	if err := p.Apply(Changes{Complete: true, Put: manyServices(10_000, 10), Node: node}); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if err := p.Apply(Changes{Put: []*Service{manyService(i%100, 10, 1+(i/100)%50)}}); err != nil {
			b.Fatal(err)
		}
	}
}
