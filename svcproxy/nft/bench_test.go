package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// BenchmarkFlows times connections through a Service that are refused, and so end at once, without and
// with somebody who hears of each end: the difference is what hearing costs, in all.
func BenchmarkFlows(b *testing.B) {
	l := netlab.New(b, 1)
	p := newPlane(b, l.Nodes[0], Config{})
	if err := p.Apply(Changes{Complete: true, Node: node, Put: []*Service{{
		Name: "bench", Protocol: 6, Cluster: []netip.AddrPort{ap("10.180.1.10:8080")},
		Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 80, Kind: ClusterIP}},
	}}}); err != nil {
		b.Fatal(err)
	}
	refused := func(b *testing.B) {
		b.Helper()
		before, took := cpuTime(b), make([]time.Duration, 0, b.N)
		l.Pods[0][0].Do(b, func() {
			for b.Loop() {
				began := time.Now()
				if _, err := net.Dial("tcp", "172.30.0.1:80"); !errors.Is(err, unix.ECONNREFUSED) {
					b.Error(err)
					return
				}
				took = append(took, time.Since(began))
			}
		})
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
		b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "µs-cpu")
	}
	b.Run("alone", refused)
	heard := 0
	m := &FlowMonitor{}
	l.Nodes[0].Do(b, func() {
		var err error
		if m, err = NewFlowMonitor(); err != nil {
			b.Fatal(err)
		}
		if err = CountFlows(); err != nil {
			b.Fatal(err)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Listen(ctx, func(*Flow) { heard++ })
	}()
	b.Run("heard", refused)
	cancel()
	<-done
	m.Close()
	if heard == 0 {
		b.Error("nothing was heard")
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUnanswered times the look for connections without an answer among 60,000 other flows.
func BenchmarkUnanswered(b *testing.B) {
	l := netlab.New(b, 1)
	n := l.Nodes[0]
	p := newPlane(b, n, Config{})
	if err := p.Apply(Changes{Complete: true, Node: node}); err != nil {
		b.Fatal(err)
	}
	var m *FlowMonitor
	var err error
	n.Do(b, func() { m, err = NewFlowMonitor() })
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	crowd(b, l)
	for b.Loop() {
		if err := m.Unanswered(func(*Flow) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// crowd makes 60,000 UDP flows through node 0.
func crowd(b *testing.B, l *netlab.Lab) {
	b.Helper()
	var err error
	l.Pods[0][0].Do(b, func() {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp4", ":0"); err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		for port := range 60_000 {
			_, _ = c.WriteTo([]byte{0}, &net.UDPAddr{IP: l.Client.IPv4.AsSlice(), Port: port + 1})
		}
	})
}

// BenchmarkStaleFlows times the look for flows that lead to an endpoint that is gone, among 60,000 UDP flows.
func BenchmarkStaleFlows(b *testing.B) {
	l := netlab.New(b, 1)
	p := newPlane(b, l.Nodes[0], Config{})
	if err := p.Apply(Changes{Complete: true, Node: node}); err != nil {
		b.Fatal(err)
	}
	crowd(b, l)
	stale := newStaleFlows([]*Service{{Name: "s", Protocol: 6, Frontends: []Frontend{{Port: 30000, Kind: External}}}}, nil)
	for _, protocol := range []uint8{6, 17} {
		b.Run(fmt.Sprintf("protocol=%d", protocol), func(b *testing.B) {
			began := cpuTime(b)
			for b.Loop() {
				if _, err := p.flows.tracked.deleteIf(look{protocol: protocol}, stale.match); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/float64(b.N), "µs-cpu")
		})
	}
}
