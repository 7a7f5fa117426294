package svcproxy

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// What the data plane in userspace has counted is told in the words of the kernel's.
func TestRelayCounts(t *testing.T) {
	l := netlab.New(t, 1)
	node := l.Nodes[0]
	l.Pods[0][0].Serve(t, 8080)
	vip := func(s *corev1.Service, ip, source string) {
		s.Spec.Type, s.Spec.Ports[0].Protocol = corev1.ServiceTypeLoadBalancer, corev1.ProtocolUDP
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
		s.Spec.LoadBalancerSourceRanges = []string{source}
		node.Address(t, ip+"/32")
	}
	in := newService("in", "172.30.0.8", func(s *corev1.Service) { vip(s, "192.0.2.1", "192.168.0.0/24") })
	out := newService("out", "172.30.0.9", func(s *corev1.Service) { vip(s, "192.0.2.2", "203.0.113.0/24") })
	inSlice, outSlice := newSlice("in", "", l.Pods[0][0].IPv4.String()), newSlice("out", "", l.Pods[0][0].IPv4.String())
	*inSlice.Ports[0].Protocol, *outSlice.Ports[0].Protocol = corev1.ProtocolUDP, corev1.ProtocolUDP
	_, _, delta := compileAll(t, in, out, inSlice, outSlice)
	plane := startRelay(t, node)
	if err := plane.Apply(Update{Delta: delta, Network: &Network{}, Complete: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client.AskPatiently(t, "udp", netip.MustParseAddrPort("192.0.2.1:80")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client.Ask(t, "udp", netip.MustParseAddrPort("192.0.2.2:80")); !errors.Is(err, netlab.ErrSilent) {
		t.Fatal(err)
	}
	counts, _ := plane.Counters()
	got := map[string]uint64{}
	for _, c := range counts {
		if c.Protocol != 17 || c.IPv6 || c.Port != 80 || c.Kind != nft.External {
			t.Errorf("%+v", c)
		}
		if c.Connections > 0 {
			got[c.Addr.String()] = c.Connections
		}
	}
	reasons, _ := plane.Reasons()
	denied, _ := plane.Denied()
	for what, both := range map[string][2]any{
		"counters": {got, map[string]uint64{"192.0.2.1": 1, "192.0.2.2": 1}},
		"reasons":  {reasons, map[nft.Reason]uint64{nft.SourceRanges: 1, nft.NoLocalEndpoint: 0, nft.Policy: 0}},
		"denied":   {denied, map[string]uint64{"ns/out:/UDP/IPv4": 1}},
	} {
		if diff := cmp.Diff(both[1], both[0], cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	all, uncounted := plane.Traffic(func(*Traffic) bool { return true })
	if len(all) != 0 || uncounted != 0 {
		t.Errorf("counted although nobody asked for it: %+v", all)
	}
}
