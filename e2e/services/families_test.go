package services

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// One Service in both IP families: its cluster IPs from inside of a Pod and from nodes, its NodePort
// and its load balancer's addresses from outside.
func testBothFamilies(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv6, IPv4]
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8081, protocol: UDP}]
`)
	startPods(t, ns)
	pod := startInside(t, ns)
	s := service(t, ns, "web")
	if len(s.Spec.ClusterIPs) != 2 || !netip.MustParseAddr(s.Spec.ClusterIPs[0]).Is6() {
		t.Fatalf("cluster IPs %v", s.Spec.ClusterIPs)
	}
	for _, ip := range s.Spec.ClusterIPs {
		at := net.JoinHostPort(ip, "80")
		both(t, at+" from a Pod", func(ctx context.Context) (string, error) {
			a, err := pod.ask(ctx, "http://"+at+"/")
			return a.Pod, err
		})
		both(t, at+" from node2", func(ctx context.Context) (string, error) {
			a, err := ask(ctx, httpFrom("node2", 2*time.Second, false), at)
			return a.Pod, err
		})
		both(t, "UDP to "+at+" from node1", func(ctx context.Context) (string, error) {
			who, _, err := askPacket(ctx, "node1", at)
			return who, err
		})
	}
	outside := vips(t, ns, "web", 2)
	for _, node := range up.Nodes() {
		for _, ip := range up.NodeIPs(node) {
			outside = append(outside, net.JoinHostPort(ip.String(), fmt.Sprint(s.Spec.Ports[0].NodePort)))
		}
	}
	for _, at := range outside {
		both(t, at+" from outside", func(ctx context.Context) (string, error) {
			a, err := ask(ctx, httpFrom(cluster.ClientHost, 2*time.Second, false), at)
			return a.Pod, err
		})
	}
}

// vips waits for so many load balancer addresses, one of each pool.
func vips(t *testing.T, namespace, name string, want int) (addresses []string) {
	t.Helper()
	suite.Wait(t, 20*time.Second, fmt.Sprintf("%d addresses for %s", want, name), func(context.Context) string {
		addresses = nil
		for _, in := range service(t, namespace, name).Status.LoadBalancer.Ingress {
			addresses = append(addresses, net.JoinHostPort(in.IP, "80"))
		}
		if len(addresses) != want {
			return fmt.Sprint(addresses)
		}
		return ""
	})
	for _, a := range addresses {
		ip := netip.MustParseAddrPort(a).Addr()
		if !netip.MustParsePrefix(cluster.LoadBalancerCIDR4).Contains(ip) && !netip.MustParsePrefix(cluster.LoadBalancerCIDR6).Contains(ip) {
			t.Errorf("%s is of no pool", ip)
		}
	}
	return addresses
}
