package announce

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestClaimWhy(t *testing.T) {
	alive := func(change func(*Node)) []Node {
		n := Node{Name: "a", Alive: true}
		change(&n)
		return []Node{n}
	}
	same := func(*Node) {}
	for _, tt := range []struct {
		name  string
		claim Claim
		nodes []Node
		want  Reason
	}{
		{"alone", Claim{Serving: []string{"b"}}, alive(same), Owned},
		{"nothing serves", Claim{}, alive(same), OwnedRefusing},
		{"silent", Claim{}, alive(func(n *Node) { n.Alive = false }), Silent},
		{"declared dead, and yet heard", Claim{}, alive(func(n *Node) { n.Gone = true }), Silent},
		{"unknown", Claim{}, []Node{{Name: "b", Alive: true}}, Silent},
		{"excluded by its label", Claim{}, alive(func(n *Node) { n.Excluded = true }), Excluded},
		{"no network", Claim{}, alive(func(n *Node) { n.NetworkUnavailable = true }), NetworkUnavailable},
		{"drained", Claim{}, alive(func(n *Node) { n.Draining = true }), Draining},
		{"not selected", Claim{Nodes: []string{"b"}}, alive(same), NotSelected},
		{"none is selected", Claim{Nodes: []string{}}, alive(same), NotSelected},
		{"selected", Claim{Nodes: []string{"a"}, Serving: []string{"a"}}, alive(same), Owned},
		{"Local, endpoint here", Claim{Local: true, Serving: []string{"a"}}, alive(same), Owned},
		{"Local, endpoint there", Claim{Local: true, Serving: []string{"b"}}, alive(same), NoEndpoint},
		{"Local, endpoint nowhere", Claim{Local: true}, alive(same), OwnedRefusing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.claim.Key = vip4
			if got := tt.claim.Why("a", tt.nodes); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A node that goes moves its own addresses and no others, and the rest are spread evenly.
func TestClaimOwnerIsStable(t *testing.T) {
	var nodes []Node
	for i := range 5 {
		nodes = append(nodes, Node{Name: fmt.Sprint("node", i), Alive: true})
	}
	share := map[string]int{}
	for i := range 1000 {
		c := Claim{Key: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		before, _ := c.Owner(nodes)
		share[before]++
		for gone := range nodes {
			nodes[gone].Alive = false
			if after, _ := c.Owner(nodes); before != nodes[gone].Name && after != before {
				t.Fatalf("%s moved from %s to %s because %s is gone", c.Key, before, after, nodes[gone].Name)
			}
			nodes[gone].Alive = true
		}
	}
	for _, n := range nodes {
		if share[n.Name] < 150 || share[n.Name] > 250 {
			t.Errorf("%s has %d of 1000", n.Name, share[n.Name])
		}
	}
	if owner, why := (Claim{Key: vip4}).Owner(nil); owner != "" || why != NoNode {
		t.Errorf("without nodes: %q, %q", owner, why)
	}
}
