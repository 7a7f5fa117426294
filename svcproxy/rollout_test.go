package svcproxy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// rollout is a Service of TCP and UDP whose Pods are replaced, while clients never stop.
type rollout struct {
	lab        *netlab.Lab
	store      *manifests.Store
	programmed chan time.Duration
}

var rolledOut = netip.MustParseAddrPort("192.0.2.1:80")

func newRollout(t *testing.T) *rollout {
	t.Helper()
	r := &rollout{lab: netlab.New(t, 3), store: manifests.NewStore(), programmed: make(chan time.Duration, 100)}
	for _, pods := range r.lab.Pods {
		for _, p := range pods {
			p.Serve(t, 8080)
		}
	}
	for name, protocol := range map[string]corev1.Protocol{"s": corev1.ProtocolTCP, "u": corev1.ProtocolUDP} {
		r.store.Put(newService(name, map[string]string{"s": "172.30.0.1", "u": "172.30.0.2"}[name], func(s *corev1.Service) {
			s.Spec.ExternalIPs, s.Spec.Ports[0].Protocol = []string{"192.0.2.1"}, protocol
		}))
	}
	r.store.Open()
	startController(t, r.lab.Nodes[0], r.store, nft.Config{}, r.programmed)
	return r
}

// addresses replaces the short names of Pods.
var addresses = strings.NewReplacer("a0", "10.180.0.10", "a1", "10.180.0.11", "a2", "10.180.0.12", "b0", "10.180.1.10", "b1", "10.180.1.11", "b2", "10.180.1.12")

// step writes two slices of both Services, one after the other, as controllers do; each is live before
// the next.
func (r *rollout) step(texts ...string) {
	for i, text := range texts {
		for _, name := range []string{"s", "u"} {
			slice := flagged(name, fmt.Sprint("-", i), addresses.Replace(text))
			if name == "u" {
				slice.Ports[0].Protocol = new(corev1.ProtocolUDP)
			}
			r.store.Put(slice)
			<-r.programmed
		}
	}
}

// connecting makes connections until stop, which gives how many were made. Each has to be served.
func (r *rollout) connecting(t *testing.T) (made <-chan struct{}, stop func() int) {
	t.Helper()
	each, end := make(chan struct{}, 1), make(chan struct{})
	n := 0
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			if a, err := r.lab.Client.AskPatiently(t, "tcp", rolledOut); err != nil {
				t.Errorf("connection %d: %v %v", n, a, err)
			}
			n++
			select {
			case <-end:
				return
			case each <- struct{}{}:
			default:
			}
		}
	})
	return each, func() int { close(end); clients.Wait(); return n }
}

// Every connection that is made while all Pods of a Service are replaced is served, those that are there
// stay, and packets of UDP go at once to who is there.
func TestRollingUpdate(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps [][]string
	}{
		{"one replica, makes before it breaks", [][]string{{"a0", ""}, {"a0 b0,unready", ""}, {"a0 b0", ""}, {"a0,terminating b0", ""}, {"b0", ""}}},
		{"one replica, terminates first", [][]string{{"a0", ""}, {"a0,terminating", ""}, {"a0,terminating b0,unready", ""}, {"a0,terminating b0", ""}, {"b0", ""}}},
		{"one replica, another slice", [][]string{{"a0", ""}, {"", "b0"}, {"a1", ""}, {"", "b1"}}},
		{"one replica, ready only later", [][]string{{"a0", ""}, {"", "b0,unready"}, {"", "b0"}}},
		{"three replicas", [][]string{
			{"a0 a1 a2", ""},
			{"a0,terminating a1 a2 b0,unready", ""},
			{"a1 a2", "b0"},
			{"a1,terminating a2", "b0 b1,unready"},
			{"a2,terminating", "b0 b1"},
			{"", "b0 b1 b2"},
			{"b0", ""},
			{"", "a0 a1 a2"},
		}},
		{"three replicas, all at once", [][]string{{"a0 a1 a2", ""}, {"", ""}, {"", "b0 b1 b2"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRollout(t)
			r.step(test.steps[0]...)
			made, stop := r.connecting(t)
			tcp, udp := r.dial(t, "tcp"), r.dial(t, "udp")
			stays := talk(t, tcp)
			for _, s := range test.steps[1:] {
				r.step(s...)
				for range 5 {
					<-made
				}
				if got := talk(t, tcp); got != stays {
					t.Errorf("after %q an established connection is answered by %s, not %s", s, got, stays)
				}
				moves(t, udp, s)
			}
			t.Logf("%d connections made", stop())
		})
	}
}

// dial opens what is used to the end.
func (r *rollout) dial(t *testing.T, network string) net.Conn {
	t.Helper()
	c, err := r.lab.Client.Dial(t, network, netip.AddrPort{}, rolledOut, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func talk(t *testing.T, c net.Conn) string {
	t.Helper()
	wait, attempts := 10*time.Second, 1
	if c.LocalAddr().Network() == "udp" {
		// What is on its way while its flow is deleted is lost, as UDP may be: it is said again.
		wait, attempts = 300*time.Millisecond, 30
	}
	for {
		a, err := netlab.Talk(c, wait)
		if err == nil {
			return a.Server
		}
		if attempts--; attempts == 0 {
			t.Fatalf("%s: %v", c.LocalAddr().Network(), err)
		}
	}
}

// moves waits until packets of a flow go to one of the ready endpoints of a step, if there are any.
func moves(t *testing.T, udp net.Conn, step []string) {
	t.Helper()
	var ready []string
	for word := range strings.FieldsSeq(addresses.Replace(strings.Join(step, " "))) {
		if !strings.Contains(word, ",") {
			ready = append(ready, word)
		}
	}
	if len(ready) == 0 {
		return
	}
	began := time.Now()
	for {
		got := talk(t, udp)
		if slices.Contains(ready, podAddress(got)) {
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("after %q packets of an old UDP flow are answered by %s", step, got)
		}
	}
}

// podAddress is that of "pod0-1".
func podAddress(name string) string {
	var node, pod int
	_, _ = fmt.Sscanf(name, "pod%d-%d", &node, &pod)
	return fmt.Sprintf("10.180.%d.%d", node, 10+pod)
}
