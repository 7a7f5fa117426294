package main

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// connectionCounter tells Prometheus how many connections came to each port of each Service, and
// what was done with them. It reads the data plane when it is asked.
type connectionCounter struct {
	counters func() ([]nft.Count, error)
	state    func() *svcproxy.State
	desc     *prometheus.Desc
}

func newConnectionCounter(counters func() ([]nft.Count, error), state func() *svcproxy.State) *connectionCounter {
	return &connectionCounter{counters, state, prometheus.NewDesc("portico_svcproxy_connections_total",
		"New connections to a Service on this node, by where they came to and what was done with them.",
		[]string{"namespace", "service", "port", "protocol", "frontend", "action"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *connectionCounter) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

// Collect implements prometheus.Collector.
func (c *connectionCounter) Collect(to chan<- prometheus.Metric) {
	counts, err := c.counters()
	if err != nil {
		to <- prometheus.NewInvalidMetric(c.desc, err)
		return
	}
	slices.SortFunc(counts, func(a, b nft.Count) int { return frontendOf(&a).compare(frontendOf(&b)) })
	// One Service after the other, so that only one of them is held. Frontends that are not there any
	// more have no name to be counted under.
	sums := map[connectionLabels]uint64{}
	for v := range c.state().Services() {
		clear(sums)
		addConnections(sums, v, counts)
		for l, n := range sums {
			to <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n),
				l.namespace, l.service, l.port, l.protocol, l.frontend, l.action)
		}
	}
}

// addConnections adds up what came to a Service; counts are in the order of frontends.
func addConnections(sums map[connectionLabels]uint64, s *svcproxy.Service, counts []nft.Count) {
	eachFrontend(s, func(k frontendKey, _ *svcproxy.Port, labels connectionLabels) {
		at, _ := slices.BinarySearchFunc(counts, k, func(c nft.Count, k frontendKey) int { return frontendOf(&c).compare(k) })
		for ; at < len(counts) && frontendOf(&counts[at]) == k; at++ {
			labels.action = actionOf(counts[at].Kind)
			sums[labels] += counts[at].Connections
		}
	})
}

// eachFrontend gives those that the Service has.
func eachFrontend(s *svcproxy.Service, visit func(frontendKey, *svcproxy.Port, connectionLabels)) {
	for _, p := range s.Ports {
		for i := range p.Frontends {
			if f := &p.Frontends[i]; f.ClaimedBy == "" {
				visit(frontendKey{protocolNumbers[p.Protocol], p.IPv6, f.Addr, f.Port}, p, connectionLabels{
					namespace: s.Namespace, service: s.Name, port: p.Name, protocol: string(p.Protocol), frontend: string(f.Source),
				})
			}
		}
	}
}

type connectionLabels struct{ namespace, service, port, protocol, frontend, action string }

type frontendKey struct {
	protocol uint8
	ipv6     bool
	addr     netip.Addr
	port     uint16
}

func frontendOf(c *nft.Count) frontendKey { return frontendKey{c.Protocol, c.IPv6, c.Addr, c.Port} }

func (k frontendKey) compare(o frontendKey) int {
	family := func(k frontendKey) int {
		if k.ipv6 {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(k.protocol, o.protocol), family(k)-family(o), k.addr.Compare(o.addr), cmp.Compare(k.port, o.port))
}

// owners say whose each address and port is or, in userspace, each Port by its Key.
type owners struct {
	frontends map[frontendKey]owner
	ports     map[string]owner
}

type owner struct {
	service *svcproxy.Service
	port    *svcproxy.Port
}

func ownersIn(s *svcproxy.State, userspace bool) owners {
	all := owners{map[frontendKey]owner{}, map[string]owner{}}
	for v := range s.Services() {
		if userspace {
			for _, p := range v.Ports {
				all.ports[p.Key] = owner{v, p}
			}
			continue
		}
		eachFrontend(v, func(k frontendKey, p *svcproxy.Port, _ connectionLabels) { all.frontends[k] = owner{v, p} })
	}
	return all
}

var protocolNumbers = map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}

// actionOf is what was done with a connection. Of those with externalTrafficPolicy Local and no
// endpoint on the node, those of Pods and of the node itself are forwarded all the same.
func actionOf(k nft.Kind) string {
	switch k {
	case nft.Reject:
		return "rejected"
	case nft.Drop:
		return "dropped"
	case nft.ExternalAbsent:
		return "dropped-not-local"
	}
	return "forwarded"
}
