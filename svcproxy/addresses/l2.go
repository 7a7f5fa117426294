package addresses

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/portico-ingress/portico/manifests"
)

// KindL2Advertisement is the kind of an L2Advertisement in a manifests.Ref.
const KindL2Advertisement = "L2Advertisement"

// Advertised says from where the addresses of a pool are announced.
type Advertised struct {
	// By is false if no L2Advertisement is about the pool: nobody announces its addresses.
	By bool
	// Nodes are those that may; nil are all.
	Nodes []string
	// Interfaces are those that may; none are all.
	Interfaces []string
}

// Advertisements reads L2Advertisements for one pool. nodes has the labels of all nodes. The
// pool of the flags needs none, and where needed is false no pool does: that is for clusters
// without the resource, whose pools are in a ConfigMap.
func Advertisements(p *Pool, resources []L2Advertisement, nodes map[string]map[string]string, needed bool) (Advertised, []manifests.Problem) {
	if !needed || p.Name == FlagPool {
		return Advertised{By: true}, nil
	}
	a := Advertised{Nodes: []string{}}
	var problems []manifests.Problem
	allNodes, allInterfaces := false, false
	for _, r := range resources {
		about, err := r.about(p)
		var from []labels.Selector
		if err == nil {
			from, err = readSelectors(r.Spec.NodeSelectors)
		}
		if err != nil {
			problems = append(problems, manifests.Problem{
				Object: manifests.Ref{Kind: KindL2Advertisement, Namespace: r.Namespace, Name: r.Name},
				Text:   fmt.Sprintf("%v; it is left out until that is corrected", err),
			})
			continue
		}
		if !about {
			continue
		}
		a.By = true
		allNodes = allNodes || len(from) == 0
		allInterfaces = allInterfaces || len(r.Spec.Interfaces) == 0
		a.Interfaces = append(a.Interfaces, r.Spec.Interfaces...)
		for name, set := range nodes {
			if anySelects(from, set) && !slices.Contains(a.Nodes, name) {
				a.Nodes = append(a.Nodes, name)
			}
		}
	}
	slices.Sort(a.Nodes)
	if allNodes {
		a.Nodes = nil
	}
	if allInterfaces {
		a.Interfaces = nil
	}
	return a, problems
}

// about says whether an L2Advertisement is about a pool: it names it, or selects it, or does neither of any.
func (r L2Advertisement) about(p *Pool) (bool, error) {
	selectors, err := readSelectors(r.Spec.IPAddressPoolSelectors)
	if err != nil {
		return false, err
	}
	if len(r.Spec.IPAddressPools) == 0 && len(selectors) == 0 {
		return true, nil
	}
	return slices.Contains(r.Spec.IPAddressPools, p.Name) || anySelects(selectors, p.Labels), nil
}
