package addresses

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/manifests"
)

// Fields of problems about an address that a Service has, and not about one that it wants: one of ours that is in no pool, and one
// of another load balancer.
const (
	fieldStatus  = "status.loadBalancer"
	fieldForeign = "status.loadBalancer.ingress"
)

// Decision is what a Service gets.
type Decision struct {
	// Addresses, the one of the Service's first family first. Without any, the Service waits.
	Addresses []netip.Addr
	// Pool is the one that they are from; "" if it is no more.
	Pool string
	// Problems are about this Service.
	Problems []manifests.Problem

	// leaving are addresses that it had, and that may be in its status still.
	leaving []netip.Addr
	// deferred: it wants others by now, of which is decided when these are in its status.
	deferred bool
	// foreign: the addresses in its status are another load balancer's, and stay there.
	foreign bool
}

// Allocator knows which Service has which addresses. Its cost per Service does not depend on
// how many there are. It is for one goroutine.
type Allocator struct {
	// Class is the loadBalancerClass that Portico serves.
	Class string
	// Default says that Services without a class are Portico's.
	Default bool

	pools    []*Pool
	users    map[netip.Addr]map[types.NamespacedName]use
	services map[types.NamespacedName]Decision
	// shared has the addresses that are shared under a key.
	shared map[shareKey]map[netip.Addr]int
}

// use is one Service's part in an address.
type use struct {
	share shareKey
	ports []portKey
	// leaving: it gives the address up, or may never have had it. Nobody gets it who does not have it already.
	leaving bool
}

// SetPools replaces the pools. No address that a Service has is taken away by that.
func (a *Allocator) SetPools(pools []*Pool) { a.pools = pools }

// Serves says whether a Service is Portico's to give addresses to.
func (a *Allocator) Serves(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.DeletionTimestamp == nil && a.serves(svc.Spec.LoadBalancerClass)
}

func (a *Allocator) serves(class *string) bool {
	if class == nil {
		return a.Default
	}
	return *class == a.Class
}

// leaves says whether a Service is of a class that others serve, who may be another Portico: what it has is theirs. One that is being
// deleted is let go by whoever reads in its status that it was a Portico's; users, who write the annotation, do not write that.
func (a *Allocator) leaves(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && !a.serves(svc.Spec.LoadBalancerClass) &&
		(svc.DeletionTimestamp == nil || !Explained(svc))
}

// Begin takes over what Services have that nothing was decided about yet, oldest first, before anything new is given
// out: a new leader decides as the old one did.
func (a *Allocator) Begin(services []*corev1.Service, namespaceLabels func(string) map[string]string) {
	services = slices.Clone(services)
	slices.SortStableFunc(services, func(x, y *corev1.Service) int {
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	for _, svc := range services {
		if a.Serves(svc) {
			a.takeOver(svc, namespaceLabels(svc.Namespace))
		} else {
			a.leave(svc)
		}
	}
}

// leave keeps what is in the status of a Service that is not ours, and may be from us, from being given to others.
func (a *Allocator) leave(svc *corev1.Service) {
	name := nameOf(svc)
	a.Release(name)
	if _, marked := svc.Annotations[AnnotationFrom]; marked {
		a.linger(name, Decision{Addresses: addressesOf(svc)})
	}
}

// takeOver records what a Service has. What it was given stays its own also if what it asks for now
// cannot be read or had: Allocate would have left it to it, too.
func (a *Allocator) takeOver(svc *corev1.Service, namespaceLabels map[string]string) {
	r, err := readRequest(svc)
	if err == nil {
		if d, ok := a.keep(svc, r, namespaceLabels); ok {
			a.record(nameOf(svc), r, d)
			return
		}
	}
	pool, given := allocatedFrom(svc)
	had := Decision{Addresses: addressesOf(svc), Pool: pool}
	if given && len(had.Addresses) > 0 && (err != nil || r.wishes()) && a.undisputed(had, r) {
		a.record(nameOf(svc), r, had)
	}
}

func nameOf(svc *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
}

// Allocate decides about one Service. A Service that has addresses keeps them, unless it asks
// for others or is not entitled to them.
func (a *Allocator) Allocate(svc *corev1.Service, namespaceLabels map[string]string) Decision {
	name := nameOf(svc)
	had := a.services[name]
	if !a.Serves(svc) {
		a.Release(name)
		return Decision{}
	}
	d := a.decide(svc, had, namespaceLabels)
	if len(had.leaving) > 0 && !within(d, had) {
		// What was decided before is written first: else one Service could have the whole pool held for it.
		a.restore(name, had)
		return Decision{Addresses: had.Addresses, Pool: had.Pool, deferred: true}
	}
	return d
}

// within says whether all that was decided is held already.
func within(d, had Decision) bool {
	held := slices.Concat(had.Addresses, had.leaving)
	return !slices.ContainsFunc(d.Addresses, func(addr netip.Addr) bool { return !slices.Contains(held, addr) })
}

// decide finds what a Service that is ours gets now, and records it.
func (a *Allocator) decide(svc *corev1.Service, had Decision, namespaceLabels map[string]string) Decision {
	name := nameOf(svc)
	r, err := readRequest(svc)
	if err != nil {
		// What it has, it keeps: a slip of the pen takes nothing off the air.
		return Decision{Addresses: had.Addresses, Pool: had.Pool, Problems: []manifests.Problem{a.problem(svc, r.field, keeping(err, had))}}
	}
	a.Release(name)
	if a.foreign(svc, r, had) {
		return Decision{foreign: true, Problems: []manifests.Problem{a.problem(svc, fieldForeign, errForeign)}}
	}
	if len(had.Addresses) > 0 {
		svc, r.given, r.had = withStatus(svc, had), true, had.Addresses
	}
	d, ok := a.keep(svc, r, namespaceLabels)
	if ok {
		d = a.complete(svc, r, d)
	} else {
		d = a.assign(svc, r, had, namespaceLabels)
	}
	if len(d.Addresses) > 0 {
		a.record(name, r, d)
	}
	return d
}

var errForeign = errors.New("it is another load balancer's, which is left alone; to have an address of Portico's instead, " +
	"have that one leave this Service alone, and give it the annotation metallb.io/address-pool")

// foreign says whether another load balancer serves a Service: its status has an address that is in no pool and was not given by us, also
// if that was written over ours, and nobody asks for one of ours. To write another one would only begin a duel.
func (a *Allocator) foreign(svc *corev1.Service, r request, had Decision) bool {
	ours := slices.Concat(had.Addresses, had.leaving)
	if r.wishes() || svc.Spec.LoadBalancerClass != nil || r.given && len(ours) == 0 {
		return false
	}
	return slices.ContainsFunc(svc.Status.LoadBalancer.Ingress, func(in corev1.LoadBalancerIngress) bool {
		addr, err := netip.ParseAddr(in.IP)
		return err != nil || a.poolOf(addr) == nil && !slices.Contains(ours, addr)
	})
}

// mayStay says whether a Service whose new wish cannot be granted goes on with what it has: if
// the wish is for an address or a pool, and nobody is in the way of the old one.
func (a *Allocator) mayStay(had Decision, r request) bool {
	return r.wishes() && a.undisputed(had, r)
}

// wishes says whether the Service asks for an address or a pool.
func (r request) wishes() bool { return len(r.ips) > 0 || r.pool != "" }

// undisputed says whether nobody and nothing but its own wish is in the way of what a Service has.
func (a *Allocator) undisputed(had Decision, r request) bool {
	return !slices.ContainsFunc(had.Addresses, func(addr netip.Addr) bool {
		return addr.Is4() && !r.v4 || addr.Is6() && !r.v6 || a.unavailable(addr, r) != nil
	})
}

func keeping(err error, had Decision) error {
	if len(had.Addresses) == 0 {
		return fmt.Errorf("%w; the Service gets no address until that is corrected", err)
	}
	return fmt.Errorf("%w; the Service keeps %s until that is corrected", err, join(had.Addresses))
}

// withStatus is the Service as if what was decided were in its status already.
func withStatus(svc *corev1.Service, d Decision) *corev1.Service {
	c := *svc
	c.Status.LoadBalancer.Ingress = nil
	for _, addr := range d.Addresses {
		c.Status.LoadBalancer.Ingress = append(c.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: addr.String()})
	}
	return &c
}

func (a *Allocator) problem(svc *corev1.Service, field string, err error) manifests.Problem {
	return manifests.Problem{
		Object: manifests.Ref{Kind: manifests.KindService, Namespace: svc.Namespace, Name: svc.Name},
		Field:  field, Text: err.Error(),
	}
}

// Release gives back what a Service has.
func (a *Allocator) Release(name types.NamespacedName) {
	had := a.services[name]
	for _, addr := range slices.Concat(had.Addresses, had.leaving) {
		users := a.users[addr]
		a.unshare(users[name].share, addr)
		delete(users, name)
		if len(users) == 0 {
			delete(a.users, addr)
			for _, p := range a.pools {
				p.released(addr)
			}
		}
	}
	delete(a.services, name)
}

func (a *Allocator) unshare(key shareKey, addr netip.Addr) {
	if a.shared[key][addr]--; a.shared[key][addr] <= 0 {
		delete(a.shared[key], addr)
	}
	if len(a.shared[key]) == 0 {
		delete(a.shared, key)
	}
}

// linger keeps what a Service had from being given to others until it is released, beside what it has now.
func (a *Allocator) linger(name types.NamespacedName, had Decision) {
	now := a.services[name]
	for _, addr := range slices.Concat(had.Addresses, had.leaving) {
		if !slices.Contains(now.Addresses, addr) && !slices.Contains(now.leaving, addr) {
			now.leaving = append(slices.Clip(now.leaving), addr)
			a.hold(addr, name, use{leaving: true})
		}
	}
	if len(now.leaving) > 0 {
		a.services[name] = now
	}
}

// restore makes what a Service had its own again. What it has decided since then is free.
func (a *Allocator) restore(name types.NamespacedName, had Decision) {
	a.Release(name)
	for _, addr := range slices.Concat(had.Addresses, had.leaving) {
		a.hold(addr, name, use{leaving: true})
		a.services[name] = had
	}
}

// arrived says that a Service has in its status what was decided, and nothing else.
func (a *Allocator) arrived(name types.NamespacedName) {
	if now := a.services[name]; len(now.leaving) > 0 {
		a.Release(name)
		now.leaving = nil
		a.restore(name, now)
	}
}

func (a *Allocator) record(name types.NamespacedName, r request, d Decision) {
	for _, addr := range d.Addresses {
		a.hold(addr, name, use{share: r.share, ports: r.ports})
	}
	a.services[name] = d
}

func (a *Allocator) hold(addr netip.Addr, name types.NamespacedName, u use) {
	if a.users == nil {
		a.users = map[netip.Addr]map[types.NamespacedName]use{}
		a.services = map[types.NamespacedName]Decision{}
		a.shared = map[shareKey]map[netip.Addr]int{}
	}
	if a.users[addr] == nil {
		a.users[addr] = map[types.NamespacedName]use{}
	}
	a.users[addr][name] = u
	if a.shared[u.share] == nil {
		a.shared[u.share] = map[netip.Addr]int{}
	}
	a.shared[u.share][addr]++
}

// keep finds what the Service has, if it may go on having it.
func (a *Allocator) keep(svc *corev1.Service, r request, namespaceLabels map[string]string) (Decision, bool) {
	var d Decision
	for _, in := range svc.Status.LoadBalancer.Ingress {
		addr, err := netip.ParseAddr(in.IP)
		if err != nil || addr.Is4() && !r.v4 || addr.Is6() && !r.v6 {
			return d, false
		}
		if len(r.ips) > 0 && !slices.Contains(r.ips, addr) || a.unavailable(addr, r) != nil {
			return d, false
		}
		d.Addresses = append(d.Addresses, addr)
	}
	if len(d.Addresses) == 0 || r.both && len(d.Addresses) < 2 || len(r.ips) > len(d.Addresses) {
		return d, false
	}
	p := a.poolOf(d.Addresses[0])
	if p == nil {
		d.Problems = append(d.Problems, a.problem(svc, fieldStatus, fmt.Errorf(
			"%s is in no pool any more; the Service keeps it, and gets another one as soon as an annotation asks for that", join(d.Addresses))))
		return d, r.pool == "" && r.given
	}
	if ok, _ := p.serves(svc, namespaceLabels); !ok || r.pool != "" && r.pool != p.Name {
		return d, false
	}
	d.Pool = p.Name
	return d, true
}

// complete adds the address of the family that a Service has none of, if its pool has one: a Service that becomes
// dual-stack by PreferDualStack has asked for it. One that names its addresses has those.
func (a *Allocator) complete(svc *corev1.Service, r request, d Decision) Decision {
	p := a.poolOf(d.Addresses[0])
	if !r.v4 || !r.v6 || len(r.ips) > 0 || len(d.Addresses) > 1 || p == nil {
		return d
	}
	if addr, ok := a.one(p, r, d.Addresses[0].Is4()); ok {
		d.Addresses = append(d.Addresses, addr)
		if addr.Is6() == order(svc, r)[0] {
			slices.Reverse(d.Addresses)
		}
	}
	return d
}

func (a *Allocator) poolOf(addr netip.Addr) *Pool {
	for _, p := range a.pools {
		if p.contains(addr) {
			return p
		}
	}
	return nil
}

// unavailable says why an address cannot be had together with those who have it.
func (a *Allocator) unavailable(addr netip.Addr, r request) error {
	for _, other := range a.usersOf(addr) {
		theirs := a.users[addr][other]
		switch {
		case theirs.leaving && slices.Contains(r.had, addr):
			continue // who shares it keeps it, whatever becomes of the other one
		case theirs.leaving:
			return fmt.Errorf("%s is that of Service %s still, which gives it up", addr, other)
		case r.share.key == "" || theirs.share.key == "":
			return fmt.Errorf("%s is that of Service %s; to share it, give both the same annotation metallb.io/allow-shared-ip", addr, other)
		case r.share.key != theirs.share.key:
			return fmt.Errorf("%s is shared by Service %s under another key (metallb.io/allow-shared-ip)", addr, other)
		case r.share.backends != theirs.share.backends:
			return fmt.Errorf("%s cannot be shared with Service %s: with externalTrafficPolicy Local both must select the same Pods", addr, other)
		}
		for _, p := range r.ports {
			if slices.Contains(theirs.ports, p) {
				return fmt.Errorf("port %d/%s of %s is that of Service %s; take another port or another address", p.port, p.protocol, addr, other)
			}
		}
	}
	return nil
}

// usersOf are the Services that have an address, in one order always.
func (a *Allocator) usersOf(addr netip.Addr) []types.NamespacedName {
	return slices.SortedFunc(maps.Keys(a.users[addr]), func(x, y types.NamespacedName) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
}

// assign finds new addresses, or leaves the Service what it had.
func (a *Allocator) assign(svc *corev1.Service, r request, had Decision, namespaceLabels map[string]string) Decision {
	pools, err := a.eligible(svc, r, namespaceLabels)
	field := r.field
	if err == nil && len(r.ips) > 0 {
		var d Decision
		if d, err = a.requested(r, pools); err == nil {
			return d
		}
	}
	if r.pool != "" && err != nil && len(r.ips) == 0 {
		field = "metadata.annotations[" + second(annotation(svc, annotationPool)) + "]"
	}
	if err == nil {
		if d, ok := a.fromPools(pools, svc, r); ok {
			return d
		}
		err = exhausted(pools, r)
	}
	if len(had.Addresses) > 0 && a.mayStay(had, r) {
		return Decision{Addresses: had.Addresses, Pool: had.Pool, Problems: []manifests.Problem{a.problem(svc, field, keeping(err, had))}}
	}
	return Decision{Problems: []manifests.Problem{a.problem(svc, field, fmt.Errorf("%w; the Service waits for an address", err))}}
}

func second(_, b string) string { return b }

func exhausted(pools []*Pool, r request) error {
	var all []string
	for _, p := range pools {
		all = append(all, p.String())
	}
	what := "IPv4"
	switch {
	case r.both:
		what = "IPv4 and IPv6"
	case r.v4 && r.v6:
		what = "IPv4 or IPv6"
	case r.v6:
		what = "IPv6"
	}
	return fmt.Errorf("no free %s address in %s; add addresses to a pool, or delete Services", what, strings.Join(all, ", "))
}

// eligible are the pools that the Service may have addresses of, the best first.
func (a *Allocator) eligible(svc *corev1.Service, r request, namespaceLabels map[string]string) ([]*Pool, error) {
	var fit []*Pool
	for _, p := range a.pools {
		ok, why := p.serves(svc, namespaceLabels)
		if r.pool == p.Name {
			if !ok {
				return nil, fmt.Errorf("pool %s %s", p.Name, why)
			}
			return []*Pool{p}, nil
		}
		if ok && (p.autoAssign || len(r.ips) > 0) {
			fit = append(fit, p)
		}
	}
	switch {
	case len(a.pools) == 0:
		return nil, fmt.Errorf("there is no pool of addresses: create an IPAddressPool, or start with --lb-pool")
	case r.pool != "":
		return nil, fmt.Errorf("there is no pool %s; there are %s", r.pool, names(a.pools))
	case len(fit) == 0:
		return nil, fmt.Errorf("none of the pools %s gives addresses to this Service by itself (autoAssign, serviceAllocation)", names(a.pools))
	}
	slices.SortStableFunc(fit, func(p, q *Pool) int { return cmp.Compare(p.rank(), q.rank()) })
	return fit, nil
}

// rank: pools that are meant for the Service come before those for all, then by priority; none
// is the last.
func (p *Pool) rank() uint64 {
	rank := uint64(p.priority)
	if rank == 0 {
		rank = 1 << 40
	}
	if !p.pinned {
		rank += 1 << 41
	}
	return rank
}

func names(pools []*Pool) string {
	var all []string
	for _, p := range pools {
		all = append(all, p.Name)
	}
	return strings.Join(all, ", ")
}

// requested gives the addresses that the Service named, or none.
func (a *Allocator) requested(r request, pools []*Pool) (Decision, error) {
	d := Decision{}
	for _, addr := range r.ips {
		i := slices.IndexFunc(pools, func(p *Pool) bool { return p.contains(addr) })
		if i < 0 {
			if r.pool == "" && a.poolOf(addr) != nil {
				return d, fmt.Errorf("%s is in pool %s, which is not for this Service", addr, a.poolOf(addr).Name)
			}
			return d, fmt.Errorf("%s is not in %s; ask for one that is, or add it to a pool", addr, names(pools))
		}
		if d.Pool != "" && d.Pool != pools[i].Name {
			return d, fmt.Errorf("%s are in different pools (%s and %s); the addresses of a Service come from one", join(r.ips), d.Pool, pools[i].Name)
		}
		if err := a.unavailable(addr, r); err != nil {
			return d, err
		}
		d.Pool = pools[i].Name
		d.Addresses = append(d.Addresses, addr)
	}
	return d, nil
}

// fromPools takes from the best pool that has all that the Service would like to have, and if
// there is none, from the best that has what it needs.
func (a *Allocator) fromPools(pools []*Pool, svc *corev1.Service, r request) (Decision, bool) {
	// A Service that gets another family, or loses one, keeps the address of the other.
	if i := slices.IndexFunc(pools, func(p *Pool) bool { return slices.ContainsFunc(r.had, p.contains) }); i > 0 {
		pools = slices.Concat(pools[i:i+1], pools[:i], pools[i+1:])
	}
	wish := r
	wish.both = r.v4 && r.v6
	for _, r := range []request{wish, r} {
		for _, p := range pools {
			if addrs := a.fromPool(p, svc, r); len(addrs) > 0 {
				return Decision{Addresses: addrs, Pool: p.Name}, true
			}
		}
	}
	return Decision{}, false
}

// fromPool takes both families from one pool, or what there is of them if one will do.
func (a *Allocator) fromPool(p *Pool, svc *corev1.Service, r request) []netip.Addr {
	var got []netip.Addr
	for _, v6 := range order(svc, r) {
		if addr, ok := a.one(p, r, v6); ok {
			got = append(got, addr)
		} else if r.both {
			return nil
		}
	}
	return got
}

// order is that of the families in the Service.
func order(svc *corev1.Service, r request) []bool {
	switch {
	case r.v4 && r.v6:
		v6First := len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
		return []bool{v6First, !v6First}
	default:
		return []bool{r.v6}
	}
}

// addressesOf are those that the status has.
func addressesOf(svc *corev1.Service) (all []netip.Addr) {
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(in.IP); err == nil {
			all = append(all, addr)
		}
	}
	return all
}

// one is the address that the Service has, one that is shared under its key already, or a free one.
func (a *Allocator) one(p *Pool, r request, v6 bool) (netip.Addr, bool) {
	for _, addr := range r.had {
		if addr.Is6() == v6 && p.contains(addr) && a.unavailable(addr, r) == nil {
			return addr, true
		}
	}
	if r.share.key != "" {
		best := netip.Addr{}
		for addr := range a.shared[r.share] {
			if addr.Is6() == v6 && p.contains(addr) && (!best.IsValid() || addr.Less(best)) && a.unavailable(addr, r) == nil {
				best = addr
			}
		}
		if best.IsValid() {
			return best, true
		}
	}
	return p.free(v6, func(addr netip.Addr) bool { return len(a.users[addr]) > 0 })
}

func join(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, " and ")
}
