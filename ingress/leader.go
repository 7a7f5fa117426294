package ingress

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
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

// elect takes part in the election until ctx ends, and says when it is won and lost.
func elect(ctx context.Context, cfg *Config, lead func(leading bool)) {
	for ctx.Err() == nil {
		t := term{log: cfg.log(), lead: lead}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Name: cfg.ElectionID,
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: cfg.Namespace, Name: cfg.ElectionID},
				Client:     cfg.Client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: cfg.Identity},
			},
			LeaseDuration:   leaseDuration,
			RenewDeadline:   renewDeadline,
			RetryPeriod:     leaseRetry,
			ReleaseOnCancel: true,
			Callbacks:       leaderelection.LeaderCallbacks{OnStartedLeading: t.begin, OnStoppedLeading: t.end},
		})
		if err != nil {
			t.log.Error("leader election cannot start; nobody writes status", zap.Error(err))
			return
		}
		elector.Run(ctx) // returns when the Lease is lost
	}
}

// term is the time from one election to its loss. client-go tells of the beginning in a
// goroutine of its own, which may come after the end.
type term struct {
	log  *zap.Logger
	lead func(leading bool)

	mu   sync.Mutex
	over bool
}

func (t *term) begin(context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.log.Info("this replica is the leader: it writes status and Events")
		t.lead(true)
	}
}

func (t *term) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.lead(false)
}
