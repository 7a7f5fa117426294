package addresses

import (
	"fmt"
	"path"
	"slices"
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

// Advertisements reads L2Advertisements for one pool. nodes has the labels of all nodes. Where needed is false
// no L2Advertisement has to be about the pool: that is for those of the flags and of a ConfigMap. One that Validate
// refuses is not read.
func Advertisements(p *Pool, resources []L2Advertisement, nodes map[string]map[string]string, needed bool) Advertised {
	if !needed {
		return Advertised{By: true}
	}
	a := Advertised{Nodes: []string{}}
	allNodes, allInterfaces := false, false
	for _, r := range resources {
		if _, err := r.Validate(); err != nil || !r.about(p) {
			continue
		}
		from, _ := readSelectors(r.Spec.NodeSelectors)
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
	return a
}

// Validate says which field cannot be read, and why.
func (r L2Advertisement) Validate() (field string, err error) {
	if _, err := readSelectors(r.Spec.IPAddressPoolSelectors); err != nil {
		return "spec.ipAddressPoolSelectors", err
	}
	if _, err := readSelectors(r.Spec.NodeSelectors); err != nil {
		return "spec.nodeSelectors", err
	}
	for i, pattern := range r.Spec.Interfaces {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return fmt.Sprintf("spec.interfaces[%d]", i), fmt.Errorf("%q is neither the name of an interface nor a pattern like eth*", pattern)
		}
	}
	return "", nil
}

// about says whether an L2Advertisement is about a pool: it names it, or selects it, or does neither of any.
func (r L2Advertisement) about(p *Pool) bool {
	selectors, _ := readSelectors(r.Spec.IPAddressPoolSelectors)
	if len(r.Spec.IPAddressPools) == 0 && len(selectors) == 0 {
		return true
	}
	return slices.Contains(r.Spec.IPAddressPools, p.Name) || anySelects(selectors, p.Labels)
}
