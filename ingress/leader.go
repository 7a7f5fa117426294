package ingress

import (
	"context"
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
	log := cfg.log()
	for ctx.Err() == nil {
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
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					if ctx.Err() == nil {
						log.Info("this replica writes status and Events")
						lead(true)
					}
				},
				OnStoppedLeading: func() { lead(false) },
			},
		})
		if err != nil {
			log.Error("leader election cannot start; nobody writes status", zap.Error(err))
			return
		}
		elector.Run(ctx) // returns when the Lease is lost
	}
}
