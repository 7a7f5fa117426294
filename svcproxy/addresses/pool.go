package addresses

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/portico-ingress/portico/manifests"
)

// KindPool is the kind of an IPAddressPool in a manifests.Ref.
const KindPool = "IPAddressPool"

// FlagPool is the name of the pool that the flags make.
const FlagPool = "lb-pool"

// Pool is a set of addresses, ready to be given out.
type Pool struct {
	Name   string
	Object manifests.Ref
	Labels map[string]string

	ranges     []ipRange
	autoAssign bool
	avoidBuggy bool
	priority   int
	pinned     bool
	namespaces []string
	nsSelect   []labels.Selector
	svcSelect  []labels.Selector
	// next is the first address that may be free, by family: all before it are taken. It makes
	// looking cost nothing, in a full pool too.
	next [2]netip.Addr
}

// NewPools makes pools of IPAddressPools and of the ranges that flags give. A pool that cannot
// be read whole is left out whole, and so is one that overlaps with an older one, or is called as one.
func NewPools(resources []IPAddressPool, flags []string) ([]*Pool, []manifests.Problem) {
	var pools []*Pool
	var problems []manifests.Problem
	resources = slices.Clone(resources)
	slices.SortFunc(resources, func(a, b IPAddressPool) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	if len(flags) > 0 {
		resources = append([]IPAddressPool{{ObjectMeta: metav1.ObjectMeta{Name: FlagPool}, Spec: IPAddressPoolSpec{Addresses: flags}}}, resources...)
	}
	named := map[string]IPAddressPool{}
	for _, r := range resources {
		p, field, err := newPool(r)
		if other, taken := named[r.Name]; taken {
			field, err = "metadata.name", sameName(other)
		} else {
			named[r.Name] = r
		}
		if err == nil {
			field, err = "spec.addresses", overlapping(p, pools)
		}
		if err != nil {
			problems = append(problems, manifests.Problem{
				Object: manifests.Ref{Kind: KindPool, Namespace: r.Namespace, Name: r.Name}, Field: field,
				Text: err.Error() + "; no address of this pool is given out until that is corrected",
			})
			continue
		}
		pools = append(pools, p)
	}
	slices.SortFunc(pools, func(a, b *Pool) int { return cmp.Compare(a.Name, b.Name) })
	return pools, problems
}

// sameName: Services and L2Advertisements name a pool by its name alone. The older one has it, also while it is wrong otherwise.
func sameName(other IPAddressPool) error {
	if other.Namespace == "" {
		return fmt.Errorf("%s is the name of the pool of --lb-pool; give this one another", other.Name)
	}
	return fmt.Errorf("%s is the name of an older pool, in namespace %s or its ConfigMap; give one of them another", other.Name, other.Namespace)
}

func newPool(r IPAddressPool) (*Pool, string, error) {
	p := &Pool{
		Name: r.Name, Labels: r.Labels, Object: manifests.Ref{Kind: KindPool, Namespace: r.Namespace, Name: r.Name},
		autoAssign: r.Spec.AutoAssign == nil || *r.Spec.AutoAssign, avoidBuggy: r.Spec.AvoidBuggyIPs,
	}
	for i, text := range r.Spec.Addresses {
		one, err := parseRange(text)
		if err != nil {
			return nil, fmt.Sprintf("spec.addresses[%d]", i), err
		}
		p.ranges = append(p.ranges, one)
	}
	if len(p.ranges) == 0 {
		return nil, "spec.addresses", fmt.Errorf("there are no addresses in it")
	}
	p.ranges = sortRanges(p.ranges)
	return p.restrict(r.Spec.ServiceAllocation)
}

func (p *Pool) restrict(a *ServiceAllocation) (*Pool, string, error) {
	if a == nil {
		return p, "", nil
	}
	p.priority, p.namespaces = a.Priority, a.Namespaces
	p.pinned = len(a.Namespaces)+len(a.NamespaceSelectors)+len(a.ServiceSelectors) > 0
	if a.Priority < 0 {
		return nil, "spec.serviceAllocation.priority", fmt.Errorf("%d is less than 0", a.Priority)
	}
	for _, kind := range []struct {
		field string
		from  []metav1.LabelSelector
		to    *[]labels.Selector
	}{{"namespaceSelectors", a.NamespaceSelectors, &p.nsSelect}, {"serviceSelectors", a.ServiceSelectors, &p.svcSelect}} {
		selectors, err := readSelectors(kind.from)
		if err != nil {
			return nil, "spec.serviceAllocation." + kind.field, err
		}
		*kind.to = selectors
	}
	return p, "", nil
}

func readSelectors(from []metav1.LabelSelector) ([]labels.Selector, error) {
	var all []labels.Selector
	for i := range from {
		s, err := metav1.LabelSelectorAsSelector(&from[i])
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func overlapping(p *Pool, others []*Pool) error {
	for _, o := range others {
		for _, a := range p.ranges {
			for _, b := range o.ranges {
				if a.overlaps(b) {
					return fmt.Errorf("%s overlaps with %s of pool %s, which is older", a, b, o.Name)
				}
			}
		}
	}
	return nil
}

// contains says whether an address is in the pool, and may be given out.
func (p *Pool) contains(a netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r ipRange) bool { return r.contains(a) }) && (!p.avoidBuggy || !buggy(a))
}

// serves says whether a Service may have addresses of the pool; if not, why.
func (p *Pool) serves(svc *corev1.Service, namespaceLabels map[string]string) (bool, string) {
	if len(p.namespaces)+len(p.nsSelect) > 0 && !slices.Contains(p.namespaces, svc.Namespace) && !anySelects(p.nsSelect, namespaceLabels) {
		return false, "is not for namespace " + svc.Namespace
	}
	if len(p.svcSelect) > 0 && !anySelects(p.svcSelect, svc.Labels) {
		return false, "does not select this Service by its labels"
	}
	return true, ""
}

func anySelects(selectors []labels.Selector, set map[string]string) bool {
	return slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(set)) })
}

// free finds the first address of a family that taken does not say is taken.
func (p *Pool) free(v6 bool, taken func(netip.Addr) bool) (netip.Addr, bool) {
	hint := &p.next[family(v6)]
	for _, r := range p.ranges {
		if r.first.Is6() != v6 || hint.IsValid() && r.last.Less(*hint) {
			continue
		}
		a := r.first
		if hint.IsValid() && a.Less(*hint) {
			a = *hint
		}
		for ; r.contains(a); a = a.Next() {
			if (!p.avoidBuggy || !buggy(a)) && !taken(a) {
				*hint = a
				return a, true
			}
		}
		*hint = a
		if !a.IsValid() { // the last address that there is
			*hint = r.last
		}
	}
	return netip.Addr{}, false
}

// released takes back an address: an address may be free before the one that was the first.
func (p *Pool) released(a netip.Addr) {
	if hint := &p.next[family(a.Is6())]; hint.IsValid() && a.Less(*hint) {
		*hint = a
	}
}

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func (p *Pool) String() string {
	var all []string
	for _, r := range p.ranges {
		all = append(all, r.String())
	}
	return p.Name + " (" + strings.Join(all, ", ") + ")"
}
