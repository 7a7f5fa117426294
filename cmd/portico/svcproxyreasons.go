package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// reasonCollector tells Prometheus why packets went nowhere. It reads the data plane when it is asked.
type reasonCollector struct {
	plane               countingPlane
	state               func() *svcproxy.State
	undelivered, denied *prometheus.Desc
}

// countingPlane is what both data planes know of packets.
type countingPlane interface {
	Counters() ([]nft.Count, error)
	Reasons() (map[nft.Reason]uint64, error)
	Denied() (map[string]uint64, error)
}

func newReasonCollector(plane countingPlane, state func() *svcproxy.State) *reasonCollector {
	return &reasonCollector{
		plane: plane, state: state,
		undelivered: prometheus.NewDesc("portico_svcproxy_undelivered_packets_total",
			"First packets of connections to Services on this node that went nowhere, by why.", []string{"verdict", "reason"}, nil),
		denied: prometheus.NewDesc("portico_svcproxy_source_range_drops_total",
			"First packets that loadBalancerSourceRanges of a Service kept out.", []string{"namespace", "service", "port", "protocol"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *reasonCollector) Describe(to chan<- *prometheus.Desc) {
	to <- c.undelivered
	to <- c.denied
}

// Collect implements prometheus.Collector.
func (c *reasonCollector) Collect(to chan<- prometheus.Metric) {
	reasons, err := c.plane.Reasons()
	if err != nil {
		to <- prometheus.NewInvalidMetric(c.undelivered, err)
	}
	for r, n := range reasons {
		to <- prometheus.MustNewConstMetric(c.undelivered, prometheus.CounterValue, float64(n), r.Verdict, r.Text)
	}
	denied, err := c.plane.Denied()
	if err != nil {
		to <- prometheus.NewInvalidMetric(c.denied, err)
		return
	}
	if len(denied) == 0 {
		return
	}
	sums := map[[4]string]uint64{} // of both IP families
	for s := range c.state().Services() {
		for _, p := range s.Ports {
			if n, ok := denied[p.Key]; ok {
				sums[[4]string{s.Namespace, s.Name, p.Name, string(p.Protocol)}] += n
			}
		}
	}
	for l, n := range sums {
		to <- prometheus.MustNewConstMetric(c.denied, prometheus.CounterValue, float64(n), l[:]...)
	}
}
