package svcproxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
	"github.com/portico-ingress/portico/svcproxy/outlier"
	"github.com/portico-ingress/portico/svcproxy/relay"
)

// watched is node 0 of a lab with a Controller that skips endpoints which fail.
type watched struct {
	*netlab.Lab
	*Controller
	store    *manifests.Store
	watcher  *FlowWatcher
	outliers chan Outlier
	probes   atomic.Int64 // that were answered, one way or the other
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	w := &watched{Lab: netlab.New(t, 2), store: manifests.NewStore(), outliers: make(chan Outlier, 100)}
	var plane *nft.Plane
	var monitor *nft.FlowMonitor
	var err, err2, err3 error
	w.Nodes[0].Do(t, func() {
		plane, err = nft.New(nft.Config{})
		monitor, err2 = nft.NewFlowMonitor()
		err3 = nft.CountFlows()
	})
	if err = errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		monitor.Close()
		plane.Close()
	})
	w.watcher = NewFlowWatcher(monitor, true, 100, zap.NewNop())
	w.start(t, Kernel{plane}, w.watcher.Failures())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.watcher.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

// start runs the Controller until the test ends.
func (w *watched) start(t *testing.T, plane Plane, failures <-chan Failure) {
	t.Helper()
	w.Controller = New(Config{
		Store: w.store, Plane: plane, Rules: Rules{NodeName: "n"},
		Outliers: &OutlierDetection{
			Config:   outlier.Config{Window: time.Minute, Ejection: time.Second, MaxEjection: 2 * time.Second},
			Failures: failures, Dial: w.dial(t),
		},
		Observe: &Observer{Outlier: func(o Outlier) { w.outliers <- o }},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// dial is from node 0.
func (w *watched) dial(t *testing.T) func(context.Context, netip.AddrPort) (net.Conn, error) {
	t.Helper()
	return func(ctx context.Context, to netip.AddrPort) (conn net.Conn, err error) {
		defer w.probes.Add(1)
		w.Nodes[0].Do(t, func() { conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", to.String()) })
		return conn, err
	}
}

// endpoints are those of the Service, by address.
func (w *watched) endpoints() map[string]Endpoint {
	all := map[string]Endpoint{}
	for s := range w.State().Services() {
		for _, p := range s.Ports {
			for _, e := range p.Endpoints {
				all[e.Addr.Addr().String()] = e
			}
		}
	}
	return all
}

func (w *watched) skips(pods ...*netlab.Host) bool {
	n := 0
	for _, e := range w.endpoints() {
		if strings.HasPrefix(string(e.Why), "skipped: ") {
			n++
		}
	}
	for _, p := range pods {
		if !strings.HasPrefix(string(w.endpoints()[p.IPv4.String()].Why), "skipped: ") {
			return false
		}
	}
	return n == len(pods)
}

// askUntil makes connections, whatever comes of them, until f is true.
func (w *watched) askUntil(t *testing.T, to string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to that: %v", w.endpoints())
		}
		_, _ = w.Client.Ask(t, "tcp", netip.MustParseAddrPort(to))
	}
}

func nftCommand(t *testing.T, h *netlab.Host, command string) (output string) {
	t.Helper()
	var out []byte
	var err error
	h.Do(t, func() { out, err = exec.Command("nft", command).CombinedOutput() })
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// Of four endpoints one refuses and one says nothing: soon nobody is sent there, while both are ready
// as before; and when they are well again, they are used again.
func TestEndpointsThatFailAreSkipped(t *testing.T) {
	w := newWatched(t)
	refuses, silent := w.Pods[0][1], w.Pods[1][1]
	w.Pods[0][0].Serve(t, 8080)
	w.Pods[1][0].Serve(t, 8080)
	nftCommand(t, silent, "add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }")
	w.store.Put(newService("s", "172.30.0.1", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.1"} }))
	w.store.Put(newSlice("s", "", "10.180.0.10", "10.180.0.11", "10.180.1.10", "10.180.1.11"))
	w.store.Open()

	w.askUntil(t, "192.0.2.1:80", func() bool { return w.skips(refuses, silent) })
	for range 60 {
		// From a port, maybe, of which an earlier attempt at the silent one is still on its way.
		if _, err := w.Client.AskFrom(t, "tcp", netip.AddrPort{}, netip.MustParseAddrPort("192.0.2.1:80"), time.Minute); err != nil {
			t.Fatalf("%v: %v", err, w.endpoints())
		}
	}
	all := w.endpoints()
	for _, c := range []struct{ address, why string }{{"10.180.0.11", "skipped: refused "}, {"10.180.1.11", "skipped: did not answer "}} {
		if e := all[c.address]; !strings.HasPrefix(string(e.Why), c.why) || !e.Ready || e.Cluster {
			t.Errorf("%+v, want %q", e, c.why)
		}
	}
	for range 2 {
		if o := <-w.outliers; !o.Skipped || o.Service.Name != "s" || !strings.Contains(o.Why, "skipped: ") {
			t.Errorf("%+v", o)
		}
	}

	refuses.Serve(t, 8080)
	silent.Serve(t, 8080)
	nftCommand(t, silent, "delete table inet t")
	answered := map[string]bool{}
	for deadline := time.Now().Add(90 * time.Second); len(answered) < 4; {
		a, err := w.Client.AskPatiently(t, "tcp", netip.MustParseAddrPort("192.0.2.1:80"))
		if answered[a.Server] = true; err != nil || time.Now().After(deadline) {
			t.Fatalf("%v: %v: %v", answered, err, w.endpoints())
		}
	}
	for range 2 {
		if o := <-w.outliers; o.Skipped {
			t.Errorf("%+v", o)
		}
	}
	traffic, _ := w.watcher.Traffic(func(*Traffic) bool { return true })
	refused := uint64(0)
	for _, f := range traffic {
		refused += f.Refused
	}
	if refused < 3 {
		t.Errorf("counted: %+v", traffic)
	}
}

// Clients that are waiting for an endpoint which says nothing get through when it is skipped, with the attempt
// that they are at.
func TestAttemptsAtASkippedEndpoint(t *testing.T) {
	w := newWatched(t)
	silent := w.Pods[1][0]
	w.Pods[0][0].Serve(t, 8080)
	nftCommand(t, silent, "add table inet t; add chain inet t c { type filter hook input priority 0; policy drop; }")
	w.store.Put(newService("s", "172.30.0.1", nil))
	w.store.Put(newSlice("s", "", "10.180.0.10", "10.180.1.10"))
	w.store.Open()
	w.askUntil(t, "172.30.0.1:80", func() bool { return len(w.endpoints()) == 2 })
	var clients sync.WaitGroup
	for range 24 { // half of them to the silent one, more or less: three are enough
		clients.Go(func() {
			a, err := w.Client.AskFrom(t, "tcp", netip.AddrPort{}, netip.MustParseAddrPort("172.30.0.1:80"), time.Minute)
			if err != nil || a.Server != "pod0-0" {
				t.Errorf("%v %v", a, err)
			}
		})
	}
	clients.Wait()
	if !w.skips(silent) {
		t.Errorf("not skipped: %v", w.endpoints())
	}
}

// A client that an endpoint does not answer, because a network policy is against it, has the endpoint
// asked by the node itself: it is well, and stays.
func TestEndpointsThatAreWellStayWhateverClientsSay(t *testing.T) {
	w := newWatched(t)
	w.Pods[0][0].Serve(t, 8080)
	w.Pods[0][1].Serve(t, 8080)
	nftCommand(t, w.Pods[0][1], "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c ip saddr 192.168.0.100 drop")
	w.store.Put(newService("s", "172.30.0.1", nil))
	w.store.Put(newSlice("s", "", "10.180.0.10", "10.180.0.11"))
	w.store.Open()
	w.askUntil(t, "172.30.0.1:80", func() bool { return w.probes.Load() >= 4 })
	if !w.skips() || len(w.outliers) > 0 {
		t.Errorf("skipped: %v", w.endpoints())
	}
}

// An endpoint that has restarted is used as soon as it is ready: somebody has found that it is.
func TestSkippedEndpointIsForgottenWhenItIsNotReady(t *testing.T) {
	w := newWatched(t)
	w.Pods[0][0].Serve(t, 8080)
	w.store.Put(newService("s", "172.30.0.1", nil))
	w.store.Put(newSlice("s", "", "10.180.0.10", "10.180.0.11"))
	w.store.Open()
	w.askUntil(t, "172.30.0.1:80", func() bool { return w.skips(w.Pods[0][1]) })
	w.store.Put(newSlice("s", "", "10.180.0.10"))
	w.askUntil(t, "172.30.0.1:80", func() bool { return len(w.endpoints()) == 1 })
	w.store.Put(newSlice("s", "", "10.180.0.10", "10.180.0.11"))
	w.askUntil(t, "172.30.0.1:80", func() bool { return len(w.endpoints()) == 2 })
	if e := w.endpoints()["10.180.0.11"]; !e.Cluster {
		t.Error(e)
	}
}

// In userspace a client does not notice, because another endpoint is tried; then nobody has to try.
func TestRelayedEndpointsThatFailAreSkipped(t *testing.T) {
	w := &watched{Lab: netlab.New(t, 2), store: manifests.NewStore(), outliers: make(chan Outlier, 100)}
	failures, note := RelayFailures()
	plane, err := relay.New(relay.Config{ConnectFailed: note, Within: func(f func()) { w.Nodes[0].Do(t, f) }})
	if err != nil {
		t.Fatal(err)
	}
	w.start(t, NewRelay(plane), failures)
	w.Pods[0][0].Serve(t, 8080)
	w.store.Put(newService("s", "172.30.0.1", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	}))
	w.store.Put(newSlice("s", "", "10.180.0.10", "10.180.0.11"))
	w.store.Open()
	w.askUntil(t, "192.168.0.10:30080", func() bool { return w.skips(w.Pods[0][1]) })
	w.Pods[0][1].Serve(t, 8080)
	w.askUntil(t, "192.168.0.10:30080", func() bool { return w.skips() })
	if out, back := <-w.outliers, <-w.outliers; !out.Skipped || back.Skipped {
		t.Errorf("%+v, %+v", out, back)
	}
}

// A connection counts when it is without an answer for the second time, once.
func TestUnanswered(t *testing.T) {
	var u unanswered
	look := func(ids ...uint32) (told []uint32) {
		for _, id := range ids {
			if u.again(id) {
				told = append(told, id)
			}
		}
		u.next()
		return told
	}
	for i, c := range []struct{ ids, told []uint32 }{
		{[]uint32{1, 2}, nil},
		{[]uint32{1, 3}, []uint32{1}},
		{[]uint32{1, 3}, []uint32{3}},
		{[]uint32{1, 3}, nil},
		{nil, nil},
		{[]uint32{1}, nil},
		{[]uint32{1}, []uint32{1}},
	} {
		if got := look(c.ids...); len(got) != len(c.told) || len(got) > 0 && got[0] != c.told[0] {
			t.Errorf("look %d: %v, want %v", i, got, c.told)
		}
	}
}

// A node always reaches its own Pods, whatever a network policy says: they say nothing about the way to others.
func TestWitnesses(t *testing.T) {
	at := func(last byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 80)
	}
	p := &Port{Endpoints: []Endpoint{
		{Addr: at(1), Local: true, Cluster: true},
		{Addr: at(2), Cluster: true},
		{Addr: at(3)},
		{Addr: at(4), Cluster: true},
		{Addr: at(5), ForLocal: true},
		{Addr: at(6), Cluster: true},
	}}
	for suspect, want := range map[netip.AddrPort][]netip.AddrPort{
		at(1): {at(2), at(4)}, // who is on this node
		at(2): {at(4), at(5)}, // who is not; the third is not used
		at(6): {at(2), at(4)},
	} {
		if got := p.witnesses(suspect); !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", suspect, got, want)
		}
	}
}
