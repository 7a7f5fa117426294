package balancer

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/svcproxy/announce"
)

// drainingTaints say that a node is not to be relied on. That of cordoning is not among them.
var drainingTaints = []string{
	corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeOutOfService,
	"ToBeDeletedByClusterAutoscaler",
}

// nodeOf reads of a Node what the choice of an owner depends on.
func nodeOf(n *corev1.Node) announce.Node {
	_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
	node := announce.Node{Name: n.Name, Excluded: excluded}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionTrue {
			node.NetworkUnavailable = true
		}
	}
	for _, t := range n.Spec.Taints {
		node.Draining = node.Draining || slices.Contains(drainingTaints, t.Key)
		node.Gone = node.Gone || t.Key == corev1.TaintNodeOutOfService
	}
	return node
}

// addressesOf are the internal addresses of a node. Its heartbeats go to the first.
func addressesOf(n *corev1.Node) (all []netip.Addr) {
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			all = append(all, addr.Unmap())
		}
	}
	return all
}

// trimNode keeps what nodeOf, addressesOf and selectors read. Most changes of a Node are of the
// time in its conditions: without that they look like none.
func trimNode(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	t := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, Labels: n.Labels}}
	t.Spec.Taints = n.Spec.Taints
	t.Status.Addresses = n.Status.Addresses
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			t.Status.Conditions = append(t.Status.Conditions, corev1.NodeCondition{Type: c.Type, Status: c.Status})
		}
	}
	return t, nil
}

// differ says whether a change of an object is one of what is read of it.
func differ(before, after any) bool {
	a, isNode := before.(*corev1.Node)
	b, stillIs := after.(*corev1.Node)
	if !isNode || !stillIs {
		return true
	}
	a, b = a.DeepCopy(), b.DeepCopy()
	a.ResourceVersion, b.ResourceVersion = "", ""
	return !equality.Semantic.DeepEqual(a, b)
}
