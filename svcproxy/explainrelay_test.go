package svcproxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// What userspace does otherwise than the kernel is said, what listens agrees, and a connection comes to the same.
func TestExplainUserspace(t *testing.T) {
	h := netlab.New(t, 0).Nodes[0]
	h.Serve(t, 8080)
	for _, address := range []string{"172.30.0.1/32", "172.30.0.2/32", "10.180.0.10/32"} {
		h.Address(t, address)
	}
	own := []netip.Addr{netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("10.180.0.10")}
	c, _, delta := compileAll(t,
		newService("web", "172.30.0.1", func(s *corev1.Service) {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "s", Port: 81, Protocol: corev1.ProtocolSCTP})
		}), newSlice("web", "", "10.180.0.10"),
		newService("empty", "172.30.0.2", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"203.0.113.0/24"}
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "172.30.0.2"}}
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "172.30.0.4", []string{"172.30.0.4"}
		}),
		newService("elsewhere", "172.30.0.3", nil), newSlice("elsewhere", "", "10.180.0.10"))
	plane := startRelay(t, h)
	network := Network{ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16")}}
	if err := plane.Apply(Update{Delta: delta, Network: &network, Complete: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		to       string
		protocol corev1.Protocol
		verdict  Verdict
		text     string
		answer   error
	}{
		{"172.30.0.1:80", corev1.ProtocolTCP, Delivered, "the connection is accepted first", nil},
		{"172.30.0.1:82", corev1.ProtocolTCP, PassedOn, "which has no port 82/TCP but 80/TCP, 81/SCTP (s); nobody of Portico's listens there, and the host refuses", netlab.ErrRefused},
		{"172.30.0.1:81", corev1.ProtocolSCTP, PassedOn, "SCTP is not served in userspace; nftables does", nil},
		{"172.30.0.2:80", corev1.ProtocolTCP, Rejected, "also who is not in source ranges", netlab.ErrRefused},
		{"172.30.0.3:80", corev1.ProtocolTCP, PassedOn, "172.30.0.3 is not an address of this host: in userspace only those are served", nil},
		{"172.30.0.5:80", corev1.ProtocolTCP, PassedOn, "172.30.0.5 is not an address of this host", nil},
	} {
		x := newExplainer(c, network, own)
		x.Userspace = true
		e := x.Explain(Packet{From: netip.MustParseAddr("127.0.0.1"), To: netip.MustParseAddrPort(want.to), Protocol: want.protocol})
		live, err := plane.Look()
		if err != nil {
			t.Fatal(err)
		}
		x.Compare(e, live)
		var text strings.Builder
		_ = e.Write(&text)
		if e.Verdict != want.verdict || !e.Kernel.Agrees || !strings.Contains(text.String(), want.text) {
			t.Errorf("want %s, %s:\n%s", want.verdict, want.text, text.String())
		}
		if want.verdict == PassedOn && want.answer == nil {
			continue // not this host's to answer
		}
		if got, err := h.AskPatiently(t, "tcp", e.Packet.To); !errors.Is(err, want.answer) || want.answer == nil && err != nil {
			t.Errorf("%s: %v, %v", want.to, got, err)
		}
	}
}
