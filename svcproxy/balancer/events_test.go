package balancer

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/portico-ingress/portico/svcproxy/announce"
)

// What is sent to the API server when an endpoint is skipped, and when it is used again.
func TestEventsOfSkippedEndpoints(t *testing.T) {
	sent := make(chan eventsv1.Event, 2)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e eventsv1.Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		sent <- e
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e)
	}))
	defer api.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: api.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	b := &Balancer{events: newEventSender(client, "node0", zap.NewNop())}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.events.run(ctx)
	}()
	defer func() { cancel(); <-done }()
	service := corev1.ObjectReference{Kind: "Service", Namespace: "default", Name: "web", UID: "1"}
	for _, c := range []struct {
		skipped      bool
		kind, reason string
	}{{true, "Warning", "EndpointSkipped"}, {false, "Normal", "EndpointReturned"}} {
		b.EndpointSkipped(service, c.skipped, "why")
		if e := <-sent; e.Type != c.kind || e.Reason != c.reason || e.Note != "why" || e.Regarding != service || e.ReportingInstance != "node0" || e.Namespace != "default" {
			t.Errorf("%+v", e)
		}
	}
}

// Whoever reads that nobody answers learns which interfaces there are, and where to correct what.
func TestNoInterfaceSaysWhatThereIs(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	b := &Balancer{cfg: Config{Node: "n1", Interfaces: []string{"eth*"}}}
	b.desired.Claims = map[netip.Addr]announce.Claim{addr: {Interfaces: []string{"nope"}}}
	for want, have := range map[string][]string{
		"Nobody answers for 192.0.2.1: node n1, whose it is, has no interface that is among eth*, nope; it has eth0, eth1; correct interfaces of the L2Advertisement, or --announce-interface.": {"eth0", "eth1"},
		"Nobody answers for 192.0.2.1: node n1, whose it is, has no interface that is among eth*, nope; it has none that leads to a LAN.":                                                       nil,
	} {
		kind, reason, note := b.describe(announce.Event{Kind: announce.NoInterface, Address: addr, Interfaces: have})
		if kind != corev1.EventTypeWarning || reason != "NoInterface" || note != want {
			t.Errorf("%s %s %s", kind, reason, note)
		}
	}
}
