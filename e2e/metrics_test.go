package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// scrape is what /metrics said.
type scrape struct {
	kinds  map[string]string // of families
	series map[string]float64
}

func (r replica) metrics(ctx context.Context) (*scrape, error) {
	status, body, err := r.admin(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, fmt.Errorf("metrics of %s: %d %s", r.pod, status, body)
	}
	s := &scrape{map[string]string{}, map[string]float64{}}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			s.kinds[name] = kind
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %q: %w", r.pod, line, err)
		}
		s.series[line[:i]] = v
	}
	return s, nil
}

// sum adds up the series of a metric that have all of the labels, each given as
// name="value".
func (s *scrape) sum(name string, labels ...string) float64 {
	total := 0.0
	for series, v := range s.series {
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			total += v
		}
	}
	return total
}

func TestMetricsTellWhatHappens(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	createService(t, ns, "closed", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}})
	createSlice(t, ns, "closed", "closed", 9, endpoint{ip: paint(t)["blue"]})
	ca := newAuthority(t)
	host := ns + ".test"
	soon := ca.issue(t, "ECDSA", 24*time.Hour, host)
	putSecret(t, ns, "soon", soon.crt, soon.key)
	ing := withTLS(newIngress("measured",
		rule{host: host, path: "/", backend: "blue"},
		rule{host: host, path: "/closed", backend: "closed"},
	), "soon", host)
	ing.Annotations = map[string]string{"portico.dev/ssl-redirect": "false"}
	createIngress(t, ns, ing)
	e.settle(t)
	e.waitCertificate(t, host, soon.serial)
	e.waitProblem(t, "Ingress", ns, "measured", "expires")
	e.waitAnsweredBy(t, "blue", "http://"+host+"/")
	r := e.all()[0]
	node := up.NodeIP(r.node).String()
	before := mustScrape(t, r)
	for range 10 {
		e.askAt(t.Context(), node, "http://"+host+"/")
	}
	for range 3 {
		e.askAt(t.Context(), node, "http://"+host+"/?status=500", "--request", "POST")
		e.askAt(t.Context(), node, "http://"+host+"/closed")
	}
	for i := range 5 {
		e.askAt(t.Context(), node, fmt.Sprintf("http://unknown-%d.%s/", i, host))
	}
	after := mustScrape(t, r)
	ours := []string{`host="` + host + `"`, `ingress="` + ns + `/measured"`}
	for _, tt := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"portico_requests_total", append(ours, `method="GET"`, `status="2xx"`, `service="`+ns+`/blue:80"`), 10},
		{"portico_requests_total", append(ours, `method="POST"`, `status="5xx"`), 3},
		{"portico_requests_total", append(ours, `method="GET"`, `status="5xx"`, `service="`+ns+`/closed:80"`), 3},
		{"portico_request_duration_seconds_count", ours, 16},
		{"portico_upstream_duration_seconds_count", append(ours, "blue"), 13},
		{"portico_upstream_tries_total", append(ours, "blue"), 13},
		{"portico_upstream_faults_total", append(ours, "closed", `fault="connect"`), 3},
	} {
		if got := after.sum(tt.name, tt.labels...) - before.sum(tt.name, tt.labels...); got != tt.want {
			t.Errorf("%s%v grew by %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}
	for series := range after.series {
		if strings.Contains(series, "unknown-") {
			t.Errorf("clients can make up series: %s", series)
		}
	}
	if n := after.sum("portico_requests_total", `host=""`, `status="4xx"`) - before.sum("portico_requests_total", `host=""`, `status="4xx"`); n < 5 {
		t.Errorf("%v requests for unknown hosts were counted, want 5 at least", n)
	}
	for name, kind := range map[string]string{
		"portico_requests_total": "counter", "portico_request_duration_seconds": "histogram",
		"portico_upstream_duration_seconds": "histogram", "portico_upstream_tries_total": "counter",
		"portico_upstream_retries_total": "counter", "portico_upstream_faults_total": "counter",
		"portico_request_bytes_total": "counter", "portico_response_bytes_total": "counter",
		"portico_requests_in_flight": "gauge", "portico_connections": "gauge",
		"portico_connections_accepted_total": "counter", "portico_connections_refused_total": "counter",
		"portico_tls_handshake_errors_total": "counter", "portico_endpoints": "gauge",
		"portico_config_generation": "gauge", "portico_config_last_reload_timestamp_seconds": "gauge",
		"portico_config_compile_duration_seconds": "histogram", "portico_config_propagation_seconds": "histogram",
		"portico_certificate_expiry_timestamp_seconds": "gauge", "portico_problems": "gauge",
		"portico_leader": "gauge", "portico_build_info": "gauge", "go_goroutines": "gauge", "process_open_fds": "gauge",
	} {
		if after.kinds[name] != kind {
			t.Errorf("%s is a %q, want a %s", name, after.kinds[name], kind)
		}
	}
	if got := after.sum("portico_certificate_expiry_timestamp_seconds", `name="`+ns+`/soon"`); got != float64(soon.notAfter.Unix()) {
		t.Errorf("expiry of the certificate: %v, want %v", got, soon.notAfter.Unix())
	}
	if got := after.sum("portico_problems", `kind="Ingress"`); got < 1 {
		t.Errorf("%v problems of Ingresses, want one at least: a certificate ends soon", got)
	}
	if n := after.sum("portico_config_propagation_seconds_count"); n == 0 {
		t.Error("no propagation was measured")
	}
	v, err := r.problems(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d series, %d problems, generation %v", len(after.series), len(v.Problems), after.sum("portico_config_generation"))
}

func mustScrape(t *testing.T, r replica) *scrape {
	t.Helper()
	s, err := r.metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
