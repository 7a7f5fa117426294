package svcproxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/btree"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
)

// compiler keeps the desired state of all Services, and changes it by what has changed. It
// belongs to one goroutine.
type compiler struct {
	rules    Rules
	at       here
	objects  *manifests.Objects
	services *tree
	claims   claims
	// troubled are those of services that have Problems.
	troubled *tree
	// held are the Services that go on with endpoints that are not listed any more, and until when.
	held map[string]time.Time
	now  func() time.Time
}

// tree has Services by namespace and name, in order. A Copy costs nothing, and shares all that does not change afterwards.
type tree = btree.Map[string, *Service]

// treeDegree makes nodes of up to 31 Services: what is copied of a tree for a change.
const treeDegree = 16

func newCompiler(rules Rules) *compiler {
	return &compiler{
		rules: rules, at: here{place: place{node: rules.NodeName}}, services: btree.NewMap[string, *Service](treeDegree), troubled: btree.NewMap[string, *Service](treeDegree),
		claims: claims{}, held: map[string]time.Time{}, now: time.Now,
	}
}

// Delta is what has changed of the desired state.
type Delta struct {
	// Put are Services that are new or have changed, in order; Delete the keys of Ports that are
	// not any more.
	Put    []*Service
	Delete []string
	// Gone are the keys of Services that are not any more.
	Gone []string
}

// apply takes a change of the objects and gives what it changes. It costs as much as the Services
// it names have endpoints; all of them, if this node has moved to another zone.
func (c *compiler) apply(change manifests.Change) Delta {
	c.objects = change.Objects
	dirty := map[string]struct{}{}
	for _, r := range change.Refs {
		switch r.Kind {
		case manifests.KindService, manifests.KindEndpointSlice:
			dirty[r.Namespace+"/"+r.Name] = struct{}{}
		}
	}
	return c.compile(dirty)
}

// setPlace says where this node is and which addresses it has.
func (c *compiler) setPlace(at here) (d Delta) {
	if c.at.place == at.place && slices.Equal(c.at.addresses, at.addresses) {
		return d
	}
	at.failing = c.at.failing
	c.at = at
	if c.objects == nil {
		return d
	}
	// Those that have never been compiled are about to be.
	dirty := make(map[string]struct{}, c.services.Len())
	for s := range walk(c.services) {
		dirty[s.Key()] = struct{}{}
	}
	return c.compile(dirty)
}

// compile compiles those named, and those who gain or lose an address by that.
func (c *compiler) compile(dirty map[string]struct{}) Delta {
	before := make(map[string]*Service, len(dirty))
	for round := slices.Sorted(maps.Keys(dirty)); len(round) > 0; {
		var next []string
		for _, key := range round {
			old, _ := c.services.Get(key)
			if _, ok := before[key]; !ok {
				before[key] = old
			}
			next = append(next, c.compileOne(key, old)...)
		}
		round = next
	}
	return c.delta(before)
}

// compileOne gives the other Services that gain or lose something.
func (c *compiler) compileOne(key string, old *Service) []string {
	namespace, name, _ := strings.Cut(key, "/")
	var next *Service
	if s := c.objects.Service(namespace, name); s != nil {
		next = compile(&c.rules, &c.at, c.objects, s, past{service: old, now: c.now()})
	}
	delete(c.held, key)
	if next != nil {
		if until := next.heldUntil(); !until.IsZero() {
			c.held[key] = until
		}
	}
	others := c.claims.replace(old, next)
	if next == nil {
		c.services.Delete(key)
		c.troubled.Delete(key)
		return others
	}
	c.settle(next)
	c.services.Set(key, next)
	if len(next.Problems) > 0 {
		c.troubled.Set(key, next)
	} else {
		c.troubled.Delete(key)
	}
	return others
}

// settle says of each frontend whether another Service has it, and is not served before it is
// published.
func (c *compiler) settle(s *Service) {
	taken := map[string]struct{}{}
	for _, p := range s.Ports {
		for i := range p.Frontends {
			f := &p.Frontends[i]
			owner := c.claims.owner(p.claimKey(f))
			if owner == s.Key() {
				continue
			}
			f.ClaimedBy = owner
			text := fmt.Sprintf("%s %s/%s belongs to Service %s, which %s; it is not served here, choose another", f.Source, f, p.Protocol, owner, s.yields())
			if _, ok := taken[text]; ok {
				continue
			}
			taken[text] = struct{}{}
			s.Problems = append(s.Problems, manifests.Problem{
				Object: manifests.Ref{Kind: manifests.KindService, Namespace: s.Namespace, Name: s.Name},
				Field:  fieldOf(f.Source), Text: text,
			})
		}
	}
}

func fieldOf(s Source) string {
	return map[Source]string{
		SourceClusterIP: "spec.clusterIPs", SourceNodePort: "spec.ports.nodePort",
		SourceLoadBalancer: "status.loadBalancer.ingress", SourceExternalIP: "spec.externalIPs",
	}[s]
}

func (c *compiler) delta(before map[string]*Service) (d Delta) {
	for _, key := range slices.Sorted(maps.Keys(before)) {
		now, ok := c.services.Get(key)
		if ok {
			d.Put = append(d.Put, now)
		} else if before[key] != nil {
			d.Gone = append(d.Gone, key)
		}
		if was := before[key]; was != nil && len(was.elsewhere) > 0 && (!ok || len(now.elsewhere) == 0) {
			keys := elsewhereKeys(key)
			d.Delete = append(d.Delete, keys[:]...)
		}
		stay := make(map[string]struct{}, len(portsOf(now))) // a Service may have 10,000
		for _, p := range portsOf(now) {
			stay[p.Key] = struct{}{}
		}
		for _, p := range portsOf(before[key]) {
			if _, ok := stay[p.Key]; !ok {
				d.Delete = append(d.Delete, p.Key)
			}
		}
	}
	return d
}

func portsOf(s *Service) []*Port {
	if s == nil {
		return nil
	}
	return s.Ports
}

// port finds a Port by its Key.
func (c *compiler) port(key string) (*Service, *Port) {
	service, _, _ := strings.Cut(key, ":")
	s, _ := c.services.Get(service)
	for _, p := range portsOf(s) {
		if p.Key == key {
			return s, p
		}
	}
	return nil, nil
}

// frontend finds who serves an address and port; with no address a NodePort.
func (c *compiler) frontend(k claimKey) (*Service, *Port, *Frontend) {
	s, _ := c.services.Get(c.claims.owner(k))
	for _, p := range portsOf(s) {
		for i := range p.Frontends {
			if f := &p.Frontends[i]; p.claimKey(f) == k && f.ClaimedBy == "" {
				return s, p, f
			}
		}
	}
	return nil, nil, nil
}

// protocolNumber is that of IP; 0 for what is none of the three.
func protocolNumber(p corev1.Protocol) uint8 {
	return map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}[p]
}

// usedOnNode are the addresses of the endpoints on this node that are used.
func (p *Port) usedOnNode() []netip.Addr {
	var all []netip.Addr
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		if e.Local && (e.Cluster || e.ForLocal) && !slices.Contains(all, e.Addr.Addr()) {
			all = append(all, e.Addr.Addr())
		}
	}
	return all
}
