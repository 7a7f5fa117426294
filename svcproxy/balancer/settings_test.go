package balancer

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
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
	s.Status.Conditions = []metav1.Condition{{Type: addresses.ConditionAssigned, Status: metav1.ConditionTrue}}
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
	gone, changed := balanced("p", "192.0.2.1"), balanced("p", "192.0.2.1")
	gone.DeletionTimestamp = &metav1.Time{}
	changed.Spec.Type = corev1.ServiceTypeClusterIP
	strangers := balanced("p", "192.0.2.1")
	strangers.Annotations = nil
	claimed, another := balanced("p", "192.0.2.1"), balanced("p", "192.0.2.1")
	claimed.Status.Conditions = nil
	another.Status.Conditions[0].Status = metav1.ConditionFalse
	for name, s := range map[string]*corev1.Service{
		"no address": balanced("p"), "being deleted": gone, "not LoadBalancer any more": changed, "of another controller": strangers,
		"by its annotation alone": claimed, "of another load balancer": another,
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

// What is announced is what is served: by class, and, unless it is for a class only, without one.
func TestClasses(t *testing.T) {
	for _, c := range []struct {
		class string
		only  bool
		want  string
	}{
		{"", false, "none portico.dev/l2"},
		{"", true, "portico.dev/l2"},
		{"metallb.io/metallb", false, "metallb.io/metallb none"},
		{"metallb.io/metallb", true, "metallb.io/metallb"},
	} {
		b := &Balancer{cfg: Config{Class: c.class, OnlyClass: c.only}, claims: map[string]serviceClaim{}}
		b.cfg.setDefaults()
		store := manifests.NewStore()
		for _, class := range []string{"", "portico.dev/l2", "metallb.io/metallb", "example.com/cloud"} {
			svc := balanced("p", "192.0.2.1")
			svc.Name = "none"
			if class != "" {
				svc.Spec.LoadBalancerClass, svc.Name = &class, strings.ReplaceAll(class, "/", ".")
			}
			store.Put(svc)
		}
		store.Open()
		change, _ := store.Take()
		dirty := map[string]manifests.Ref{}
		for _, r := range change.Refs {
			dirty[r.Name] = r
		}
		b.reclaim(change.Objects, dirty)
		got := strings.Join(slices.Sorted(maps.Keys(b.claims)), " ")
		if want := strings.ReplaceAll(c.want, "/", "."); got != want {
			t.Errorf("%+v: announced %q", c, got)
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

// What a node is reached at is announced by nobody, whatever a Service or a pool says, and whether or not the node lives.
func TestAddressesOfNodesAreTheirs(t *testing.T) {
	outer := node("b", "192.0.2.101", func(n *corev1.Node) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "192.0.2.1"})
	})
	for ip, want := range map[string]string{
		"192.0.2.100": "192.0.2.100 is an address of node a, so no node announces it",
		"192.0.2.1":   "192.0.2.1 is an address of node b",
		"192.0.2.2":   "",
	} {
		s := settings{nodes: []*corev1.Node{node("a", "192.0.2.100"), outer}}
		claim, _ := claimOf(balanced("p", ip), slices.Values(slicesOf()))
		p := s.pooled(nil)
		got, by, problems := s.desired(&p, map[string]serviceClaim{"default/web": claim})
		if on := want == ""; len(got.Claims) == 1 != on || len(by) == 1 != on || len(problems) == 0 != on || !strings.Contains(fmt.Sprint(problems), want) {
			t.Errorf("%s: announced %v, %v", ip, got.Claims, problems)
		}
	}
}

// Each node announces on the interfaces of the L2Advertisements that select it, and on no others.
func TestInterfacesOfThisNode(t *testing.T) {
	on := func(rack, name string) addresses.L2Advertisement {
		return addresses.L2Advertisement{Spec: addresses.L2AdvertisementSpec{
			Interfaces: []string{name}, NodeSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"rack": rack}}},
		}}
	}
	for self, want := range map[string]string{"a": "eth0", "b": "eth1"} {
		s := settings{
			self: self, nodes: []*corev1.Node{node("a", "192.0.2.100"), node("b", "192.0.2.101")},
			pools: []addresses.IPAddressPool{pool("p", "192.0.2.0/28")}, l2: []addresses.L2Advertisement{on("a", "eth0"), on("b", "eth1")},
		}
		claim, _ := claimOf(balanced("p", "192.0.2.1"), slices.Values(slicesOf()))
		p := s.pooled(nil)
		got, _, _ := s.desired(&p, map[string]serviceClaim{"default/web": claim})
		if c := got.Claims[netip.MustParseAddr("192.0.2.1")]; !slices.Equal(c.Interfaces, []string{want}) || !slices.Equal(c.Nodes, []string{"a", "b"}) {
			t.Errorf("%s: %+v", self, c)
		}
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

// l2 is an L2Advertisement as it comes from the API server.
func l2(name string, spec addresses.L2AdvertisementSpec) resource[addresses.L2Advertisement] {
	meta := metav1.ObjectMeta{Namespace: "metallb", Name: name, UID: "42"}
	return resource[addresses.L2Advertisement]{meta: meta, value: addresses.L2Advertisement{ObjectMeta: meta, Spec: spec}}
}

// A slip of the pen in a pool, an L2Advertisement or the ConfigMap takes no address off the air that was on it.
func TestTyposWithdrawNothing(t *testing.T) {
	perhaps := []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "rack", Operator: "Perhaps"}}}}
	broken := func(spec addresses.IPAddressPoolSpec) resource[addresses.IPAddressPool] {
		meta := metav1.ObjectMeta{Namespace: "metallb", Name: "p", Labels: map[string]string{"zone": "a"}}
		return resource[addresses.IPAddressPool]{meta: meta, value: addresses.IPAddressPool{ObjectMeta: meta, Spec: spec}}
	}
	good := broken(addresses.IPAddressPoolSpec{Addresses: []string{"192.0.2.0/28"}})
	undecodable := good
	undecodable.value, undecodable.err = addresses.IPAddressPool{}, errors.New("of another version")
	zoneA := addresses.L2AdvertisementSpec{IPAddressPoolSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"zone": "a"}}}}
	rackB := addresses.L2AdvertisementSpec{NodeSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"rack": "b"}}}}
	misread := l2("x", rackB)
	misread.value, misread.err = addresses.L2Advertisement{}, errors.New("of another version")
	config := func(text string) []*corev1.ConfigMap {
		return []*corev1.ConfigMap{{Data: map[string]string{"pools": text}}}
	}
	type state struct {
		pools []resource[addresses.IPAddressPool]
		l2    []resource[addresses.L2Advertisement]
		cm    []*corev1.ConfigMap
	}
	for name, c := range map[string]struct {
		before, after state
		nodes         []string
		problem       string
	}{
		"a range of the pool": {
			state{pools: []resource[addresses.IPAddressPool]{good}, l2: []resource[addresses.L2Advertisement]{l2("x", zoneA)}},
			state{
				pools: []resource[addresses.IPAddressPool]{broken(addresses.IPAddressPoolSpec{Addresses: []string{"192.0.2.0/280"}})},
				l2:    []resource[addresses.L2Advertisement]{l2("x", zoneA)},
			},
			nil, `spec.addresses[0]: "192.0.2.0/280" is not`,
		},
		"the pool as a whole": {
			state{pools: []resource[addresses.IPAddressPool]{good}, l2: []resource[addresses.L2Advertisement]{l2("x", zoneA)}},
			state{pools: []resource[addresses.IPAddressPool]{undecodable}, l2: []resource[addresses.L2Advertisement]{l2("x", zoneA)}},
			nil, "IPAddressPool metallb/p: cannot be read: of another version; no address of this pool is given out",
		},
		"nodeSelectors": {
			state{pools: []resource[addresses.IPAddressPool]{good}, l2: []resource[addresses.L2Advertisement]{l2("x", rackB)}},
			state{pools: []resource[addresses.IPAddressPool]{good}, l2: []resource[addresses.L2Advertisement]{l2("x", addresses.L2AdvertisementSpec{NodeSelectors: perhaps})}},
			[]string{"b"},
			`L2Advertisement metallb/x: spec.nodeSelectors: "Perhaps" is not a valid label selector operator; it counts as it was before`,
		},
		"the L2Advertisement as a whole": {
			state{pools: []resource[addresses.IPAddressPool]{good}, l2: []resource[addresses.L2Advertisement]{l2("x", rackB)}},
			state{pools: []resource[addresses.IPAddressPool]{good}, l2: []resource[addresses.L2Advertisement]{misread}},
			[]string{"b"},
			"L2Advertisement metallb/x: of another version; it counts as it was before",
		},
		"the ConfigMap, beside an L2Advertisement of another pool": {
			state{cm: config("p: {addresses: [192.0.2.0/28]}"), l2: []resource[addresses.L2Advertisement]{l2("x", addresses.L2AdvertisementSpec{IPAddressPools: []string{"q"}})}},
			state{cm: config("p: {adresses: [192.0.2.0/28]}"), l2: []resource[addresses.L2Advertisement]{l2("x", addresses.L2AdvertisementSpec{IPAddressPools: []string{"q"}})}},
			nil, "adresses",
		},
		"a pool of the ConfigMap, beside an L2Advertisement of another pool": {
			state{cm: config("p: {addresses: [192.0.2.0/28]}"), l2: []resource[addresses.L2Advertisement]{l2("x", addresses.L2AdvertisementSpec{IPAddressPools: []string{"q"}})}},
			state{cm: config("p: {addresses: [192.0.2.0/280]}"), l2: []resource[addresses.L2Advertisement]{l2("x", addresses.L2AdvertisementSpec{IPAddressPools: []string{"q"}})}},
			nil, "192.0.2.0/280",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var memory lastGood
			claim, _ := claimOf(balanced("p", "192.0.2.1"), slices.Values(slicesOf()))
			for i, state := range []state{c.before, c.after, c.after} {
				s := settings{nodes: []*corev1.Node{node("a", "192.0.2.100"), node("b", "192.0.2.101")}, configMaps: state.cm}
				s.setPools(state.pools)
				s.l2 = memory.heed(&s, state.l2)
				p := s.pooled(nil)
				got, _, unserved := s.desired(&p, map[string]serviceClaim{"default/web": claim})
				one, on := got.Claims[netip.MustParseAddr("192.0.2.1")]
				if !on || !slices.Equal(one.Nodes, c.nodes) || len(unserved) > 0 {
					t.Errorf("%d: announced %v, from %v, want %v; %v", i, on, one.Nodes, c.nodes, unserved)
				}
				if all := fmt.Sprint(append(p.problems, s.problems...)); i > 0 != strings.Contains(all, c.problem) {
					t.Errorf("%d: problems %s, want %s", i, all, c.problem)
				}
			}
		})
	}
}

// An L2Advertisement that never was right, or is gone, does not count.
func TestLastGoodForgets(t *testing.T) {
	bad := l2("x", addresses.L2AdvertisementSpec{Interfaces: []string{"eth[0"}})
	var memory lastGood
	for i, c := range []struct {
		now  []resource[addresses.L2Advertisement]
		want int
		says string
	}{
		{[]resource[addresses.L2Advertisement]{bad}, 0, "it is left out"},
		{[]resource[addresses.L2Advertisement]{l2("x", addresses.L2AdvertisementSpec{})}, 1, ""},
		{[]resource[addresses.L2Advertisement]{bad}, 1, "it counts as it was before"},
		{nil, 0, ""},
		{[]resource[addresses.L2Advertisement]{bad}, 0, "it is left out"},
	} {
		var s settings
		if got := memory.heed(&s, c.now); len(got) != c.want || c.says == "" != (len(s.problems) == 0) || !strings.Contains(fmt.Sprint(s.problems), c.says) {
			t.Errorf("%d: %d count, want %d; %v", i, len(got), c.want, s.problems)
		}
	}
}

// Whoever may make IPAddressPools in a namespace of their own gives out no addresses by that, and no say in who announces which.
func TestResourcesOfOtherNamespaces(t *testing.T) {
	cfg := Config{Namespace: "portico-svcproxy"}
	cfg.setDefaults()
	in := func(namespace string) resource[addresses.IPAddressPool] {
		meta := metav1.ObjectMeta{Namespace: namespace, Name: namespace, UID: "42"}
		return resource[addresses.IPAddressPool]{meta: meta, value: addresses.IPAddressPool{ObjectMeta: meta}}
	}
	var s settings
	kept := within(&s, addresses.KindPool, cfg.PoolNamespaces, []resource[addresses.IPAddressPool]{in("metallb-system"), in("portico-svcproxy"), in("tenant")})
	ref := manifests.Ref{Kind: addresses.KindPool, Namespace: "tenant", Name: "tenant"}
	want := "IPAddressPool tenant/tenant: metadata.namespace: tenant is not a namespace whose IPAddressPools count: those are portico-svcproxy and metallb-system; " +
		"move it there, or start svcproxy with --lb-pool-namespace"
	if got := fmt.Sprint(s.problems); len(kept) != 2 || got != "["+want+"]" || s.uids[ref] != "42" {
		t.Errorf("%d kept; %s %v", len(kept), got, s.uids)
	}
	if kept := within(&s, addresses.KindPool, []string{"tenant"}, []resource[addresses.IPAddressPool]{in("metallb-system"), in("tenant")}); len(kept) != 1 {
		t.Errorf("%d kept", len(kept))
	}
}

// Of two pools of one name the older one counts, and its labels; one of the ConfigMap or of the flags needs no L2Advertisement then.
func TestPoolsOfOneName(t *testing.T) {
	cr := func(namespace, name, addrs string, age int64) addresses.IPAddressPool {
		p := pool(name, addrs)
		p.Namespace, p.Labels, p.CreationTimestamp = namespace, map[string]string{"of": namespace}, metav1.Unix(age, 0)
		return p
	}
	for _, c := range []struct {
		name, of    string
		s           settings
		flags       []string
		problem     string
		by, labeled bool
	}{
		{
			"two namespaces", "p",
			settings{pools: []addresses.IPAddressPool{cr("b", "p", "192.0.2.0/28", 2), cr("a", "p", "198.51.100.0/28", 1)}},
			nil,
			"IPAddressPool b/p: metadata.name: p is the name of an older pool, in namespace a or its ConfigMap", true, true,
		},
		{
			"the older one wrong", "p",
			settings{pools: []addresses.IPAddressPool{cr("a", "p", "198.51.100.0/280", 1), cr("b", "p", "192.0.2.0/28", 2)}},
			nil,
			"IPAddressPool b/p: metadata.name: p is the name of an older pool", true, true,
		},
		{
			"the ConfigMap's", "p",
			settings{
				pools:      []addresses.IPAddressPool{cr("b", "p", "192.0.2.0/28", 2)},
				configMaps: []*corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "a"}, Data: map[string]string{"pools": "p: {addresses: [198.51.100.0/28]}"}}},
			},
			nil,
			"IPAddressPool b/p: metadata.name: p is the name of an older pool, in namespace a or its ConfigMap", true, false,
		},
		{
			"the flag's", "lb-pool",
			settings{pools: []addresses.IPAddressPool{cr("b", "lb-pool", "192.0.2.0/28", 2)}},
			[]string{"198.51.100.0/28"},
			"lb-pool is the name of the pool of --lb-pool", true, false,
		},
		{"one called as the flag's, without the flag", "lb-pool", settings{pools: []addresses.IPAddressPool{cr("a", "lb-pool", "192.0.2.0/28", 2)}}, nil, "", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ofA := addresses.L2AdvertisementSpec{IPAddressPoolSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"of": "a"}}}}
			c.s.l2 = []addresses.L2Advertisement{{Spec: ofA}}
			p := c.s.pooled(c.flags)
			if got := fmt.Sprint(p.problems); !strings.Contains(got, c.problem) || c.problem == "" && len(p.problems) > 0 {
				t.Error(got)
			}
			_, labeled := p.resources[c.of]
			if a := c.s.advertised(&p, c.of); labeled != c.labeled || c.by && !a.By {
				t.Errorf("%+v, a resource: %v", a, labeled)
			}
		})
	}
}
