package svcproxy

import (
	"net/netip"
	"testing"
)

// A NodePort answers on an address that the node gets later, without any change of the objects.
func TestNodePortOnANewAddress(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		t.Run(familyName(ipv6), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, ipv6, "cluster-cidr $pods")
			w.putServices(t, w.expand("metadata: {name: web}\nspec: {type: NodePort, clusterIP: $vip1, ports: [{port: 80, nodePort: 30080}]}"))
			w.putEndpoints(t, "web 8080 pod0-0")
			w.sync(t)
			address := netip.MustParsePrefix("192.168.0.77/24")
			if ipv6 {
				address = netip.MustParsePrefix("fd00:168::77/64")
			}
			to := netip.AddrPortFrom(address.Addr(), 30080)
			if got, err := w.Client.Ask(t, "tcp", to); err == nil {
				t.Fatalf("before: %v", got)
			}
			w.Nodes[0].Address(t, address.String())
			until(t, "it answers", func() bool { // the client may remember for a second that nobody had it
				got, err := w.Client.Ask(t, "tcp", to)
				return err == nil && got.Server == "pod0-0"
			})
		})
	}
}
