package svcproxy

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/svcproxy/nft"
)

func flowOf(frontend, endpoint string, answered bool) *nft.Flow {
	return &nft.Flow{
		Protocol: 6, Frontend: netip.MustParseAddrPort(frontend), Endpoint: netip.MustParseAddrPort(endpoint), Answered: answered,
		Sent: nft.Traffic{Packets: 2, Bytes: 100}, Received: nft.Traffic{Packets: 1, Bytes: 40},
	}
}

// Endpoints are counted up to a number; what is kept no more makes room for others.
func TestEndpointTrafficIsBounded(t *testing.T) {
	w := &FlowWatcher{traffic: newEndpointTraffic(2)}
	for _, endpoint := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"} {
		w.traffic.add(flowOf("172.30.0.1:80", endpoint, endpoint != "10.0.0.2:80"))
	}
	all, uncounted := w.Traffic(func(t *Traffic) bool { return t.Endpoint.Addr() != netip.MustParseAddr("10.0.0.2") })
	if len(all) != 1 || uncounted != 1 {
		t.Fatalf("%+v, uncounted %d", all, uncounted)
	}
	if got := all[0]; got.Connections != 2 || got.Sent != 200 || got.Received != 80 || got.Refused+got.Unanswered != 0 {
		t.Errorf("%+v", got)
	}
	w.traffic.add(flowOf("172.30.0.1:80", "10.0.0.3:80", false))
	all, uncounted = w.Traffic(func(t *Traffic) bool { return t.Endpoint.Addr() != netip.MustParseAddr("10.0.0.1") })
	if len(all) != 1 || all[0].Unanswered != 1 || uncounted != 1 {
		t.Errorf("%+v, uncounted %d", all, uncounted)
	}
	none := newEndpointTraffic(0)
	if none.add(flowOf("172.30.0.1:80", "10.0.0.1:80", true)); len(none.all) > 0 || none.uncounted > 0 {
		t.Error("counted although nobody wants to know")
	}
}

// A connection is told whose it was by the address that the client came to.
func TestPortOfAConnection(t *testing.T) {
	s := newService("s", "172.30.0.1", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	})
	c, _, _ := compileAll(t, s, newSlice("s", "", "10.180.0.10"))
	for to, want := range map[string]string{
		"172.30.0.1:80": "ns/s:/TCP/IPv4", "192.168.0.10:30080": "ns/s:/TCP/IPv4",
		"172.30.0.2:80": "", "192.168.0.10:30081": "", "[fd00::1]:30080": "",
	} {
		got := ""
		if p := c.portAt(netip.MustParseAddrPort(to)); p != nil {
			got = p.Key
		}
		if got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
}
