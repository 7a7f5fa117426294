package addresses

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestAdvertisements(t *testing.T) {
	nodes := map[string]map[string]string{"n1": {"rack": "a"}, "n2": {"rack": "b"}, "n3": {"rack": "b"}}
	for _, tt := range []struct {
		name, text string
		want       Advertised
		problems   int
	}{
		{"none", `[]`, Advertised{Nodes: []string{}}, 0},
		{"about all", `[{metadata: {name: x}}]`, Advertised{By: true}, 0},
		{"by name", `[{spec: {ipAddressPools: [p]}}]`, Advertised{By: true}, 0},
		{"of another pool", `[{spec: {ipAddressPools: [q]}}]`, Advertised{Nodes: []string{}}, 0},
		{"by label", `[{spec: {ipAddressPoolSelectors: [{matchLabels: {zone: a}}]}}]`, Advertised{By: true}, 0},
		{"by another label", `[{spec: {ipAddressPoolSelectors: [{matchLabels: {zone: b}}]}}]`, Advertised{Nodes: []string{}}, 0},
		{"some nodes", `[{spec: {nodeSelectors: [{matchLabels: {rack: b}}]}}]`, Advertised{By: true, Nodes: []string{"n2", "n3"}}, 0},
		{"no such node", `[{spec: {nodeSelectors: [{matchLabels: {rack: c}}]}}]`, Advertised{By: true, Nodes: []string{}}, 0},
		{
			"two together", `[{spec: {nodeSelectors: [{matchLabels: {rack: a}}], interfaces: [eth0]}}, {spec: {nodeSelectors: [{matchLabels: {rack: b}}], interfaces: [eth1]}}]`,
			Advertised{By: true, Nodes: []string{"n1", "n2", "n3"}, Interfaces: []string{"eth0"}},
			0,
		},
		{
			"two of this node", `[{spec: {nodeSelectors: [{matchLabels: {rack: a}}], interfaces: [eth0]}}, {spec: {interfaces: [eth1]}}]`,
			Advertised{By: true, Interfaces: []string{"eth0", "eth1"}},
			0,
		},
		{
			"all interfaces of another node", `[{spec: {interfaces: [eth0]}}, {spec: {nodeSelectors: [{matchLabels: {rack: b}}]}}]`,
			Advertised{By: true, Interfaces: []string{"eth0"}},
			0,
		},
		{
			"none of this node", `[{spec: {nodeSelectors: [{matchLabels: {rack: b}}], interfaces: [eth1]}}]`,
			Advertised{By: true, Nodes: []string{"n2", "n3"}, Interfaces: []string{"eth1"}},
			0,
		},
		{"one of all interfaces", `[{spec: {interfaces: [eth0]}}, {}]`, Advertised{By: true}, 0},
		{"one of them wrong", `[{spec: {nodeSelectors: [{matchExpressions: [{key: a, operator: Perhaps}]}]}}, {spec: {interfaces: [eth0]}}]`, Advertised{By: true, Interfaces: []string{"eth0"}}, 1},
		{"interfaces wrong", `[{spec: {interfaces: ["eth[0"]}}, {spec: {interfaces: [""]}}, {spec: {interfaces: ["eth*"]}}]`, Advertised{By: true, Interfaces: []string{"eth*"}}, 2},
		{"for some Services", `[{spec: {serviceSelectors: [{matchLabels: {app: web}}]}}]`, Advertised{Nodes: []string{}}, 1},
		{"pools wrong", `[{spec: {ipAddressPoolSelectors: [{matchExpressions: [{key: a, operator: Perhaps}]}]}}]`, Advertised{Nodes: []string{}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var all []L2Advertisement
			if err := yaml.UnmarshalStrict([]byte(tt.text), &all); err != nil {
				t.Fatal(err)
			}
			problems := 0
			for _, r := range all {
				if _, err := r.Validate(); err != nil {
					problems++
				}
			}
			got := Advertisements(&Pool{Name: "p", Labels: map[string]string{"zone": "a"}}, all, nodes, "n1", true)
			if diff := cmp.Diff(tt.want, got); diff != "" || problems != tt.problems {
				t.Error(diff, problems)
			}
		})
	}
	if got := Advertisements(&Pool{Name: FlagPool}, nil, nodes, "n1", false); !got.By || got.Nodes != nil {
		t.Errorf("the pool of the flags needs no resource: %+v", got)
	}
}
