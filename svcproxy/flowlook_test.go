package svcproxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// longWait is for what has to come, however busy the machine is.
const longWait = 30 * time.Second

// watchFlows runs a FlowWatcher of a host, and beside it a FlowMonitor that hears of ended flows alone, until
// the test ends.
func watchFlows(t *testing.T, h *netlab.Host) (w *FlowWatcher, truth *endedFlows) {
	t.Helper()
	var monitors [2]*nft.FlowMonitor
	var err error
	h.Do(t, func() {
		for i := range monitors {
			if monitors[i], err = nft.NewFlowMonitor(); err != nil {
				return
			}
		}
		err = nft.CountFlows()
	})
	if err != nil {
		t.Fatal(err)
	}
	w, truth = NewFlowWatcher(monitors[0], false, 10, zap.NewNop()), &endedFlows{monitor: monitors[1]}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	running.Go(func() { monitors[1].Listen(ctx, truth.add) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		monitors[0].Close()
		monitors[1].Close()
	})
	return w, truth
}

// endedFlows adds up what the kernel tells of flows that are over.
type endedFlows struct {
	monitor                     *nft.FlowMonitor
	connections, sent, received atomic.Uint64
}

func (e *endedFlows) add(f *nft.Flow) {
	e.sent.Add(f.Sent.Bytes)
	e.received.Add(f.Received.Bytes)
	e.connections.Add(1)
}

// lookNow gives what the one endpoint that there is has had, without waiting until it may be looked at again.
func lookNow(w *FlowWatcher) (sum Traffic) {
	w.looking.Lock()
	w.next = time.Time{}
	w.looking.Unlock()
	all, _ := w.Traffic(func(*Traffic) bool { return true })
	for i := range all {
		sum.Add(&all[i])
	}
	return sum
}

// Connections that last are counted while they do, and when they are over nothing is counted twice: among others that come and
// go while they are looked at all the time.
func TestLiveConnectionsAreCountedOnce(t *testing.T) {
	l := netlab.New(t, 1)
	l.Pods[0][0].Serve(t, 8080)
	node := l.Nodes[0]
	for _, timeout := range []string{"tcp_timeout_close", "tcp_timeout_time_wait", "tcp_timeout_last_ack", "udp_timeout", "udp_timeout_stream"} {
		node.Sysctl(t, "net/netfilter/nf_conntrack_"+timeout, "1")
	}
	w, truth := watchFlows(t, node)
	var plane *nft.Plane
	var err error
	node.Do(t, func() { plane, err = nft.New(nft.Config{}) })
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	vip := netip.MustParseAddrPort("172.30.0.1:80")
	var services []*nft.Service
	for name, protocol := range map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP} {
		services = append(services, &nft.Service{
			Name: name, Protocol: protocol, Cluster: []netip.AddrPort{netip.AddrPortFrom(l.Pods[0][0].IPv4, 8080)},
			Frontends: []nft.Frontend{{Addr: vip.Addr(), Port: vip.Port(), Kind: nft.ClusterIP}},
		})
	}
	if err := plane.Apply(nft.Changes{Complete: true, Node: &nft.Node{}, Put: services}); err != nil {
		t.Fatal(err)
	}

	open, err := l.Client.Dial(t, "tcp", netip.AddrPort{}, vip, longWait)
	if err != nil {
		t.Fatal(err)
	}
	var seen Traffic
	for range 3 { // each look sees what has come since
		if _, err := netlab.Talk(open, longWait); err != nil {
			t.Fatal(err)
		}
		now := lookNow(w)
		if now.Connections != 1 || now.Sent < seen.Sent+6+40 || now.Received < seen.Received+10+40 {
			t.Fatalf("a connection that lasts: %+v after %+v", now, seen)
		}
		seen = now
	}

	const clients, each = 4, 50
	var asking, looking sync.WaitGroup
	asked := make(chan struct{})
	looking.Go(func() {
		for last := (Traffic{}); ; {
			now := lookNow(w)
			if now.Connections < last.Connections || now.Sent < last.Sent || now.Received < last.Received {
				t.Errorf("%+v after %+v", now, last)
			}
			last = now
			select {
			case <-asked:
				return
			default:
			}
		}
	})
	for i := range clients {
		network := []string{"tcp", "udp"}[i%2]
		asking.Go(func() {
			for range each {
				if _, err := l.Client.AskPatiently(t, network, vip); err != nil {
					t.Error(err)
				}
			}
		})
	}
	asking.Wait()
	if _, err := netlab.Talk(open, longWait); err != nil {
		t.Error(err)
	}
	_ = open.Close()
	// Looking makes the kernel look for those that are over.
	for live, deadline := 1, time.Now().Add(longWait); live > 0; {
		live = 0
		if err := truth.monitor.Live(maxLive, func(*nft.Flow) { live++ }, truth.add); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections do not end", live)
		}
	}
	close(asked)
	looking.Wait()
	var got, want Traffic
	for deadline := time.Now().Add(longWait); ; { // a last segment may come again, and be a connection of its own
		got = lookNow(w) // which fetches what there is to be heard of
		want = Traffic{Connections: truth.connections.Load(), Sent: truth.sent.Load(), Received: truth.received.Load()}
		if got == want || time.Now().After(deadline) {
			break
		}
	}
	if got != want || want.Connections < clients*each/2 {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := len(w.traffic.live); n != 0 {
		t.Errorf("%d connections are remembered that are over", n)
	}
}

// BenchmarkLookAtLive times a look at 60,000 connections that last: the kernel's part and ours.
func BenchmarkLookAtLive(b *testing.B) {
	l := netlab.New(b, 1)
	node := l.Nodes[0]
	var m *nft.FlowMonitor
	var plane *nft.Plane
	var err, err2 error
	node.Do(b, func() {
		m, err = nft.NewFlowMonitor()
		plane, err2 = nft.New(nft.Config{})
	})
	if err = errors.Join(err, err2); err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	defer plane.Close()
	vip := netip.MustParseAddrPort("172.30.0.1:53")
	if err := plane.Apply(nft.Changes{Complete: true, Node: &nft.Node{}, Put: []*nft.Service{{
		Name: "dns", Protocol: unix.IPPROTO_UDP, Cluster: []netip.AddrPort{netip.AddrPortFrom(l.Pods[0][0].IPv4, 53)},
		Frontends: []nft.Frontend{{Addr: vip.Addr(), Port: vip.Port(), Kind: nft.ClusterIP}},
	}}}); err != nil {
		b.Fatal(err)
	}
	w := NewFlowWatcher(m, false, 10, zap.NewNop())
	l.Client.Do(b, func() {
		for port := 1024; port < 61_024; port++ {
			c, err := net.DialUDP("udp4", &net.UDPAddr{Port: port}, net.UDPAddrFromAddrPort(vip))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = c.Write([]byte{0})
			_ = c.Close()
		}
	})
	for b.Loop() {
		lookNow(w)
	}
	b.ReportMetric(float64(len(w.traffic.live)), "flows")
}
