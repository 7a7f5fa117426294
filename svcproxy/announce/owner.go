package announce

import (
	"bytes"
	"crypto/sha256"
	"net/netip"
	"slices"
)

// Node is what ownership depends on of a node.
type Node struct {
	Name string
	// Alive says that the node's heartbeats arrive.
	Alive bool
	// Excluded is the label node.kubernetes.io/exclude-from-external-load-balancers.
	Excluded bool
	// NetworkUnavailable is the condition of that name.
	NetworkUnavailable bool
	// Draining is a taint that says that the node is not to be relied on: not-ready,
	// unreachable, out-of-service, or the autoscaler's ToBeDeleted; or the node itself said
	// that it stops. A cordoned node (unschedulable) serves on: cordoning is not draining.
	Draining bool
	// Gone says that somebody who knows has declared the node dead: it has the taint
	// node.kubernetes.io/out-of-service. Nothing is waited for that only it could give.
	Gone bool
}

// Claim is one address that wants an owner, and what restricts the choice.
type Claim struct {
	// Key is what is hashed: the first address of the Service, so that both addresses of a
	// dual-stack Service, and all Services that share one, have the same owner.
	Key netip.Addr
	// Local restricts the choice to Serving (externalTrafficPolicy: Local).
	Local bool
	// Serving are the nodes with serving endpoints.
	Serving []string
	// Nodes, if not nil, are the only ones allowed (nodeSelectors of L2Advertisements).
	Nodes []string
	// Interfaces are patterns of the interfaces of this node to announce on; none are all.
	Interfaces []string
}

// Reason says why a node owns an address, or why it does not.
type Reason string

// The reasons there are. Those of a node are in the order in which they are looked for.
const (
	// Owned is the reason of the owner, and of an address that has one.
	Owned Reason = "owner"
	// OwnedRefusing is the same where no endpoint serves anywhere: the owner answers, and its
	// data plane refuses connections, so that clients learn of it at once.
	OwnedRefusing      Reason = "owner, to refuse connections: no endpoint is serving"
	Silent             Reason = "no heartbeats"
	NotSelected        Reason = "not selected by an L2Advertisement"
	Excluded           Reason = "labelled node.kubernetes.io/exclude-from-external-load-balancers"
	NetworkUnavailable Reason = "condition NetworkUnavailable"
	Draining           Reason = "being drained"
	NoEndpoint         Reason = "externalTrafficPolicy is Local, and no serving endpoint is on it"
	Outranked          Reason = "another eligible node comes first"
	// NoNode is the reason of an address that no node is eligible for.
	NoNode Reason = "no node is eligible"
)

// Eligible says whether a node may own the address: Owned, or why not.
func (c Claim) Eligible(n Node) Reason {
	switch {
	case !n.Alive || n.Gone:
		return Silent
	case c.Nodes != nil && !slices.Contains(c.Nodes, n.Name):
		return NotSelected
	case n.Excluded:
		return Excluded
	case n.NetworkUnavailable:
		return NetworkUnavailable
	case n.Draining:
		return Draining
	case c.Local && len(c.Serving) > 0 && !slices.Contains(c.Serving, n.Name):
		return NoEndpoint
	}
	return Owned
}

// Owner is the eligible node that comes first by rendezvous hashing, and so the same one
// wherever it is asked; a node that comes or goes moves its own addresses only. The order is
// that of MetalLB (SHA-256 of node#address, least first), so that a change to Portico moves
// nothing. The hash is written anew, from the description of it.
func (c Claim) Owner(nodes []Node) (string, Reason) {
	var first string
	var least [sha256.Size]byte
	for _, n := range nodes {
		if c.Eligible(n) != Owned {
			continue
		}
		if sum := sha256.Sum256([]byte(n.Name + "#" + c.Key.String())); first == "" || bytes.Compare(sum[:], least[:]) < 0 {
			first, least = n.Name, sum
		}
	}
	switch {
	case first == "":
		return "", NoNode
	case len(c.Serving) == 0:
		return first, OwnedRefusing
	}
	return first, Owned
}

// Why says why a node owns the address or does not, for people.
func (c Claim) Why(node string, nodes []Node) Reason {
	for _, n := range nodes {
		if n.Name != node {
			continue
		}
		if why := c.Eligible(n); why != Owned {
			return why
		}
		owner, why := c.Owner(nodes)
		if owner != node {
			return Outranked
		}
		return why
	}
	return Silent
}
