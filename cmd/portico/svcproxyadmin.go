package main

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// svcproxyAPI answers probes, Prometheus and people who want to know what is done with a Service.
func svcproxyAPI(flags *svcproxyFlags, c *svcproxy.Controller, store *manifests.Store, m *svcproxyMetrics, h *healthz) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.GetHead, secureHeaders)
	r.Get("/livez", func(w http.ResponseWriter, _ *http.Request) {
		if c.Alive() {
			writeStatus(w, http.StatusOK, "ok")
			return
		}
		writeStatus(w, http.StatusServiceUnavailable, "it hangs")
	})
	r.Get("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if c.Ready() {
			writeStatus(w, http.StatusOK, "ok")
			return
		}
		writeStatus(w, http.StatusServiceUnavailable, "Services are not programmed")
	})
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	r.Get("/api/v1/services", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"services": viewServices(c.State())})
	})
	r.Get("/api/v1/outliers", flags.serveOutliers(c.State))
	r.Get("/api/v1/problems", func(w http.ResponseWriter, _ *http.Request) {
		problems := c.Problems()
		if !c.State().Ready {
			problems = store.Problems()
		}
		writeJSON(w, http.StatusOK, problemsView{Problems: list(append(problems, h.problems()...))})
	})
	r.Get("/api/v1/explain", explainHandler(c))
	return r
}

type serviceView struct {
	Namespace string              `json:"namespace"`
	Name      string              `json:"name"`
	Skipped   string              `json:"skipped,omitempty"`
	Ports     []servicePortView   `json:"ports"`
	Problems  []manifests.Problem `json:"problems,omitempty"`
}

type servicePortView struct {
	Key       string                `json:"key"`
	Affinity  string                `json:"affinity,omitempty"`
	Frontends []serviceFrontendView `json:"frontends"`
	Endpoints []serviceEndpointView `json:"endpoints"`
}

type serviceFrontendView struct {
	Source        string `json:"source"`
	Address       string `json:"address"`
	TrafficPolicy string `json:"trafficPolicy"`
	Action        string `json:"action"`
	Why           string `json:"why,omitempty"`
	Restricted    bool   `json:"restricted,omitempty"`
	ClaimedBy     string `json:"claimedBy,omitempty"`
}

type serviceEndpointView struct {
	Address string `json:"address"`
	Pod     string `json:"pod,omitempty"`
	Node    string `json:"node,omitempty"`
	Cluster bool   `json:"cluster"`
	Local   bool   `json:"local"`
	Why     string `json:"why"`
}

func viewServices(s *svcproxy.State) []serviceView {
	all := []serviceView{}
	for v := range s.Services() {
		view := serviceView{Namespace: v.Namespace, Name: v.Name, Skipped: v.Skipped, Ports: []servicePortView{}, Problems: v.Problems}
		for _, p := range v.Ports {
			view.Ports = append(view.Ports, viewServicePort(p))
		}
		all = append(all, view)
	}
	return all
}

func viewServicePort(p *svcproxy.Port) servicePortView {
	v := servicePortView{Key: p.Key, Frontends: []serviceFrontendView{}, Endpoints: []serviceEndpointView{}}
	if p.Affinity > 0 {
		v.Affinity = p.Affinity.String()
	}
	for _, f := range p.Frontends {
		policy := "Cluster"
		if f.Local {
			policy = "Local"
		}
		v.Frontends = append(v.Frontends, serviceFrontendView{string(f.Source), f.String(), policy, string(f.Action), f.Why, f.Restricted, f.ClaimedBy})
	}
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		v.Endpoints = append(v.Endpoints, serviceEndpointView{e.Addr.String(), e.Pod, e.Node, e.Cluster, e.ForLocal, string(e.Why)})
	}
	return v
}

// svcproxyMetrics are what Prometheus reads.
type svcproxyMetrics struct {
	registry             *prometheus.Registry
	programming, writing prometheus.Histogram
	failures             prometheus.Counter
}

func newSvcproxyMetrics(plane *dataPlane) *svcproxyMetrics {
	buckets := []float64{.0001, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5, 30}
	m := &svcproxyMetrics{
		registry: prometheus.NewRegistry(),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "portico_svcproxy_programming_seconds", Help: "From a change's arrival until it was live in the kernel.", Buckets: buckets,
		}),
		writing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "portico_svcproxy_write_seconds", Help: "Time to write a change to the kernel.", Buckets: buckets,
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "portico_svcproxy_failures_total", Help: "Changes that could not be programmed at once.",
		}),
	}
	m.registry.MustRegister(m.programming, m.writing, m.failures,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if plane.relay != nil {
		m.registry.MustRegister(newRelayCollector(plane.relay))
		return m
	}
	for name, read := range map[string]struct {
		help string
		get  func(nft.Stats) uint64
	}{
		"writes_total":         {"Transactions sent to the kernel.", func(s nft.Stats) uint64 { return s.Writes }},
		"elements_total":       {"Elements added or removed.", func(s nft.Stats) uint64 { return s.Elements }},
		"repairs_total":        {"Readings of the kernel that found something to change.", func(s nft.Stats) uint64 { return s.Repairs }},
		"drift_elements_total": {"Elements that were not as they had been written.", func(s nft.Stats) uint64 { return s.Drift }},
		"rebuilds_total":       {"Tables made anew.", func(s nft.Stats) uint64 { return s.Rebuilds }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "portico_svcproxy_kernel_" + name, Help: read.help,
		}, func() float64 { return float64(read.get(plane.kernel.Stats())) }))
	}
	return m
}

func (m *svcproxyMetrics) observer() *svcproxy.Observer {
	return &svcproxy.Observer{
		Programmed: func(_, write, since time.Duration) {
			m.writing.Observe(write.Seconds())
			m.programming.Observe(since.Seconds())
		},
		Failed: func(error) { m.failures.Inc() },
	}
}
