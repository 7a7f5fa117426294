package svcproxy

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// What comes to an address of a ServiceCIDR that nobody has is dropped, from when there is the object
// until it is gone; what another program serves gets there. Here Pods have the addresses, and answer
// whatever is let through.
func TestServiceCIDRsAreFollowed(t *testing.T) {
	l := netlab.New(t, 2)
	for _, p := range l.Pods[1] {
		p.Serve(t, 8080)
	}
	store, programmed := manifests.NewStore(), make(chan time.Duration, 10)
	store.Put(newService("s", "172.30.0.1", nil))
	store.Open()
	startController(t, l.Nodes[0], store, nft.Config{}, programmed)
	<-programmed
	theirs := func(labels map[string]string) *corev1.Service {
		return newService("theirs", l.Pods[1][0].IPv4.String(), func(s *corev1.Service) { s.Labels = labels })
	}
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.180.1.0/24", "fd00:180:1::/48"}}}
	for _, step := range []struct {
		name        string
		do          func()
		first, last error // of the two addresses
	}{
		{"another Service", func() { store.Put(newService("t", "172.30.0.2", nil)) }, nil, nil},
		{"a ServiceCIDR", func() { store.Put(cidr) }, netlab.ErrSilent, netlab.ErrSilent},
		{"a Service of another program", func() { store.Put(theirs(map[string]string{labelProxyName: "another"})) }, nil, netlab.ErrSilent},
		{"it is ours now", func() { store.Put(theirs(nil)) }, netlab.ErrRefused, netlab.ErrSilent},
		{"and theirs again", func() { store.Put(theirs(map[string]string{labelProxyName: ""})) }, nil, netlab.ErrSilent},
		{"and gone", func() {
			store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: "theirs"})
		}, netlab.ErrSilent, netlab.ErrSilent},
		{"no ServiceCIDR", func() { store.Delete(manifests.Ref{Kind: manifests.KindServiceCIDR, Name: "more"}) }, nil, nil},
	} {
		step.do()
		<-programmed
		for i, want := range []error{step.first, step.last} {
			to := netip.AddrPortFrom(l.Pods[1][i].IPv4, 8080)
			ask := l.Pods[0][0].Ask
			if want == nil {
				ask = l.Pods[0][0].AskPatiently
			}
			if _, err := ask(t, "tcp", to); !errors.Is(err, want) {
				t.Errorf("%s: %v: %v, want %v", step.name, to, err, want)
			}
		}
	}
}
