package main

import (
	"iter"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/ingress"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/engine"
)

// measured is where metrics come from, asked at each scrape. Everything on the path of a
// request counts for itself, without labels and without locks; labels are put on here.
type measured struct {
	stats        *router.StatsSet
	unmatched    *router.Stats // of unknown hosts and paths
	backends     func() iter.Seq[*router.Backend]
	inFlight     func() int64
	server       func() engine.ServerStats
	generation   func() uint64
	certificates func() []certs.Info
	problems     func() []manifests.Problem
}

// metrics are all that Prometheus may read.
type metrics struct {
	registry *prometheus.Registry

	lastReload  prometheus.Gauge
	compile     prometheus.Histogram
	propagation *prometheus.HistogramVec
	leader      prometheus.Gauge
	statuses    *prometheus.CounterVec
}

func newMetrics(m measured) *metrics {
	v := &metrics{
		registry: prometheus.NewRegistry(),
		lastReload: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "portico_config_last_reload_timestamp_seconds",
			Help: "When the live configuration was last changed.",
		}),
		compile: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "portico_config_compile_duration_seconds",
			Help:    "Time to make a configuration out of what has changed.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9), // 0.1 ms to 6.5 s
		}),
		propagation: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "portico_config_propagation_seconds",
			Help:    "Time from the arrival of a change to its being live.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9), // 0.5 ms to 33 s
		}, []string{"kind"}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "portico_leader",
			Help: "1 while this replica is the one that writes status and Events.",
		}),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "portico_status_writes_total",
			Help: "Tries to write the status of an Ingress.",
		}, []string{"result"}),
	}
	v.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(), collector{m}, v.lastReload, v.compile, v.propagation,
		v.leader, v.statuses,
	)
	return v
}

func (v *metrics) handler() http.Handler {
	return promhttp.HandlerFor(v.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// observer counts what a Controller tells it.
func (v *metrics) observer() *ingress.Observer {
	return &ingress.Observer{
		ConfigChanged: v.changed,
		StatusWritten: v.wrote,
		Leader:        v.lead,
	}
}

func (v *metrics) lead(leading bool) {
	if leading {
		v.leader.Set(1)
	} else {
		v.leader.Set(0)
	}
}

func (v *metrics) wrote(err error) {
	if err != nil {
		v.statuses.WithLabelValues("error").Inc()
	} else {
		v.statuses.WithLabelValues("ok").Inc()
	}
}

// changed notes a change of the configuration that is live now.
func (v *metrics) changed(kind ingress.ChangeKind, took, propagation time.Duration) {
	if kind == ingress.ChangeStructure {
		v.lastReload.SetToCurrentTime()
		v.compile.Observe(took.Seconds())
	}
	v.propagation.WithLabelValues(string(kind)).Observe(propagation.Seconds())
}

func buildInfo() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "portico_build_info",
		Help:        "Always 1; the labels say which program this is.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("portico_"+name, help, labels, nil)
}

// The metrics that collector makes. Hosts are patterns of Ingresses and never what clients
// send, so that clients cannot make up new series; requests for unknown hosts have the host "".
var (
	requestsDesc = desc("requests_total", "Requests answered, by the class of the status (0xx: the client went away before).",
		"host", "ingress", "service", "method", "status")
	durationDesc = desc("request_duration_seconds", "Time from the first byte of a request to the end of its answer.",
		"host", "ingress", "service")
	upstreamDesc = desc("upstream_duration_seconds", "Time from the start of the last try at an endpoint to the head of its answer.",
		"host", "ingress", "service")
	triesDesc = desc("upstream_tries_total", "Requests sent to endpoints, retries included.",
		"host", "ingress", "service")
	retriesDesc = desc("upstream_retries_total", "Requests sent to an endpoint after another one had failed.",
		"host", "ingress", "service")
	faultsDesc = desc("upstream_faults_total", "Tries that failed, by how.",
		"host", "ingress", "service", "fault")
	requestBytesDesc = desc("request_bytes_total", "Bytes that clients sent.",
		"host", "ingress", "service")
	responseBytesDesc = desc("response_bytes_total", "Bytes that clients were sent.",
		"host", "ingress", "service")
	inFlightDesc    = desc("requests_in_flight", "Requests that have begun and not ended.")
	endpointsDesc   = desc("endpoints", "Endpoints of all backends: up, down (could not be connected to a moment ago), ejected (answered badly), unhealthy (fails its checks).", "state")
	retriedDesc     = desc("backend_retries_total", "Requests sent again, by why.", "backend", "reason")
	budgetDesc      = desc("backend_retry_budget_exhausted_total", "Requests not sent again because too many were.", "backend")
	ejectionsDesc   = desc("backend_ejections_total", "Endpoints left alone for a while because they answered badly.", "backend")
	sparedDesc      = desc("backend_ejections_spared_total", "Endpoints that were not, because too many are out.", "backend")
	rejectedDesc    = desc("backend_rejections_total", "Requests that max-connections or max-requests kept out, by why.", "backend", "reason")
	pendingDesc     = desc("backend_pending_requests", "Requests that wait for room under max-connections or max-requests.", "backend")
	outDesc         = desc("backend_endpoints_out", "Endpoints of a backend that are left alone, by state; none if all are up.", "backend", "state")
	connectionsDesc = desc("connections", "Open connections of clients: at a request, between requests, or upgraded.", "state")
	bufferedDesc    = desc("buffered_bytes", "Bytes held of request bodies (proxy-request-buffering) and of answers (proxy-buffering), of 64 MiB each.", "of")
	acceptedDesc    = desc("connections_accepted_total", "Connections that clients opened.")
	refusedDesc     = desc("connections_refused_total", "Connections closed at once because there were too many.")
	handshakesDesc  = desc("tls_handshake_errors_total", "TLS handshakes that failed.")
	proxyErrorsDesc = desc("proxy_protocol_errors_total", "Connections closed because no PROXY protocol header came where one has to.")
	streamsDesc     = desc("tls_passthrough_connections_total", "TLS connections that were passed through to a backend.")
	generationDesc  = desc("config_generation", "Number of the routing table that is live.")
	expiryDesc      = desc("certificate_expiry_timestamp_seconds", "When a certificate that is served ends.", "name")
	problemsDesc    = desc("problems", "What is wrong with objects, by their kind; /api/v1/problems says what.", "kind")
)

// collector makes metrics out of what others count.
type collector struct{ measured }

// Describe names the metrics.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		requestsDesc, durationDesc, upstreamDesc, triesDesc, retriesDesc, faultsDesc, requestBytesDesc,
		responseBytesDesc, inFlightDesc, endpointsDesc, retriedDesc, budgetDesc, ejectionsDesc, sparedDesc,
		rejectedDesc, pendingDesc, outDesc, connectionsDesc, bufferedDesc, acceptedDesc, refusedDesc, handshakesDesc, proxyErrorsDesc, streamsDesc,
		generationDesc, expiryDesc, problemsDesc,
	} {
		ch <- d
	}
}

// Collect reads them.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for key, stats := range c.stats.All() {
		collectStats(ch, key, stats.Snapshot())
	}
	collectStats(ch, router.StatsKey{}, c.unmatched.Snapshot())
	gauge(ch, inFlightDesc, float64(c.inFlight()))
	c.collectEndpoints(ch)
	collectServer(ch, c.server())
	gauge(ch, generationDesc, float64(c.generation()))
	c.collectCertificates(ch)
	c.collectProblems(ch)
}

// collectStats leaves out what nobody has requested yet: of ten thousand hosts most are idle.
func collectStats(ch chan<- prometheus.Metric, key router.StatsKey, s router.StatsSnapshot) {
	labels := []string{key.Host, key.Origin, key.Service}
	var total uint64
	for m := range s.Requests {
		for class, n := range s.Requests[m] {
			total += n
			if n > 0 {
				counter(ch, requestsDesc, n, append(slices.Clip(labels), router.Method(m).String(), strconv.Itoa(class)+"xx")...)
			}
		}
	}
	if total == 0 {
		return
	}
	histogram(ch, durationDesc, &s.Duration, labels)
	counter(ch, requestBytesDesc, s.RequestBytes, labels...)
	counter(ch, responseBytesDesc, s.ResponseBytes, labels...)
	if s.Tries == 0 {
		return
	}
	histogram(ch, upstreamDesc, &s.Upstream, labels)
	counter(ch, triesDesc, s.Tries, labels...)
	counter(ch, retriesDesc, s.Retries, labels...)
	for f, n := range s.Faults {
		if n > 0 {
			counter(ch, faultsDesc, n, append(slices.Clip(labels), router.Fault(f).String())...)
		}
	}
}

func (c collector) collectEndpoints(ch chan<- prometheus.Metric) {
	var all [router.EndpointStates]int
	now := time.Now()
	for b := range c.backends() {
		var states [router.EndpointStates]int
		for _, e := range b.Endpoints() {
			states[e.State(now)]++
		}
		for state, n := range states {
			all[state] += n
			if n > 0 && router.EndpointState(state) != router.Up {
				gauge(ch, outDesc, float64(n), b.Name(), router.EndpointState(state).String())
			}
		}
		collectCounts(ch, b.Name(), b.Counts())
	}
	for state, n := range all {
		gauge(ch, endpointsDesc, float64(n), router.EndpointState(state).String())
	}
}

// collectCounts leaves out what has never happened: it seldom does.
func collectCounts(ch chan<- prometheus.Metric, backend string, c router.BackendCounts) {
	seen := func(d *prometheus.Desc, n uint64, labels ...string) {
		if n > 0 {
			counter(ch, d, n, append([]string{backend}, labels...)...)
		}
	}
	for reason, n := range c.Retries {
		seen(retriedDesc, n, router.RetryReason(reason).String())
	}
	for reason, n := range c.Rejected {
		seen(rejectedDesc, n, router.Rejection(reason).String())
	}
	seen(budgetDesc, c.BudgetExhausted)
	seen(ejectionsDesc, c.Ejections)
	seen(sparedDesc, c.EjectionsSpared)
	if c.Pending > 0 {
		gauge(ch, pendingDesc, float64(c.Pending), backend)
	}
}

func collectServer(ch chan<- prometheus.Metric, s engine.ServerStats) {
	gauge(ch, connectionsDesc, float64(s.Open-s.Idle-s.Tunnels), "active")
	gauge(ch, connectionsDesc, float64(s.Idle), "idle")
	gauge(ch, connectionsDesc, float64(s.Tunnels), "tunnel")
	gauge(ch, bufferedDesc, float64(s.BufferedBodies), "requests")
	gauge(ch, bufferedDesc, float64(s.BufferedAnswers), "answers")
	counter(ch, acceptedDesc, s.Accepted)
	counter(ch, refusedDesc, s.Refused)
	counter(ch, handshakesDesc, s.HandshakeErrors)
	counter(ch, proxyErrorsDesc, s.ProxyErrors)
	counter(ch, streamsDesc, s.Streams)
}

// collectCertificates has one series for each Secret: the end of what it holds.
func (c collector) collectCertificates(ch chan<- prometheus.Metric) {
	ends := map[string]time.Time{}
	for _, cert := range c.certificates() {
		if end, ok := ends[cert.Name]; !ok || cert.NotAfter.Before(end) {
			ends[cert.Name] = cert.NotAfter
		}
	}
	for name, end := range ends {
		gauge(ch, expiryDesc, float64(end.Unix()), name)
	}
}

func (c collector) collectProblems(ch chan<- prometheus.Metric) {
	kinds := map[string]int{}
	for _, p := range c.problems() {
		kinds[p.Object.Kind]++
	}
	for kind, n := range kinds {
		gauge(ch, problemsDesc, float64(n), kind)
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func histogram(ch chan<- prometheus.Metric, d *prometheus.Desc, h *router.Histogram, labels []string) {
	ch <- prometheus.MustNewConstHistogram(d, h.Count(), h.Sum.Seconds(), h.Cumulative(), labels...)
}
