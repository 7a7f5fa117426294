package svcproxy

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// udpStep is what a UDP Service becomes.
type udpStep struct {
	// endpoints are as flagged has them, with the short names of Pods.
	endpoints string
	zones     []string // of the endpoints, in hints
	local     bool     // externalTrafficPolicy
	internal  bool     // internalTrafficPolicy is Local
	port      int32    // of the endpoints; 0: 8080
}

func (s udpStep) objects(name, clusterIP, externalIP string) []metav1.Object {
	slice := flagged(name, "", addresses.Replace(s.endpoints))
	slice.Ports[0].Protocol = new(corev1.ProtocolUDP)
	if s.port != 0 {
		slice.Ports[0].Port = &s.port
	}
	for i := range slice.Endpoints {
		node := "n"
		if slice.Endpoints[i].Addresses[0][:9] == "10.180.1." {
			node = "another"
		}
		slice.Endpoints[i].NodeName = &node
		if i < len(s.zones) {
			slice.Endpoints[i].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: s.zones[i]}}}
		}
	}
	return []metav1.Object{slice, newService(name, clusterIP, func(v *corev1.Service) {
		v.Spec.ExternalIPs, v.Spec.Ports[0].Protocol = []string{externalIP}, corev1.ProtocolUDP
		if s.internal {
			v.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
		}
		if s.local {
			v.Spec.Type, v.Spec.ExternalTrafficPolicy = "NodePort", "Local"
		}
	})}
}

// A client that goes on sending from one port goes to another endpoint when its own is gone, does not serve
// any more, or has another port, and stays with it for as long as that is ready, whatever new flows do.
func TestUDPFlowsAcrossChanges(t *testing.T) {
	for _, test := range []struct {
		name   string
		client func(*netlab.Lab) *netlab.Host
		to     string // "" is the external IP
		before udpStep
		first  string
		after  udpStep
		then   string
	}{
		{name: "another endpoint", before: udpStep{endpoints: "a0"}, first: "pod0-0", after: udpStep{endpoints: "b0"}, then: "pod1-0"},
		{
			name: "a client that is the node itself", client: func(l *netlab.Lab) *netlab.Host { return l.Nodes[0] },
			before: udpStep{endpoints: "a0"}, first: "pod0-0", after: udpStep{endpoints: "b0"}, then: "pod1-0",
		},
		{
			name: "a client in a Pod", client: func(l *netlab.Lab) *netlab.Host { return l.Pods[0][1] },
			before: udpStep{endpoints: "a0"}, first: "pod0-0", after: udpStep{endpoints: "b0"}, then: "pod1-0",
		},
		{name: "ready at last", before: udpStep{endpoints: "a0,unready"}, after: udpStep{endpoints: "a0"}, then: "pod0-0"},
		{name: "not ready", before: udpStep{endpoints: "a0"}, first: "pod0-0", after: udpStep{endpoints: "a0,unready b0"}, then: "pod1-0"},
		{name: "terminating", before: udpStep{endpoints: "a0"}, first: "pod0-0", after: udpStep{endpoints: "a0,terminating b0"}, then: "pod1-0"},
		{name: "another target port", before: udpStep{endpoints: "a0"}, first: "pod0-0", after: udpStep{endpoints: "a0", port: 8081}, then: "pod0-0:8081"},
		{name: "more endpoints", before: udpStep{endpoints: "b0"}, first: "pod1-0", after: udpStep{endpoints: "a0 b0 b1"}, then: "pod1-0"},
		{name: "hints keep it for another zone", before: udpStep{endpoints: "b0"}, first: "pod1-0", after: udpStep{endpoints: "a0 b0", zones: []string{"za", "zb"}}, then: "pod1-0"},
		{name: "traffic policy Local", before: udpStep{endpoints: "b0"}, first: "pod1-0", after: udpStep{endpoints: "a0 b0", local: true}, then: "pod1-0"},
		{
			name: "internal traffic policy Local", client: func(l *netlab.Lab) *netlab.Host { return l.Pods[0][1] }, to: "172.30.0.1:80",
			before: udpStep{endpoints: "b0"}, first: "pod1-0", after: udpStep{endpoints: "a0 b0", internal: true}, then: "pod1-0",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := netlab.New(t, 2)
			for _, pods := range l.Pods {
				for _, p := range pods {
					p.Serve(t, 8080)
				}
			}
			serveUDP(t, l.Pods[0][0], 8081)
			store, programmed := manifests.NewStore(), make(chan time.Duration, 100)
			store.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "za"}}})
			step := func(s udpStep, canary string) {
				t.Helper()
				store.Update(func(put func(metav1.Object), _ func(manifests.Ref)) {
					for _, o := range append(s.objects("u", "172.30.0.1", "192.0.2.1"), udpStep{endpoints: canary}.objects("canary", "172.30.0.2", "192.0.2.2")...) {
						put(o)
					}
				})
				receive(t, programmed)
			}
			store.Open()
			startController(t, l.Nodes[0], store, nft.Config{}, programmed)
			receive(t, programmed)
			step(test.before, "a1")
			client := l.Client
			if test.client != nil {
				client = test.client(l)
			}
			dial := func(from *netlab.Host, to string) net.Conn {
				t.Helper()
				c, err := from.Dial(t, "udp", netip.AddrPort{}, netip.MustParseAddrPort(to), 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				return c
			}
			flow, canary := dial(client, cmp.Or(test.to, "192.0.2.1:80")), dial(l.Client, "192.0.2.2:80")
			if test.first == "" {
				_, _ = netlab.Talk(flow, netlab.Silence)
			} else if got := talk(t, flow); got != test.first {
				t.Fatalf("at first %s answers, want %s", got, test.first)
			}
			talk(t, canary)
			// When the flow of another Service has moved twice, whatever was stale is gone.
			for _, to := range []string{"b1", "a1"} {
				step(test.after, to)
				until(t, "the other flow moves to "+to, func() bool { return podAddress(talk(t, canary)) == addresses.Replace(to) })
			}
			if got := talk(t, flow); got != test.then {
				t.Errorf("%s answers, want %s", got, test.then)
			}
		})
	}
}

// serveUDP answers with the name of a host and the port.
func serveUDP(t *testing.T, h *netlab.Host, port uint16) {
	t.Helper()
	var c net.PacketConn
	var err error
	h.Do(t, func() { c, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(fmt.Sprintf("%s:%d 192.0.2.9\n", h.Name, port)), from)
		}
	}()
}
