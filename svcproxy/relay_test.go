package svcproxy

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
)

// The PROXY protocol is asked for by an annotation; what cannot be done is a Problem of it.
func TestProxyProtocolAnnotation(t *testing.T) {
	for _, c := range []struct {
		value    string
		protocol corev1.Protocol
		able     bool
		want     uint8
		problem  string
	}{
		{value: "", able: true},
		{value: "v1", able: true, want: 1},
		{value: "v2", able: true, want: 2},
		{value: "true", able: true, problem: `"true" is neither "v1" nor "v2"`},
		{value: "v2", problem: "the kernel cannot write it"},
		{value: "v2", able: true, protocol: corev1.ProtocolUDP, problem: "is for TCP"},
	} {
		s := newService("s", "172.30.0.1", func(s *corev1.Service) {
			s.Annotations = map[string]string{annotationProxyProtocol: c.value}
			s.Spec.Ports[0].Protocol = c.protocol
		})
		got := compileWith(t, Rules{NodeName: "n", ProxyProtocol: c.able}, s)
		if got.Ports[0].ProxyProtocol != c.want {
			t.Errorf("%+v: version %d", c, got.Ports[0].ProxyProtocol)
		}
		if (c.problem == "") != (len(got.Problems) == 0) || c.problem != "" && !strings.Contains(got.Problems[0].Text, c.problem) {
			t.Errorf("%+v: %v", c, got.Problems)
		}
	}
}

// An endpoint on loopback is used only where it was allowed.
func TestLoopbackEndpoints(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		got := compileWith(t, Rules{NodeName: "n", LoopbackEndpoints: allowed}, newService("s", "172.30.0.1", nil), newSlice("s", "", "127.0.0.1"))
		if e := got.Ports[0].Endpoints[0]; e.Cluster != allowed {
			t.Errorf("allowed %v: %v", allowed, e)
		}
	}
}

// compileWith gives what one Service is with other Rules than the usual ones.
func compileWith(t *testing.T, rules Rules, s *corev1.Service, others ...metav1.Object) *Service {
	t.Helper()
	store := manifests.NewStore()
	store.Open()
	store.Put(s)
	for _, o := range others {
		store.Put(o)
	}
	change, _ := store.Take()
	return newCompiler(rules).apply(change).Put[0]
}
