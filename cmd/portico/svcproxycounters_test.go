package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// Both families and all addresses of a Service port are one metric for each thing that was done.
func TestConnectionsAreAddedUp(t *testing.T) {
	store := manifests.NewStore()
	store.Put(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1", "fd00::1"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP}},
		},
	})
	c := newConnectionCounter(nil, compiledState(t, store))
	v4, v6, gone := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.96.0.2")
	c.counters = func() ([]nft.Count, error) {
		return []nft.Count{
			{Protocol: 6, IPv6: true, Addr: v6, Port: 80, Kind: nft.ClusterIP, Connections: 1},
			{Protocol: 6, Addr: v4, Port: 80, Kind: nft.Reject, Connections: 10},
			{Protocol: 6, Addr: gone, Port: 80, Kind: nft.ClusterIP, Connections: 100},
			{Protocol: 6, Port: 30080, Kind: nft.External, Connections: 1000},
			{Protocol: 6, IPv6: true, Port: 30080, Kind: nft.External, Connections: 2000},
			{Protocol: 17, Addr: v4, Port: 80, Kind: nft.ClusterIP, Connections: 10000},
			{Protocol: 6, Addr: v4, Port: 80, Kind: nft.ClusterIP, Connections: 100000},
		}, nil
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%v %v", families, err)
	}
	got := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		got[labels["service"]+" "+labels["frontend"]+" "+labels["action"]] = m.GetCounter().GetValue()
	}
	want := map[string]float64{"web ClusterIP forwarded": 100001, "web ClusterIP rejected": 10, "web NodePort forwarded": 3000}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// BenchmarkScrape is what a look at the metrics of many Services makes, without the kernel's part.
func BenchmarkScrape(b *testing.B) {
	const services = 10_000
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }
	store := manifests.NewStore()
	counts := make([]nft.Count, 0, services)
	for i := range services {
		store.Put(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("service-%d", i)},
			Spec: corev1.ServiceSpec{
				ClusterIP: address(i).String(), Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
			},
		})
		counts = append(counts, nft.Count{Protocol: 6, Addr: address(i), Port: 80, Kind: nft.Reject, Connections: 1})
	}
	registry := prometheus.NewRegistry()
	c := newConnectionCounter(nil, compiledState(b, store))
	c.counters = func() ([]nft.Count, error) { return counts, nil }
	registry.MustRegister(c)
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	b.ReportAllocs()
	for b.Loop() {
		w := &discarding{httptest.NewRecorder(), 0}
		handler.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), "GET", "/metrics", nil))
		if w.n < services*100 {
			b.Fatalf("%d bytes", w.n)
		}
	}
}

// discarding keeps no body.
type discarding struct {
	*httptest.ResponseRecorder
	n int
}

func (d *discarding) Write(b []byte) (int, error) {
	d.n += len(b)
	return io.Discard.Write(b)
}

// compiledState gives the State of a Controller that has taken all of a Store.
func compiledState(tb testing.TB, store *manifests.Store) func() *svcproxy.State {
	tb.Helper()
	store.Open()
	done := make(chan struct{}, 1)
	c := svcproxy.New(svcproxy.Config{
		Store: store, Plane: nowhere{}, Rules: svcproxy.Rules{NodeName: "n"},
		Observe: &svcproxy.Observer{Changed: func(manifests.Change) { done <- struct{}{} }},
	})
	ctx, stop := context.WithCancel(tb.Context())
	tb.Cleanup(stop)
	go func() { _ = c.Run(ctx) }()
	<-done
	return c.State
}

// nowhere is a Plane that does nothing.
type nowhere struct{}

func (nowhere) Apply(svcproxy.Update) error   { return nil }
func (nowhere) Repair() error                 { return nil }
func (nowhere) Run(ctx context.Context)       { <-ctx.Done() }
func (nowhere) Problems() []manifests.Problem { return nil }
func (nowhere) Look() (svcproxy.Live, error)  { return nil, errors.ErrUnsupported }
