package svcproxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
	"github.com/portico-ingress/portico/svcproxy/relay"
)

// What the API server would refuse comes from folders: only that port is not served, and it is said.
func TestPortsThatNoServiceCanHave(t *testing.T) {
	for _, c := range []struct {
		name    string
		ports   []corev1.ServicePort
		want    string // frontends
		problem string
	}{
		{"no port", []corev1.ServicePort{{Name: "a"}, {Name: "b", Port: 81}}, "172.30.0.1:81", "spec.ports[0].port: 0 is no port; this one is not served, give it one from 1 to 65535"},
		{"negative", []corev1.ServicePort{{Port: -80}}, "", "spec.ports[0].port: -80 is no port"},
		{"too big", []corev1.ServicePort{{Port: 70000}}, "", "spec.ports[0].port: 70000 is no port"},
		{"the biggest", []corev1.ServicePort{{Port: 65535, NodePort: 65535}}, "172.30.0.1:65535 *:65535", ""},
		{"NodePort too big", []corev1.ServicePort{{Port: 80, NodePort: 95534}}, "172.30.0.1:80", "spec.ports[0].nodePort: 95534 is no port; without it the port is served, give it one from 1 to 65535"},
		{"NodePort negative", []corev1.ServicePort{{Port: 80, NodePort: -1}}, "172.30.0.1:80", "spec.ports[0].nodePort: -1 is no port"},
		{"protocol", []corev1.ServicePort{{Port: 80, Protocol: "ICMP"}}, "", `spec.ports[0].protocol: "ICMP" is not served; want TCP, UDP or SCTP`},
		{"two of one name", []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "a", Port: 81}}, "172.30.0.1:80", `spec.ports[1].name: "a" is the name of another TCP port, too; this one is not served, give it another name`},
		{"one name, two protocols", []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "a", Port: 81, Protocol: "UDP"}}, "172.30.0.1:80 172.30.0.1:81", ""},
		{"two of one number", []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 80}}, "172.30.0.1:80", `spec.ports[1].port: 80/TCP is there already; this one is not served, give it another number`},
		{"one number, two protocols", []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 30080}, {Name: "b", Port: 80, NodePort: 30080, Protocol: "UDP"}}, "172.30.0.1:80 *:30080 172.30.0.1:80 *:30080", ""},
		{"two of one NodePort", []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 30080}, {Name: "b", Port: 81, NodePort: 30080}}, "172.30.0.1:80 *:30080 172.30.0.1:81", `spec.ports[1].nodePort: 30080/TCP is there already; without it the port is served, give it another number`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, d := compileAll(t, newService("s", "172.30.0.1", func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports = "NodePort", c.ports }))
			var got []string
			for _, p := range d.Put[0].Ports {
				for _, f := range p.Frontends {
					got = append(got, f.String())
				}
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("frontends %q, want %q", text, c.want)
			}
			var problems []string
			for _, p := range d.Put[0].Problems {
				problems = append(problems, p.Field+": "+p.Text)
			}
			if len(problems) > 1 || (c.problem == "") != (len(problems) == 0) || !strings.HasPrefix(strings.Join(problems, ""), c.problem) {
				t.Errorf("problems %q, want %q", problems, c.problem)
			}
		})
	}
}

func TestHealthCheckNodePortThatNoneCanHave(t *testing.T) {
	_, _, d := compileAll(t, newService("s", "172.30.0.1", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "LoadBalancer", "Local", 97536
	}))
	if h, p := d.Put[0].HealthCheck, fmt.Sprint(d.Put[0].Problems); h != nil || !strings.Contains(p, "spec.healthCheckNodePort") {
		t.Errorf("%+v %s", h, p)
	}
}

// Bad Services beside good ones, from the first view on: the good ones are served, and so is what
// comes later.
func TestOneBadServiceStopsNothing(t *testing.T) {
	for _, mode := range []string{"nftables", "relay"} {
		t.Run(mode, func(t *testing.T) {
			h := netlab.NewHost(t)
			store, programmed := manifests.NewStore(), make(chan time.Duration, 100)
			good := func(name string, nodePort int32) {
				store.Put(newService(name, fmt.Sprintf("172.30.0.%d", nodePort%100), func(s *corev1.Service) {
					s.Spec.Type, s.Spec.Ports[0].NodePort = "NodePort", nodePort
				}))
				store.Put(newSlice(name, "", "10.180.0.10"))
			}
			good("good", 30001)
			store.Put(newService("bad", "172.30.0.99", func(s *corev1.Service) {
				s.Spec.Type = "NodePort"
				s.Spec.Ports = []corev1.ServicePort{{Name: "a"}, {Name: "b", Port: 70000, NodePort: 95534}, {Name: "c", Port: 81}, {Name: "d", Port: 81}}
			}))
			store.Open()
			var c *Controller
			if mode == "nftables" {
				c = startController(t, h, store, nft.Config{}, programmed)
			} else {
				c = runController(t, Config{
					Store: store, Plane: newRelay(t, h), Rules: Rules{NodeName: "n"},
					Observe: &Observer{Programmed: func(_, _, since time.Duration) { programmed <- since }},
				})
			}
			forwards := func(nodePort uint16) bool {
				var live Live
				var err error
				h.Do(t, func() { live, err = c.cfg.Plane.Look() })
				if err != nil {
					t.Fatal(err)
				}
				fate := live.Trace(nft.Packet{Protocol: 6, From: netip.MustParseAddr("127.0.0.1"), To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), nodePort)})
				if mode == "nftables" { // NodePorts do not answer on loopback
					fate = live.Trace(nft.Packet{Protocol: 6, From: netip.MustParseAddr("10.9.9.9"), To: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 30, 0, byte(nodePort % 100)}), 80)})
				}
				return slices.Contains(fate.Endpoints, netip.MustParseAddrPort("10.180.0.10:8080"))
			}
			receive(t, programmed)
			if !forwards(30001) || !c.Ready() || c.State().Err != nil {
				t.Errorf("the good one is not served: %+v", c.State())
			}
			problems := fmt.Sprint(c.Problems())
			for _, want := range []string{"spec.ports[0].port", "spec.ports[1].port", "spec.ports[3].port"} {
				if !strings.Contains(problems, want) {
					t.Errorf("problems %s lack %s", problems, want)
				}
			}
			good("later", 30002)
			for !forwards(30002) {
				receive(t, programmed)
			}
		})
	}
}

// A Service that a data plane cannot take, whatever this package checked, is left out alone.
func TestPlanesLeaveOutWhatTheyCannotTake(t *testing.T) {
	h := netlab.NewHost(t)
	var kernel *nft.Plane
	var err error
	h.Do(t, func() { kernel, err = nft.New(nft.Config{}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kernel.Close)
	endpoint := []netip.AddrPort{netip.MustParseAddrPort("10.180.0.10:8080")}
	vip := netip.MustParseAddr("127.0.0.1")
	err = kernel.Apply(nft.Changes{Complete: true, Node: &nft.Node{}, Put: []*nft.Service{
		{Name: "bad", Protocol: 6, Frontends: []nft.Frontend{{Addr: vip, Kind: nft.External}}},
		{Name: "good", Protocol: 6, Frontends: []nft.Frontend{{Addr: vip, Port: 80, Kind: nft.External}}, Cluster: endpoint},
	}})
	if err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("nothing is said of what was left out: %v", err)
	}
	userspace, err := relay.New(relay.Config{Within: func(f func()) { h.Do(t, f) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(userspace.Close)
	err = userspace.Apply(relay.Changes{Complete: true, Put: []*relay.Service{
		{Name: "bad", Protocol: 6, Frontends: []relay.Frontend{{Addr: vip, Kind: relay.Cluster}}},
		{Name: "good", Protocol: 6, Frontends: []relay.Frontend{{Addr: vip, Port: 80, Kind: relay.Cluster}}, Cluster: endpoint},
	}})
	if err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("nothing is said of what was left out: %v", err)
	}
	for _, plane := range []Plane{Kernel{kernel}, NewRelay(userspace)} {
		if err := plane.Repair(); err != nil {
			t.Error(err)
		}
		var live Live
		h.Do(t, func() { live, err = plane.Look() })
		if err != nil {
			t.Fatal(err)
		}
		if fate := live.Trace(nft.Packet{Protocol: 6, From: vip, To: netip.AddrPortFrom(vip, 80)}); !slices.Equal(fate.Endpoints, endpoint) {
			t.Errorf("%T: the good one: %+v", plane, fate)
		}
	}
}

// newRelay does not run yet.
func newRelay(t testing.TB, h *netlab.Host) *Relay {
	t.Helper()
	p, err := relay.New(relay.Config{Within: func(f func()) { h.Do(t, f) }})
	if err != nil {
		t.Fatal(err)
	}
	return NewRelay(p)
}

// receive waits for what has to come.
func receive[T any](t testing.TB, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not come")
	}
	return v
}

// runController runs one until the test ends.
func runController(t testing.TB, cfg Config) *Controller {
	t.Helper()
	c := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}
