package balancer

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The times of the Lease are those of Kubernetes' own controllers: whoever dies without a
// word is followed after leaseDuration, who stops properly at once.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	leaseRetry    = 2 * time.Second
)

// term is one try to hold the Lease, from the first question to the loss. The Lease is given
// back only when the work has returned: two that give out addresses at the same time would
// give out the same ones.
type term struct {
	lead    func(ctx context.Context)
	release context.CancelFunc
	done    chan struct{}

	mu            sync.Mutex
	working, over bool
}

// elect has lead work while this process holds the Lease, until ctx ends.
func elect(ctx context.Context, cfg *Config, lead func(ctx context.Context)) error {
	for ctx.Err() == nil {
		holding, release := context.WithCancel(context.WithoutCancel(ctx))
		t := &term{release: release, done: make(chan struct{}), lead: func(held context.Context) {
			both, stop := context.WithCancel(held)
			defer stop()
			defer context.AfterFunc(ctx, stop)()
			lead(both)
		}}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Name: LeaderLease,
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: cfg.Namespace, Name: LeaderLease},
				Client:     cfg.Client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: cfg.Node},
			},
			LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: leaseRetry, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: t.begin, OnStoppedLeading: func() {}},
		})
		if err != nil {
			release()
			return err
		}
		stop := context.AfterFunc(ctx, t.stop)
		elector.Run(holding)
		stop()
		t.end()
	}
	return nil
}

// begin is called by client-go in a goroutine of its own, which may come after the end.
func (t *term) begin(held context.Context) {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	t.working = true
	t.mu.Unlock()
	defer t.release()
	defer close(t.done)
	t.lead(held)
}

// stop ends a term that has not begun; one that has ends with its work.
func (t *term) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.working {
		t.over = true
		t.release()
	}
}

// end waits for the work.
func (t *term) end() {
	t.mu.Lock()
	t.over = true
	working := t.working
	t.mu.Unlock()
	if working {
		<-t.done
	}
	t.release()
}
