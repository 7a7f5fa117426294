package addresses

import (
	"errors"
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
	// Interfaces are those of one node that may; none are all.
	Interfaces []string
}

// Advertisements reads L2Advertisements for one pool, as they are for the node self: as in MetalLB, the interfaces of an
// L2Advertisement are those of the nodes that it selects. nodes has the labels of all nodes. Where needed is false
// no L2Advertisement has to be about the pool: that is for those of the flags and of a ConfigMap. One that Validate
// refuses is not read.
func Advertisements(p *Pool, resources []L2Advertisement, nodes map[string]map[string]string, self string, needed bool) Advertised {
	if !needed {
		return Advertised{By: true}
	}
	a := Advertised{Nodes: []string{}}
	allNodes := false
	var here, anywhere interfaces
	for _, r := range resources {
		if _, err := r.Validate(); err != nil || !r.about(p) {
			continue
		}
		from, _ := readSelectors(r.Spec.NodeSelectors)
		a.By = true
		allNodes = allNodes || len(from) == 0
		for name, set := range nodes {
			if anySelects(from, set) && !slices.Contains(a.Nodes, name) {
				a.Nodes = append(a.Nodes, name)
			}
		}
		if anywhere.add(r); len(from) == 0 || anySelects(from, nodes[self]) {
			here.add(r)
		}
	}
	slices.Sort(a.Nodes)
	if allNodes {
		a.Nodes = nil
	}
	if !here.any { // a node that has the address still, until another one has it, answers for it where it did
		here = anywhere
	}
	a.Interfaces = here.names
	return a
}

// interfaces are those of several L2Advertisements together.
type interfaces struct {
	names    []string
	any, all bool
}

func (i *interfaces) add(r L2Advertisement) {
	i.any, i.all = true, i.all || len(r.Spec.Interfaces) == 0
	i.names = append(i.names, r.Spec.Interfaces...)
	if i.all {
		i.names = nil
	}
}

// Validate says which field cannot be read, and why.
func (r L2Advertisement) Validate() (field string, err error) {
	if _, err := readSelectors(r.Spec.IPAddressPoolSelectors); err != nil {
		return "spec.ipAddressPoolSelectors", err
	}
	if _, err := readSelectors(r.Spec.NodeSelectors); err != nil {
		return "spec.nodeSelectors", err
	}
	if len(r.Spec.ServiceSelectors) > 0 {
		return "spec.serviceSelectors", errors.New("is not supported; restrict the pools to the Services instead (serviceAllocation), and name these pools here")
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
