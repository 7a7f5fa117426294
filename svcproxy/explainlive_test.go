package svcproxy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// A Controller that runs explains packets with its own options, and what its data plane has.
func TestControllerExplains(t *testing.T) {
	h := netlab.NewHost(t)
	store := manifests.NewStore()
	store.Put(newService("s", "172.30.0.1", func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "a"} }))
	store.Put(newSlice("s", "", "10.180.0.10"))
	programmed := make(chan time.Duration, 100)
	c := startController(t, h, store, nft.Config{}, programmed)
	p := Packet{From: netip.MustParseAddr("10.0.0.1"), To: netip.MustParseAddrPort("172.30.0.1:80"), Protocol: corev1.ProtocolTCP}
	explain := func() (e *Explanation, err error) {
		h.Do(t, func() { e, err = c.Explain(t.Context(), p, nil) })
		return e, err
	}
	if _, err := explain(); err == nil {
		t.Error("explains before it knows anything")
	}
	store.Open()
	<-programmed
	e, err := explain()
	if err != nil || e.Verdict != Delivered || !e.Kernel.Agrees || e.Kernel.Plane != "" || len(e.Kernel.Elements) == 0 {
		t.Errorf("%+v, %v", e, err)
	}
	store.Put(newSlice("s", ""))
	<-programmed
	e, err = explain()
	if err != nil || e.Verdict != Delivered || !e.Kernel.Agrees || len(e.Endpoints) != 1 || e.Endpoints[0].Why != string(ReasonHeld) {
		t.Errorf("while the last endpoint is held: %+v, %v", e, err)
	}
	unready, not := newSlice("s", "", "10.180.0.10"), false
	unready.Endpoints[0].Conditions.Ready = &not
	store.Put(unready)
	<-programmed
	e, err = explain()
	if err != nil || e.Verdict != Rejected || !e.Kernel.Agrees {
		t.Fatalf("%+v, %v", e, err)
	}
	if notes := strings.Join(e.Notes, "\n"); !strings.Contains(notes, "ask with --kubeconfig") {
		t.Errorf("why there is no endpoint: %s", notes)
	}
}
