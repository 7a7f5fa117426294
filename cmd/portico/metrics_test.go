package main

import (
	"errors"
	"iter"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/ingress"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/engine"
)

func testMeasured(t *testing.T) measured {
	t.Helper()
	stats := router.NewStatsSet()
	used := stats.Get(router.StatsKey{Host: "a.example", Origin: "default/web", Service: "default/web:80"})
	used.Observe(0, router.Observation{Method: router.MethodGet, Status: 200, Duration: 2 * time.Millisecond, Tries: 2, Upstream: time.Millisecond})
	used.Observe(0, router.Observation{Method: router.MethodPost, Status: 503, Duration: 20 * time.Second})
	stats.Get(router.StatsKey{Host: "idle.example", Origin: "default/idle", Service: "default/idle:80"})
	backends := router.NewBackends(router.BackendsConfig{})
	backends.SetTargets("default/web:80", []router.Target{
		{Address: netip.MustParseAddrPort("10.0.0.1:8080")},
		{Address: netip.MustParseAddrPort("10.0.0.2:8080")},
	})
	backends.Get("default/web:80").Endpoints()[0].Fail(time.Now().Add(time.Hour)) // for which it is down
	return measured{
		stats:     stats,
		backends:  backends.All,
		unmatched: new(router.Stats),
		inFlight:  func() int64 { return 1 },
		server: func() engine.ServerStats {
			return engine.ServerStats{Open: 6, Idle: 3, Tunnels: 1, Accepted: 10, Refused: 4, HandshakeErrors: 5, ProxyErrors: 6, Streams: 7, BufferedBodies: 8, BufferedAnswers: 9}
		},
		generation: func() uint64 { return 7 },
		certificates: func() []certs.Info {
			return []certs.Info{
				{Name: "default/tls", NotAfter: time.Unix(2000, 0)},
				{Name: "default/tls", NotAfter: time.Unix(1000, 0)},
			}
		},
		problems: func() []manifests.Problem {
			return []manifests.Problem{{Object: manifests.Ref{Kind: "Ingress"}}, {Object: manifests.Ref{Kind: "Ingress"}}, {Object: manifests.Ref{Kind: "Secret"}}}
		},
	}
}

func TestMetrics(t *testing.T) {
	v := newMetrics(testMeasured(t))
	want := `
# HELP portico_buffered_bytes Bytes held of request bodies (proxy-request-buffering) and of answers (proxy-buffering), of 64 MiB each.
# TYPE portico_buffered_bytes gauge
portico_buffered_bytes{of="answers"} 9
portico_buffered_bytes{of="requests"} 8
# HELP portico_certificate_expiry_timestamp_seconds When a certificate that is served ends.
# TYPE portico_certificate_expiry_timestamp_seconds gauge
portico_certificate_expiry_timestamp_seconds{name="default/tls"} 1000
# HELP portico_backend_endpoints_out Endpoints of a backend that are left alone, by state; none if all are up.
# TYPE portico_backend_endpoints_out gauge
portico_backend_endpoints_out{backend="default/web:80",state="down"} 1
# HELP portico_config_generation Number of the routing table that is live.
# TYPE portico_config_generation gauge
portico_config_generation 7
# HELP portico_connections Open connections of clients: at a request, between requests, or upgraded.
# TYPE portico_connections gauge
portico_connections{state="active"} 2
portico_connections{state="idle"} 3
portico_connections{state="tunnel"} 1
# HELP portico_endpoints Endpoints of all backends: up, down (could not be connected to a moment ago), ejected (answered badly), unhealthy (fails its checks).
# TYPE portico_endpoints gauge
portico_endpoints{state="down"} 1
portico_endpoints{state="ejected"} 0
portico_endpoints{state="unhealthy"} 0
portico_endpoints{state="up"} 1
# HELP portico_problems What is wrong with objects, by their kind; /api/v1/problems says what.
# TYPE portico_problems gauge
portico_problems{kind="Ingress"} 2
portico_problems{kind="Secret"} 1
# HELP portico_requests_in_flight Requests that have begun and not ended.
# TYPE portico_requests_in_flight gauge
portico_requests_in_flight 1
# HELP portico_requests_total Requests answered, by the class of the status (0xx: the client went away before).
# TYPE portico_requests_total counter
portico_requests_total{host="a.example",ingress="default/web",method="GET",service="default/web:80",status="2xx"} 1
portico_requests_total{host="a.example",ingress="default/web",method="POST",service="default/web:80",status="5xx"} 1
# HELP portico_upstream_retries_total Requests sent to an endpoint after another one had failed.
# TYPE portico_upstream_retries_total counter
portico_upstream_retries_total{host="a.example",ingress="default/web",service="default/web:80"} 1
# HELP portico_upstream_tries_total Requests sent to endpoints, retries included.
# TYPE portico_upstream_tries_total counter
portico_upstream_tries_total{host="a.example",ingress="default/web",service="default/web:80"} 2
`
	err := testutil.GatherAndCompare(v.registry, strings.NewReader(want),
		"portico_backend_endpoints_out", "portico_buffered_bytes", "portico_certificate_expiry_timestamp_seconds", "portico_config_generation", "portico_connections", "portico_endpoints",
		"portico_problems", "portico_requests_in_flight", "portico_requests_total", "portico_upstream_retries_total", "portico_upstream_tries_total")
	if err != nil {
		t.Error(err)
	}
}

func TestMetricsNames(t *testing.T) {
	v := newMetrics(testMeasured(t))
	o := v.observer()
	o.ConfigChanged(ingress.ChangeStructure, time.Millisecond, 2*time.Millisecond)
	o.ConfigChanged(ingress.ChangeEndpoints, 0, time.Millisecond)
	o.Leader(true)
	o.StatusWritten(nil)
	o.StatusWritten(errors.New("conflict"))
	body := ask(v.handler(), "GET", "/metrics").Body.String()
	for _, line := range []string{
		`portico_request_duration_seconds_bucket{host="a.example",ingress="default/web",service="default/web:80",le="0.0025"} 1`,
		`portico_request_duration_seconds_count{host="a.example",ingress="default/web",service="default/web:80"} 2`,
		`portico_upstream_duration_seconds_count{host="a.example",ingress="default/web",service="default/web:80"} 1`,
		`portico_config_compile_duration_seconds_count 1`,
		`portico_config_propagation_seconds_count{kind="structure"} 1`,
		`portico_config_last_reload_timestamp_seconds 1.`,
		`portico_connections_accepted_total 10`,
		`portico_connections_refused_total 4`,
		`portico_tls_handshake_errors_total 5`,
		`portico_proxy_protocol_errors_total 6`,
		`portico_tls_passthrough_connections_total 7`,
		`portico_leader 1`,
		`portico_status_writes_total{result="error"} 1`,
		`portico_status_writes_total{result="ok"} 1`,
		`portico_build_info{`,
		`go_goroutines `,
		`process_open_fds `,
	} {
		if !strings.Contains(body, "\n"+line) {
			t.Errorf("no line %s", line)
		}
	}
	if problems, err := testutil.GatherAndLint(v.registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// What clients make up has one label for all of it.
func TestMetricsOfUnknownHosts(t *testing.T) {
	m := testMeasured(t)
	m.unmatched.Observe(0, router.Observation{Method: router.MethodGet, Status: 404})
	body := ask(newMetrics(m).handler(), "GET", "/metrics").Body.String()
	if !strings.Contains(body, `portico_requests_total{host="",ingress="",method="GET",service="",status="4xx"} 1`) {
		t.Error("requests of unknown hosts are not counted")
	}
}

// Ten thousand idle hosts must not make every scrape long.
func TestMetricsOfIdleRoutes(t *testing.T) {
	m := testMeasured(t)
	m.backends = func() iter.Seq[*router.Backend] { return func(func(*router.Backend) bool) {} }
	body := ask(newMetrics(m).handler(), "GET", "/metrics").Body.String()
	if strings.Contains(body, "idle.example") {
		t.Error("a host that nobody requested has series")
	}
}
