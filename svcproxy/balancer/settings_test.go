package balancer

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/svcproxy/addresses"
	"github.com/portico-ingress/portico/svcproxy/announce"
)

func node(name, ip string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rack": name}}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}
	for _, c := range change {
		c(n)
	}
	return n
}

func taint(key string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key}) }
}

func TestNodeOf(t *testing.T) {
	for name, c := range map[string]struct {
		node *corev1.Node
		want announce.Node
	}{
		"plain":    {node("a", "192.0.2.1"), announce.Node{}},
		"cordoned": {node("a", "192.0.2.1", taint(corev1.TaintNodeUnschedulable)), announce.Node{}},
		"notReady": {node("a", "192.0.2.1", taint(corev1.TaintNodeNotReady)), announce.Node{Draining: true}},
		"dead":     {node("a", "192.0.2.1", taint(corev1.TaintNodeOutOfService)), announce.Node{Draining: true, Gone: true}},
		"excluded": {node("a", "192.0.2.1", func(n *corev1.Node) { n.Labels[corev1.LabelNodeExcludeBalancers] = "" }), announce.Node{Excluded: true}},
		"no network": {node("a", "192.0.2.1", func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue}}
		}), announce.Node{NetworkUnavailable: true}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Name = "a"
			trimmed, err := trimNode(c.node)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []*corev1.Node{c.node, trimmed.(*corev1.Node)} {
				if diff := cmp.Diff(c.want, nodeOf(n)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// balanced is a Service that was given addresses of a pool.
func balanced(pool string, ips ...string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{addresses.AnnotationFrom: pool}}}
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	for _, ip := range ips {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	return s
}

func endpoint(node string, ready, serving bool) discoveryv1.Endpoint {
	ending := !ready
	return discoveryv1.Endpoint{NodeName: &node, Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &ending}}
}

func slicesOf(all ...discoveryv1.Endpoint) []*discoveryv1.EndpointSlice {
	return []*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: new(int32(80))}}, Endpoints: all}}
}

func TestClaimOf(t *testing.T) {
	foreign, gone, changed := balanced("p", "192.0.2.1"), balanced("p", "192.0.2.1"), balanced("p", "192.0.2.1")
	class := "example.com/cloud"
	foreign.Spec.LoadBalancerClass = &class
	gone.DeletionTimestamp = &metav1.Time{}
	changed.Spec.Type = corev1.ServiceTypeClusterIP
	strangers := balanced("p", "192.0.2.1")
	strangers.Annotations = nil
	for name, s := range map[string]*corev1.Service{
		"no address": balanced("p"), "of another class": foreign, "being deleted": gone, "not LoadBalancer any more": changed, "of another controller": strangers,
	} {
		if c, ok := claimOf(s, slices.Values(slicesOf())); ok {
			t.Errorf("%s: claims %v", name, c)
		}
	}
	for name, c := range map[string]struct {
		endpoints []*discoveryv1.EndpointSlice
		want      []string
	}{
		"ready":                      {slicesOf(endpoint("b", true, true), endpoint("a", true, true), endpoint("a", true, true)), []string{"a", "b"}},
		"one is ending":              {slicesOf(endpoint("a", false, true), endpoint("b", true, true)), []string{"b"}},
		"all are ending, one serves": {slicesOf(endpoint("a", false, true), endpoint("b", false, false)), []string{"a"}},
		"without a node":             {slicesOf(discoveryv1.Endpoint{}), nil},
	} {
		got, ok := claimOf(balanced("p", "192.0.2.1"), slices.Values(c.endpoints))
		if diff := cmp.Diff(c.want, got.serving); !ok || diff != "" {
			t.Errorf("%s: %v %s", name, ok, diff)
		}
	}
}

func pool(name, addrs string) addresses.IPAddressPool {
	p := addresses.IPAddressPool{Spec: addresses.IPAddressPoolSpec{Addresses: []string{addrs}}}
	p.Name = name
	return p
}

func TestDesired(t *testing.T) {
	all := addresses.L2Advertisement{}
	rack := addresses.L2Advertisement{Spec: addresses.L2AdvertisementSpec{
		Interfaces: []string{"eth1"}, NodeSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"rack": "b"}}},
	}}
	addr := netip.MustParseAddr("192.0.2.1")
	for name, c := range map[string]struct {
		s       settings
		flags   []string
		service *corev1.Service
		want    *announce.Claim
		problem string
	}{
		"of a pool, announced from everywhere": {
			settings{pools: []addresses.IPAddressPool{pool("p", "192.0.2.0/28")}, l2: []addresses.L2Advertisement{all}},
			nil,
			balanced("p", "192.0.2.1"), &announce.Claim{Key: addr}, "",
		},
		"from one rack": {
			settings{pools: []addresses.IPAddressPool{pool("p", "192.0.2.0/28")}, l2: []addresses.L2Advertisement{rack}},
			nil,
			balanced("p", "192.0.2.1"), &announce.Claim{Key: addr, Nodes: []string{"b"}, Interfaces: []string{"eth1"}}, "",
		},
		"nobody announces the pool": {
			settings{pools: []addresses.IPAddressPool{pool("p", "192.0.2.0/28")}}, nil, balanced("p", "192.0.2.1"), nil, "no L2Advertisement is about pool p",
		},
		"of the flag's pool, which needs none": {
			settings{l2: []addresses.L2Advertisement{rack}}, []string{"192.0.2.0/28"}, balanced(addresses.FlagPool, "192.0.2.1"), &announce.Claim{Key: addr}, "",
		},
		"of a ConfigMap's, which needs none": {
			settings{configMaps: []*corev1.ConfigMap{{Data: map[string]string{"pools": "p: {addresses: [192.0.2.0/28]}"}}}, l2: []addresses.L2Advertisement{rack}},
			nil,
			balanced("p", "192.0.2.1"), &announce.Claim{Key: addr}, "",
		},
		"of a pool that is gone": {settings{}, nil, balanced("p", "192.0.2.1"), &announce.Claim{Key: addr}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.s.nodes = []*corev1.Node{node("a", "192.0.2.100"), node("b", "192.0.2.101")}
			claim, _ := claimOf(c.service, slices.Values(slicesOf()))
			p := c.s.pooled(c.flags)
			got, by, problems := c.s.desired(&p, map[string]serviceClaim{"default/web": claim})
			want := map[netip.Addr]announce.Claim{}
			if c.want != nil {
				want[addr] = *c.want
				if len(by[addr]) != 1 || by[addr][0].Name != "web" {
					t.Errorf("is for %v", by[addr])
				}
			}
			if diff := cmp.Diff(want, got.Claims, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			if c.problem == "" != (len(problems) == 0) || c.problem != "" && !strings.Contains(problems[0].Text, c.problem) {
				t.Errorf("problems %v, want %q", problems, c.problem)
			}
			b := netip.MustParseAddr("192.0.2.101")
			if len(got.Nodes) != 2 || got.Addresses["b"] != b || !slices.Equal(got.NextHops["b"], []netip.Addr{b}) {
				t.Errorf("nodes %v at %v, reached at %v", got.Nodes, got.Addresses, got.NextHops)
			}
		})
	}
}

// Two Services that share an address have one owner, on a node with endpoints of the Local one.
func TestShared(t *testing.T) {
	s := settings{nodes: []*corev1.Node{node("a", "192.0.2.100")}}
	addr := netip.MustParseAddr("192.0.2.1")
	claims := map[string]serviceClaim{
		"x": {pool: "p", addresses: []netip.Addr{addr}, serving: []string{"a", "b"}},
		"y": {pool: "p", addresses: []netip.Addr{addr}, local: true, serving: []string{"b"}},
	}
	p := s.pooled(nil)
	got, by, _ := s.desired(&p, claims)
	if c := got.Claims[addr]; !c.Local || !slices.Equal(c.Serving, []string{"b"}) || len(by[addr]) != 2 {
		t.Errorf("%+v for %v", c, by[addr])
	}
}
