package nft

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// monitorFlows runs a FlowMonitor of a host until the test ends.
func monitorFlows(t testing.TB, h *netlab.Host) (*FlowMonitor, <-chan Flow) {
	t.Helper()
	var m *FlowMonitor
	var err error
	h.Do(t, func() {
		if m, err = NewFlowMonitor(); err == nil {
			err = CountFlows()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, done := make(chan Flow, 1000), make(chan struct{})
	go func() {
		defer close(done)
		m.Listen(ctx, func(f *Flow) { ended <- *f })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		m.Close()
	})
	return m, ended
}

// What becomes of a connection is heard of: who it was from, what it came to, which endpoint it went
// to, how much it carried, and that it was refused or not answered.
func TestFlows(t *testing.T) {
	l := netlab.New(t, 3)
	answers, refuses, silent := l.Pods[0][0], l.Pods[0][1], l.Pods[0][2]
	answers.Serve(t, 8080)
	foreign(t, silent, "add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }")
	n := l.Nodes[0]
	for _, timeout := range []string{"tcp_timeout_close", "tcp_timeout_time_wait", "tcp_timeout_last_ack"} {
		n.Sysctl(t, "net/netfilter/nf_conntrack_"+timeout, "1")
	}
	m, ended := monitorFlows(t, n)
	p := newPlane(t, n, Config{})
	service := func(name, vip string, pod *netlab.Host, v6 bool) *Service {
		return &Service{
			Name: name, Protocol: 6, IPv6: v6, Cluster: []netip.AddrPort{netip.AddrPortFrom(pod.Addr(v6), 8080)},
			Frontends: []Frontend{{Addr: netip.MustParseAddr(vip), Port: 80, Kind: External}},
		}
	}
	apply(t, p, Changes{Complete: true, Node: node, Put: []*Service{
		service("answers", "172.30.0.1", answers, false), service("refuses", "172.30.0.2", refuses, false), service("silent", "172.30.0.3", silent, false),
		service("answers6", "fd00:30::1", answers, true), service("refuses6", "fd00:30::2", refuses, true),
	}})
	// next gives the next flow that has ended. Asking makes the kernel look for those that are over.
	next := func(frontend string) Flow {
		t.Helper()
		for deadline := time.After(30 * time.Second); ; {
			if err := m.Unanswered(func(*Flow) {}); err != nil {
				t.Fatal(err)
			}
			select {
			case f := <-ended:
				if f.Frontend == ap(frontend) {
					return f
				}
			case <-time.After(50 * time.Millisecond):
			case <-deadline:
				t.Fatalf("no flow to %s has ended", frontend)
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		yes, no := "172.30.0.1:80", "172.30.0.2:80"
		if v6 {
			yes, no = "[fd00:30::1]:80", "[fd00:30::2]:80"
		}
		if _, err := l.Client.AskPatiently(t, "tcp", ap(no)); !errors.Is(err, netlab.ErrRefused) {
			t.Fatal(err)
		}
		if f := next(no); !f.Refused() || f.Unanswered() || f.Client.Addr() != l.Client.Addr(v6) || f.Endpoint != netip.AddrPortFrom(refuses.Addr(v6), 8080) {
			t.Errorf("refused: %+v", f)
		}
		if _, err := l.Client.AskPatiently(t, "tcp", ap(yes)); err != nil {
			t.Fatal(err)
		}
		f := next(yes)
		if f.Refused() || f.Unanswered() || !f.Answered || f.Protocol != 6 || f.Endpoint != netip.AddrPortFrom(answers.Addr(v6), 8080) {
			t.Errorf("answered: %+v", f)
		}
		if f.Sent.Packets < 4 || f.Sent.Bytes < 200 || f.Received.Packets < 3 || f.Received.Bytes < 150 {
			t.Errorf("traffic: %+v", f)
		}
	}
	askUnanswered(t, l, m, netip.AddrPortFrom(silent.IPv4, 8080))
	if m.Lost() != 0 {
		t.Errorf("lost %d", m.Lost())
	}
}

// askUnanswered asks the Service that nobody answers for, and nobody else is told of.
func askUnanswered(t *testing.T, l *netlab.Lab, m *FlowMonitor, endpoint netip.AddrPort) {
	t.Helper()
	if _, err := l.Client.Dial(t, "tcp", netip.AddrPort{}, ap("172.30.0.3:80"), netlab.Silence); !errors.Is(err, netlab.ErrSilent) {
		t.Fatal(err)
	}
	var found []Flow
	if err := m.Unanswered(func(f *Flow) { found = append(found, *f) }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Endpoint != endpoint || found[0].ID == 0 {
		t.Errorf("without an answer: %+v", found)
	}
}

// Flows that were not translated are no business of a FlowMonitor, and a flood of those that were
// is counted and survived.
func TestFlowsThatAreTooMany(t *testing.T) {
	l := netlab.New(t, 1)
	l.Pods[0][0].Serve(t, 8080)
	n := l.Nodes[0]
	m := &FlowMonitor{}
	var err error
	n.Do(t, func() {
		if m.conn, err = dial(); err == nil {
			m.events, err = listenFlows()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := unix.SetsockoptInt(m.events, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<10); err != nil { // room for a few
		t.Fatal(err)
	}
	p := newPlane(t, n, Config{})
	apply(t, p, Changes{Complete: true, Node: node, Put: []*Service{{
		Name: "s", Protocol: 6, Cluster: []netip.AddrPort{ap("10.180.0.10:81")},
		Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.1"), Port: 80, Kind: External}},
	}}})
	for range 300 { // refused at once, and nobody listens
		if _, err := l.Client.AskPatiently(t, "tcp", ap("172.30.0.1:80")); !errors.Is(err, netlab.ErrRefused) {
			t.Fatal(err)
		}
		if _, err := l.Client.AskPatiently(t, "tcp", ap("10.180.0.10:81")); !errors.Is(err, netlab.ErrRefused) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	heard, done := make(chan Flow, 1000), make(chan struct{})
	go func() {
		defer close(done)
		m.Listen(ctx, func(f *Flow) { heard <- *f })
	}()
	for range 3 { // some of those that are heard of after the loss
		if f := <-heard; f.Frontend != ap("172.30.0.1:80") {
			t.Fatalf("%+v", f)
		}
	}
	cancel()
	<-done
	if m.Lost() == 0 || len(heard) > 290 {
		t.Errorf("lost %d, heard of %d", m.Lost(), len(heard))
	}
}

// Nothing that a netlink socket gives may end in a panic, or give a flow without addresses.
func FuzzFlow(f *testing.F) {
	tuple := func(typ uint16, src, dst byte) (b []byte) {
		b, at := beginNest(nil, typ)
		b, ip := beginNest(b, ctaTupleIP)
		b = appendAttr(b, ctaIPv4Src, []byte{10, 0, 0, src})
		b = appendAttr(b, ctaIPv4Dst, []byte{10, 0, 0, dst})
		endNest(b, ip)
		b, proto := beginNest(b, ctaTupleProto)
		b = appendAttr(b, ctaProtoNum, []byte{6})
		b = appendAttr(b, ctaProtoSrcPort, []byte{0x1f, 0x90})
		endNest(b, proto)
		endNest(b, at)
		return b
	}
	whole := append(tuple(ctaTupleOrig, 1, 2), tuple(ctaTupleReply, 3, 1)...)
	whole = appendAttrUint32(whole, ctaStatus, ctStatusDNAT)
	if got, ok := parseFlow(whole); !ok || got.Client != ap("10.0.0.1:8080") || got.Endpoint != ap("10.0.0.3:8080") {
		f.Fatalf("%+v %v", got, ok)
	}
	f.Add(whole)
	f.Add(appendAttr(nil, ctaProtoInfo, appendAttr(nil, ctaProtoInfoTCP, appendAttr(nil, ctaProtoInfoTCPStat, []byte{ctStateClose}))))
	f.Fuzz(func(t *testing.T, data []byte) {
		flow, ok := parseFlow(data)
		if ok && (!flow.Client.Addr().IsValid() || !flow.Frontend.Addr().IsValid() || !flow.Endpoint.Addr().IsValid()) {
			t.Errorf("%+v", flow)
		}
	})
}

// An event for each connection is read without garbage.
func BenchmarkFlow(b *testing.B) {
	data := appendAttrUint32(nil, ctaStatus, ctStatusDNAT)
	for range b.N {
		parseFlow(data)
	}
}
