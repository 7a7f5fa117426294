package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/portico-ingress/portico/svcproxy/handover"
)

// handoverCollector tells Prometheus of connections whose address has moved to this node. It reads the kernel when it is
// asked.
type handoverCollector struct {
	counts                              func() (handover.Counts, error)
	connections, passed, reset, repairs *prometheus.Desc
}

func newHandoverCollector(t *handover.Table) *handoverCollector {
	metric := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("portico_svcproxy_handover_"+name, help, nil, nil)
	}
	return &handoverCollector{
		counts:      t.Counts,
		connections: metric("connections_total", "TCP connections of which segments were passed on to the node that had their address before."),
		passed:      metric("passed_segments_total", "TCP segments that were passed on to the node that had their address before."),
		reset:       metric("reset_segments_total", "TCP segments to an address that has moved, of connections that no node knows: they were answered with a reset."),
		repairs:     metric("repairs_total", "How often the tables of handover were made again because somebody else had changed them."),
	}
}

// Describe implements prometheus.Collector.
func (c *handoverCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.passed, c.reset, c.repairs} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *handoverCollector) Collect(to chan<- prometheus.Metric) {
	n, err := c.counts()
	if err != nil {
		to <- prometheus.NewInvalidMetric(c.connections, err)
		return
	}
	for d, v := range map[*prometheus.Desc]uint64{c.connections: n.Connections, c.passed: n.Passed, c.reset: n.Reset, c.repairs: n.Repairs} {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
}
