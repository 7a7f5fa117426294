package main

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// connectionCounter tells Prometheus how many connections came to each port of each Service, and
// what was done with them. It reads the kernel when it is asked.
type connectionCounter struct {
	counters func() ([]nft.Count, error)
	state    func() *svcproxy.State
	desc     *prometheus.Desc
}

func newConnectionCounter(plane *nft.Plane, state func() *svcproxy.State) *connectionCounter {
	return &connectionCounter{plane.Counters, state, prometheus.NewDesc("portico_svcproxy_connections_total",
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
	sums := map[connectionLabels]uint64{}
	owners := frontendOwners(c.state())
	for _, n := range counts {
		// Frontends that are not there any more have no name to be counted under.
		if o, ok := owners[frontendKey{n.Protocol, n.IPv6, n.Addr, n.Port}]; ok {
			labels := o.connectionLabels
			labels.action = actionOf(n.Kind)
			sums[labels] += n.Connections
		}
	}
	for l, n := range sums {
		to <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n),
			l.namespace, l.service, l.port, l.protocol, l.frontend, l.action)
	}
}

type connectionLabels struct{ namespace, service, port, protocol, frontend, action string }

type frontendKey struct {
	protocol uint8
	ipv6     bool
	addr     netip.Addr
	port     uint16
}

// owners say whose each address and port is.
type owners map[frontendKey]owner

type owner struct {
	connectionLabels
	endpoints []svcproxy.Endpoint // by address
}

func frontendOwners(s *svcproxy.State) owners {
	owners := owners{}
	for v := range s.Services() {
		for _, p := range v.Ports {
			for i := range p.Frontends {
				f := &p.Frontends[i]
				if f.ClaimedBy == "" {
					owners[frontendKey{protocolNumbers[p.Protocol], p.IPv6, f.Addr, f.Port}] = owner{connectionLabels{
						namespace: v.Namespace, service: v.Name, port: p.Name, protocol: string(p.Protocol), frontend: string(f.Source),
					}, p.Endpoints}
				}
			}
		}
	}
	return owners
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
