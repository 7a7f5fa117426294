package svcproxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// steady puts Services that nobody changes: of TCP and UDP, of both families, with affinity and as NodePort.
func steady(store *manifests.Store) {
	for i, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		for _, affine := range []bool{false, true} {
			name := fmt.Sprintf("steady-%d-%v", i, affine)
			store.Put(newService(name, map[bool]string{false: "172.30.0.1", true: "172.30.0.2"}[affine], func(s *corev1.Service) {
				s.Spec.Type = corev1.ServiceTypeNodePort
				s.Spec.Ports[0].Protocol, s.Spec.Ports[0].NodePort = protocol, 30080
				if affine {
					s.Spec.SessionAffinity, s.Spec.Ports[0].NodePort = corev1.ServiceAffinityClientIP, 30081
				}
			}))
			store.Put(of(protocol, newSlice(name, "", "10.180.0.10", "10.180.0.11")))
		}
	}
	store.Put(newService("six", "fd00:30::1", func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
		s.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	}))
	six := of(corev1.ProtocolUDP, newSlice("six", "", "fd00:180::10"))
	six.AddressType, six.Endpoints[0].Addresses = discoveryv1.AddressTypeIPv6, six.Endpoints[0].Addresses[:1]
	store.Put(six)
}

func of(protocol corev1.Protocol, slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	slice.Ports[0].Protocol = &protocol
	return slice
}

// toSteady is where the steady Services are.
var toSteady = []netlab.Destination{
	{Network: "udp", Addr: "172.30.0.1:80"},
	{Network: "udp", Addr: "172.30.0.2:80"},
	{Network: "udp", Addr: "192.168.0.10:30080"},
	{Network: "udp", Addr: "[fd00:30::1]:80"},
	{Network: "tcp", Addr: "172.30.0.1:80"},
	{Network: "tcp", Addr: "172.30.0.2:80"},
	{Network: "tcp", Addr: "192.168.0.10:30081"},
}

// churn is Services that come, change and go.
type churn struct {
	store *manifests.Store
	// pods are the endpoints that each has now; nil: there is no such Service.
	pods [20][]string
}

func (c *churn) vip(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 30, 1, byte(i)}), 80)
}

// change makes, changes or deletes one.
func (c *churn) change() {
	i := rand.IntN(len(c.pods))
	name := fmt.Sprintf("changing-%d", i)
	if c.pods[i] != nil && rand.IntN(4) == 0 {
		c.pods[i] = nil
		c.store.Update(func(_ func(metav1.Object), remove func(manifests.Ref)) {
			remove(manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: name})
			remove(manifests.Ref{Kind: manifests.KindEndpointSlice, Namespace: "ns", Name: name})
		})
		return
	}
	c.pods[i] = nil
	var addresses []string
	for n := range 4 {
		if rand.IntN(2) == 0 || n == 3 && addresses == nil {
			c.pods[i] = append(c.pods[i], fmt.Sprintf("pod0-%d", n))
			addresses = append(addresses, fmt.Sprintf("10.180.0.%d", 10+n))
		}
	}
	affine := rand.IntN(3) == 0
	c.store.Update(func(put func(metav1.Object), _ func(manifests.Ref)) {
		put(newService(name, c.vip(i).Addr().String(), func(s *corev1.Service) {
			if affine {
				s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			}
		}))
		put(newSlice(name, "", addresses...))
	})
}

// arrives sends packets to all of them.
func (c *churn) arrives(t *testing.T, l *netlab.Lab) {
	t.Helper()
	for i, pods := range c.pods {
		if pods == nil {
			if a, err := l.Client.Ask(t, "tcp", c.vip(i)); err == nil {
				t.Errorf("a deleted Service, %v, answers: %v", c.vip(i), a)
			}
			continue
		}
		if a, err := l.Client.AskPatiently(t, "tcp", c.vip(i)); err != nil || !slices.Contains(pods, a.Server) {
			t.Errorf("%v: %v %v, want one of %v", c.vip(i), a, err, pods)
		}
	}
}

// asWanted waits until another process finds nothing to change in the kernel.
func asWanted(t *testing.T, h *netlab.Host, c *Controller) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); ; {
		changes := kernelChanges(Delta{Put: slices.Collect(c.State().Services())})
		changes.Complete, changes.Node = true, (&Network{}).kernelNode()
		var other *nft.Plane
		h.Do(t, func() {
			other, err = nft.New(nft.Config{Socket: func(kernel nft.Socket) nft.Socket { return netlab.Bystander{Socket: kernel} }})
		})
		if err == nil {
			err = other.Apply(changes)
			other.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the kernel is not as wanted: %v\n%s", err, nftCommand(t, h, "list ruleset"))
		}
	}
}

// One of ten transactions fails, in all ways that there are, while Services come, change and go:
// no packet to another Service is lost, and in the end everything is as wanted.
func TestEveryTenthWriteFails(t *testing.T) {
	l := netlab.New(t, 4)
	for _, p := range l.Pods[0] {
		p.Serve(t, 8080)
	}
	store := manifests.NewStore()
	steady(store)
	store.Open()
	faults := &netlab.Saboteur{Every: 10}
	programmed := make(chan time.Duration, 1000)
	c := startController(t, l.Nodes[0], store, nft.Config{Socket: func(kernel nft.Socket) nft.Socket { return faults.Between(kernel) }}, programmed)
	<-programmed
	clients := l.Client.StartTraffic(t, toSteady...)
	changing := &churn{store: store}
	changes := 0
	for ; slices.Min(faultCounts(faults)) < 4 && !t.Failed(); changes++ {
		changing.change()
		<-programmed
	}
	asWanted(t, l.Nodes[0], c)
	clients.Stop()
	changing.arrives(t, l)
	if s := c.State(); s.Err != nil || !c.Health().Healthy {
		t.Errorf("in the end: %v", s.Err)
	}
	t.Logf("%d changes, %d transactions, faults %v, %d connections and packets to other Services", changes, faults.Transactions(), faults.Done(), clients.Asked())
	if clients.Asked() < 100 {
		t.Error("too little traffic to say anything")
	}
}

func faultCounts(s *netlab.Saboteur) []int {
	all := s.Done()
	return all[:]
}

// Where the kernel has no nf_tables for IPv6, the Services of IPv6 have a Problem and the others are served.
func TestKernelWithoutIPv6SaysSo(t *testing.T) {
	l := netlab.New(t, 4)
	for _, p := range l.Pods[0] {
		p.Serve(t, 8080)
	}
	store := manifests.NewStore()
	steady(store)
	store.Open()
	var plane *nft.Plane
	var err error
	l.Nodes[0].Do(t, func() {
		plane, err = nft.New(nft.Config{Socket: func(kernel nft.Socket) nft.Socket { return &netlab.WithoutInet{Socket: kernel} }})
	})
	if err == nil {
		err = plane.Probe()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plane.Close)
	c := newCompiler(Rules{NodeName: "n"})
	change, _ := store.Take()
	if err := (Kernel{plane}).Apply(Update{Delta: c.apply(change), Network: &Network{}, Complete: true}); err != nil {
		t.Fatal(err)
	}
	for _, d := range toSteady {
		if to := netip.MustParseAddrPort(d.Addr); to.Addr().Is4() {
			if _, err := l.Client.AskPatiently(t, d.Network, to); err != nil {
				t.Errorf("%v: %v", d, err)
			}
		}
	}
	problems := Kernel{plane}.Problems()
	if len(problems) != 1 || problems[0].Object.String() != "Service ns/six" || problems[0].Field != "spec.ipFamilies" {
		t.Errorf("%v", problems)
	}
}
