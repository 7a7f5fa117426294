package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/announce"
	"github.com/portico-ingress/portico/svcproxy/handover"
	"github.com/portico-ingress/portico/svcproxy/nft"
	"github.com/portico-ingress/portico/svcproxy/relay"
)

// dataPlane is one of the two: the other one is nil.
type dataPlane struct {
	svcproxy.Plane
	kernel *nft.Plane
	relay  *relay.Plane
	watch  *watch
	counts countingPlane
	// handover goes with kernel.
	handover *handover.Table
}

// run watches until ctx ends.
func (d *dataPlane) run(ctx context.Context, log *zap.Logger) {
	var all sync.WaitGroup
	all.Go(func() { d.watch.run(ctx) })
	if d.handover != nil {
		all.Go(func() { d.handover.Keep(ctx, log.Named("handover")) })
	}
	all.Wait()
}

func (d *dataPlane) close() {
	d.watch.close()
	if d.kernel != nil {
		d.kernel.Close()
		d.handover.Close()
	}
}

// plane makes the one that --mode says. auto is the kernel's if it takes the table, and says why if not.
func (f *svcproxyFlags) plane(log *zap.Logger) (*dataPlane, error) {
	if f.mode.value != "relay" {
		d, err := newKernelPlane(log)
		if err == nil {
			d.watch = f.watch(log)
			return d, nil
		}
		if f.mode.value == "nftables" {
			return nil, fmt.Errorf("--mode nftables: %w", err)
		}
		log.Warn("Services are served in userspace, because nftables cannot be used", zap.NamedError("why", err))
	}
	cfg, watch := relay.Config{MaxEndpoints: f.endpointMetrics, Log: log.Named("relay")}, &watch{}
	if f.outlierDetection {
		watch.outliers = &svcproxy.OutlierDetection{}
		watch.outliers.Failures, cfg.ConnectFailed = svcproxy.RelayFailures()
	}
	userspace, err := relay.New(cfg)
	if err != nil {
		return nil, err
	}
	plane := svcproxy.NewRelay(userspace)
	if f.endpointMetrics > 0 {
		watch.traffic = plane.Traffic
	}
	return &dataPlane{Plane: plane, relay: userspace, watch: watch, counts: plane}, nil
}

func newKernelPlane(log *zap.Logger) (*dataPlane, error) {
	p, err := nft.New(nft.Config{Log: log.Named("nft")})
	if err != nil {
		return nil, err
	}
	if err := p.Probe(); err != nil {
		p.Close()
		return nil, fmt.Errorf("nft: %w", err)
	}
	moves, err := handover.New(handover.Config{Ring: announce.MaxRing})
	if err != nil {
		p.Close()
		return nil, err
	}
	return &dataPlane{Plane: svcproxy.Kernel{Plane: p}, kernel: p, handover: moves, counts: p}, nil
}

// rules are those of all Services. The owner of a folder may use what listens on loopback.
func (f *svcproxyFlags) rules(d *dataPlane) svcproxy.Rules {
	return svcproxy.Rules{
		NodeName:          f.nodeName,
		NoExternalIPs:     !f.externalIPs,
		Hold:              f.endpointHold,
		ProxyProtocol:     d.relay != nil,
		LoopbackEndpoints: d.relay != nil && f.changed("manifests"),

		MaxEjectionPercent: f.maxEjectionPercent,
	}
}

// relayCollector tells Prometheus what the data plane in userspace has done.
type relayCollector struct {
	plane   *relay.Plane
	metrics []relayMetric
}

type relayMetric struct {
	desc *prometheus.Desc
	typ  prometheus.ValueType
	get  func(*relay.Count) uint64
}

func newRelayCollector(p *relay.Plane) *relayCollector {
	metric := func(name, help string, typ prometheus.ValueType, get func(*relay.Count) uint64) relayMetric {
		return relayMetric{prometheus.NewDesc("portico_svcproxy_relay_"+name, help, []string{"port", "frontend"}, nil), typ, get}
	}
	return &relayCollector{p, []relayMetric{
		metric("open", "TCP connections and UDP sessions that there are now.", prometheus.GaugeValue, func(c *relay.Count) uint64 { return c.Open }),
		metric("connections_total", "TCP connections and UDP sessions that were forwarded.", prometheus.CounterValue, func(c *relay.Count) uint64 { return c.Connections }),
		metric("received_bytes_total", "Bytes that came from clients.", prometheus.CounterValue, func(c *relay.Count) uint64 { return c.FromClients }),
		metric("sent_bytes_total", "Bytes that went to clients.", prometheus.CounterValue, func(c *relay.Count) uint64 { return c.ToClients }),
		metric("connect_failures_total", "Endpoints that did not take a connection.", prometheus.CounterValue, func(c *relay.Count) uint64 { return c.ConnectFailures }),
		metric("unreachable_total", "Clients for whom no endpoint took a connection.", prometheus.CounterValue, func(c *relay.Count) uint64 { return c.Unreachable }),
		metric("denied_total", "Clients turned away by source ranges or traffic policy after they were accepted.", prometheus.CounterValue, func(c *relay.Count) uint64 { return c.Denied }),
		metric("limited_total", "Clients turned away because there were too many.", prometheus.CounterValue, func(c *relay.Count) uint64 { return c.Limited }),
	}}
}

// Describe implements prometheus.Collector.
func (r *relayCollector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range r.metrics {
		to <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (r *relayCollector) Collect(to chan<- prometheus.Metric) {
	for _, c := range r.plane.Counters() {
		for _, m := range r.metrics {
			to <- prometheus.MustNewConstMetric(m.desc, m.typ, float64(m.get(&c)), c.Service, c.Frontend.String())
		}
	}
}
