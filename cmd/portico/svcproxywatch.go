package main

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/nft"
	"github.com/portico-ingress/portico/svcproxy/outlier"
)

// defaultEndpointMetrics is how many endpoints have metrics of their own.
const defaultEndpointMetrics = 1000

// defaultMaxEjectionPercent of a Service's endpoints are skipped at most.
const defaultMaxEjectionPercent = 50

// maxEndpointMetrics keeps a mistake from filling Prometheus.
const maxEndpointMetrics = 100_000

func (f *svcproxyFlags) validateWatch() error {
	switch {
	case f.endpointMetrics < 0 || f.endpointMetrics > maxEndpointMetrics:
		return usagef("--endpoint-metrics %d: want 0 to %d", f.endpointMetrics, maxEndpointMetrics)
	case f.maxEjectionPercent < 1 || f.maxEjectionPercent > 100:
		return usagef("--outlier-max-ejection-percent %d: want 1 to 100", f.maxEjectionPercent)
	}
	return nil
}

// watch is what follows connections: nothing of it if nobody wants to know.
type watch struct {
	outliers *svcproxy.OutlierDetection
	// flows are those of the kernel's data plane; traffic what endpoints have had in either; nil: nobody wants to know.
	flows   *svcproxy.FlowWatcher
	traffic endpointTraffic
	monitor *nft.FlowMonitor
}

// endpointTraffic is as svcproxy.FlowWatcher.Traffic.
type endpointTraffic func(keep func(*svcproxy.Traffic) bool) (all []svcproxy.Traffic, uncounted uint64)

// watch begins to hear of connections in the kernel. What cannot be had is a warning: Services work without.
func (f *svcproxyFlags) watch(log *zap.Logger) *watch {
	w := &watch{}
	if f.endpointMetrics == 0 && !f.outlierDetection {
		return w
	}
	var err error
	if w.monitor, err = nft.NewFlowMonitor(); err != nil {
		log.Warn("connections are not watched: there are no metrics of endpoints, and none that fails is skipped", zap.Error(err))
		return w
	}
	if err := nft.CountFlows(); err != nil {
		log.Warn("bytes of endpoints are not counted, and nobody notices that one refuses", zap.Error(err))
	}
	w.flows = svcproxy.NewFlowWatcher(w.monitor, f.outlierDetection, f.endpointMetrics, log.Named("watch"))
	w.traffic = w.flows.Traffic
	if f.outlierDetection {
		w.outliers = &svcproxy.OutlierDetection{Failures: w.flows.Failures()}
	}
	return w
}

func (w *watch) run(ctx context.Context) {
	if w.flows != nil {
		w.flows.Run(ctx)
	}
}

// register has Prometheus told.
func (w *watch) register(registry *prometheus.Registry, observer *svcproxy.Observer, state func() *svcproxy.State) {
	if w.traffic != nil {
		registry.MustRegister(newEndpointCollector(w.traffic, w.flows, state))
	}
	observer.Outlier = newOutlierMetrics(registry, state).note
}

func (w *watch) close() {
	if w.monitor != nil {
		w.monitor.Close()
	}
}

// endpointCollector tells Prometheus what each endpoint of each Service has had.
type endpointCollector struct {
	traffic endpointTraffic
	flows   *svcproxy.FlowWatcher
	state   func() *svcproxy.State

	connections, failures, received, sent *prometheus.Desc
	uncounted, lost, overlooked, omitted  *prometheus.Desc
}

// newEndpointCollector tells of traffic, and of flows what their bounds left out; nil: it is another data plane's.
func newEndpointCollector(traffic endpointTraffic, flows *svcproxy.FlowWatcher, state func() *svcproxy.State) *endpointCollector {
	endpoint := func(name, help string, more ...string) *prometheus.Desc {
		labels := append([]string{"namespace", "service", "port", "protocol", "endpoint"}, more...)
		return prometheus.NewDesc("portico_svcproxy_endpoint_"+name, help, labels, nil)
	}
	watch := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("portico_svcproxy_"+name, help, nil, nil)
	}
	return &endpointCollector{
		traffic: traffic, flows: flows, state: state,
		connections: endpoint("connections_total", "Connections to an endpoint: those that are over, and those that were seen while they last."),
		failures:    endpoint("failures_total", "Connections that an endpoint refused, or that ended without an answer.", "reason"),
		received:    endpoint("received_bytes_total", "Bytes from clients to an endpoint. In the kernel's data plane they are with the headers of IP, in userspace they are payload."),
		sent:        endpoint("sent_bytes_total", "Bytes from an endpoint to clients. In the kernel's data plane they are with the headers of IP, in userspace they are payload."),
		uncounted:   watch("endpoint_uncounted_total", "Connections that no metric of an endpoint has, because there are more endpoints than --endpoint-metrics."),
		lost:        watch("flow_events_lost_total", "How often the kernel had more ended connections to tell of than it could keep."),
		overlooked:  watch("flow_failures_overlooked_total", "Failed connections that were too many to be looked at."),
		omitted:     watch("flow_looks_omitted_total", "How often the bytes of connections that last were not looked at, because the kernel tracks too many connections."),
	}
}

// Describe implements prometheus.Collector.
func (c *endpointCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.connections, c.failures, c.received, c.sent, c.uncounted} {
		to <- d
	}
	if c.flows != nil {
		to <- c.lost
		to <- c.overlooked
		to <- c.omitted
	}
}

// endpointLabels are those of one endpoint; clients may have come to several frontends of its Service.
type endpointLabels struct{ namespace, service, port, protocol, endpoint string }

// Collect implements prometheus.Collector.
func (c *endpointCollector) Collect(to chan<- prometheus.Metric) {
	// Without any traffic there is nobody to look for.
	owners := sync.OnceValue(func() owners { return ownersIn(c.state(), c.flows == nil) })
	sums := map[endpointLabels]*svcproxy.Traffic{}
	all, uncounted := c.traffic(func(t *svcproxy.Traffic) bool { return owners().of(t) != nil })
	for i := range all {
		t := &all[i]
		o := owners().of(t)
		l := endpointLabels{o.service.Namespace, o.service.Name, o.port.Name, string(o.port.Protocol), t.Endpoint.String()}
		sum := sums[l]
		if sum == nil {
			sum = &svcproxy.Traffic{}
			sums[l] = sum
		}
		sum.Add(t)
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for l, t := range sums {
		labels := []string{l.namespace, l.service, l.port, l.protocol, l.endpoint}
		counter(c.connections, t.Connections, labels...)
		counter(c.received, t.Sent, labels...)
		counter(c.sent, t.Received, labels...)
		counter(c.failures, t.Refused, append(labels, "refused")...)
		counter(c.failures, t.Unanswered, append(labels, "unanswered")...)
	}
	counter(c.uncounted, uncounted)
	if c.flows != nil {
		overlooked, lost, omitted := c.flows.Overlooked()
		counter(c.lost, lost)
		counter(c.overlooked, overlooked)
		counter(c.omitted, omitted)
	}
}

// of gives who serves where a connection came to; nil: nobody any more, or not with that endpoint.
func (o owners) of(t *svcproxy.Traffic) *owner {
	k := frontendKey{t.Protocol, t.Frontend.Addr().Is6(), t.Frontend.Addr(), t.Frontend.Port()}
	l, ok := o.ports[t.Port]
	if !ok {
		l, ok = o.frontends[k]
	}
	if !ok {
		k.addr = netip.Addr{} // a NodePort
		if l, ok = o.frontends[k]; !ok {
			return nil
		}
	}
	_, ok = slices.BinarySearchFunc(l.port.Endpoints, t.Endpoint, func(e svcproxy.Endpoint, a netip.AddrPort) int { return e.Addr.Compare(a) })
	if !ok {
		return nil
	}
	return &l
}

// outlierMetrics count endpoints that are skipped.
type outlierMetrics struct{ ejections, returns prometheus.Counter }

func newOutlierMetrics(registry *prometheus.Registry, state func() *svcproxy.State) *outlierMetrics {
	m := &outlierMetrics{
		ejections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "portico_svcproxy_outlier_ejections_total", Help: "Endpoints that were skipped because new connections to them failed.",
		}),
		returns: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "portico_svcproxy_outlier_returns_total", Help: "Endpoints that were skipped and are used again.",
		}),
	}
	registry.MustRegister(m.ejections, m.returns, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "portico_svcproxy_outliers", Help: "Endpoints that fail now, skipped or not.",
	}, func() float64 { return float64(len(failing(state()))) }))
	return m
}

func (m *outlierMetrics) note(o svcproxy.Outlier) {
	if o.Skipped {
		m.ejections.Inc()
		return
	}
	m.returns.Inc()
}

// outliersView is what /api/v1/outliers answers, and what explain packet reads.
type outliersView struct {
	Node               string        `json:"node"`
	MaxEjectionPercent int           `json:"maxEjectionPercent"`
	Outliers           []outlierView `json:"outliers"`
}

type outlierView struct {
	// Port is the key of the Service port in /api/v1/services.
	Port     string    `json:"port"`
	Endpoint string    `json:"endpoint"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Why      string    `json:"why"`
}

// failing are the endpoints that fail.
func failing(s *svcproxy.State) []outlier.Failing {
	var all []outlier.Failing
	for v := range s.Services() {
		for _, p := range v.Ports {
			all = append(all, p.Failing...)
		}
	}
	return all
}

func (f *svcproxyFlags) serveOutliers(state func() *svcproxy.State) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		view := outliersView{Node: f.nodeName, MaxEjectionPercent: f.maxEjectionPercent, Outliers: []outlierView{}}
		for _, o := range failing(state()) {
			view.Outliers = append(view.Outliers, outlierView{o.Port, o.Addr.String(), o.Since, o.Until, o.Why})
		}
		writeJSON(w, http.StatusOK, view)
	}
}
