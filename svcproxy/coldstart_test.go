package svcproxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// BenchmarkColdStart is a start on an empty kernel among many Services: from the moment when all
// of them have been read until they are live.
func BenchmarkColdStart(b *testing.B) {
	for _, size := range []struct{ services, endpoints int }{{20_000, 2}, {10_000, 10}} {
		b.Run(fmt.Sprintf("%dx%d", size.services, size.endpoints), func(b *testing.B) {
			var used float64
			for b.Loop() {
				b.StopTimer()
				h := netlab.NewHost(b)
				store := manifestsOf(size.services, size.endpoints)
				store.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}})
				programmed := make(chan time.Duration, 1)
				startController(b, h, store, nft.Config{}, programmed)
				before := cpuSeconds()
				b.StartTimer()
				store.Open()
				<-programmed
				used += cpuSeconds() - before
			}
			b.ReportMetric(used/float64(b.N), "cpu-s/op")
		})
	}
}

// manifestsOf gives a Store, not yet open, with n Services of so many endpoints each.
func manifestsOf(n, endpoints int) *manifests.Store {
	store := manifests.NewStore()
	for i := range n {
		name := fmt.Sprintf("service-%d", i)
		var addresses []string
		for j := range endpoints {
			addresses = append(addresses, netip.AddrFrom4([4]byte{10, byte(100 + j), byte(i >> 8), byte(i)}).String())
		}
		store.Put(newService(name, netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)}).String(), nil))
		store.Put(newSlice(name, "", addresses...))
	}
	return store
}

// A start compiles each Service once, although it learns then where the node is as well.
func TestStartCompilesOnce(t *testing.T) {
	store := manifestsOf(3, 1)
	store.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}})
	store.Open()
	plane := recorder{updates: make(chan Update)}
	c := New(Config{Store: store, Plane: plane, Rules: Rules{NodeName: "n"}})
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- c.Run(ctx) }()
	if u := <-plane.updates; len(u.Put) != 3 {
		t.Errorf("%+v, want each of three Services once", u)
	}
	// Another zone is about all of them.
	store.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "y"}}})
	if u := <-plane.updates; len(u.Put) != 3 {
		t.Errorf("%+v, want each of three Services once more", u)
	}
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

// recorder is a Plane that does nothing but tell.
type recorder struct {
	Plane
	updates chan Update
}

func (recorder) Run(ctx context.Context) { <-ctx.Done() }

func (r recorder) Apply(u Update) error {
	r.updates <- u
	return nil
}

// What is wrong with Services is found without a look at those with which nothing is.
func TestProblemsAmongManyServices(t *testing.T) {
	store := manifestsOf(10_000, 1)
	store.Open()
	bad := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"127.0.0.1"} }
	c := newCompiler(Rules{NodeName: "n"})
	for _, step := range []struct {
		name   string
		change func()
		want   int
	}{
		{"all of them good", func() {}, 0},
		{"one is bad", func() { store.Put(newService("service-77", "172.30.0.77", bad)) }, 1},
		{"another one", func() { store.Put(newService("service-78", "172.30.0.78", bad)) }, 2},
		{"one gets well", func() { store.Put(newService("service-77", "172.30.0.77", nil)) }, 1},
		{"the other goes", func() { store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: "service-78"}) }, 0},
		{"one takes what another one has", func() { store.Put(newService("zz", "172.30.0.5", nil)) }, 1},
	} {
		step.change()
		change, _ := store.Take()
		c.apply(change)
		state := State{services: c.services, troubled: c.troubled}
		if got := len(state.Problems()); got != step.want || c.troubled.Len() != step.want {
			t.Errorf("%s: %d problems, looked at %d Services, want %d", step.name, got, c.troubled.Len(), step.want)
		}
	}
}

// cpuSeconds is the CPU time of this process.
func cpuSeconds() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
