package ingress

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/portico-ingress/portico/manifests"
)

const (
	statusWorkers = 4
	// A write that failed is tried again after these.
	statusRetryMin, statusRetryMax = 100 * time.Millisecond, time.Minute
	// A status that somebody else changes is left alone for these.
	statusPatienceMin, statusPatienceMax = time.Minute, time.Hour
)

// statusWriter writes the status of Ingresses, if it leads. The Controller tells it what is
// served; everything else it reads afresh before each write, so that it never acts on a
// status that was another a moment ago.
type statusWriter struct {
	cfg     *Config
	log     *zap.Logger
	queue   workqueue.TypedRateLimitingInterface[string]
	reports chan statusReport

	mu      sync.Mutex
	leading bool
	ours    addresses
	records map[string]*statusRecord
}

// statusReport replaces the problems about one status.
type statusReport struct {
	key      string
	problems []problem
}

// statusRecord is what is known about one Ingress.
type statusRecord struct {
	name types.NamespacedName
	uid  types.UID
	// seen is the status as the Store has it.
	seen              addresses
	served, wasServed bool
	written           addresses
	wrote             bool
	// conflicts counts how often somebody else changed what we had written, and until is
	// when we may write again.
	conflicts int
	until     time.Time
}

func newStatusWriter(cfg *Config) *statusWriter {
	w := &statusWriter{cfg: cfg, log: cfg.log(), reports: make(chan statusReport), records: map[string]*statusRecord{}}
	if cfg.writes() {
		w.queue = workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](statusRetryMin, statusRetryMax))
	}
	return w
}

// lead says whether this process is the one to write.
func (w *statusWriter) lead(leading bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if leading == w.leading {
		return
	}
	w.leading = leading
	if w.cfg.Observe != nil && w.cfg.Observe.Leader != nil {
		w.cfg.Observe.Leader(leading)
	}
	if leading {
		for key, r := range w.records {
			w.enqueue(key, r)
		}
	}
}

// update takes over what the compiler knows about the Ingresses it has touched, or about all
// if our addresses have changed. It is called by the Controller's goroutine.
func (w *statusWriter) update(c *compiler) {
	published := w.cfg.PublishService
	ours := addressesOf(w.cfg.PublishAddresses, c.objects.Service(published.Namespace, published.Name))
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ours.equal(w.ours) {
		w.ours = ours
		for key := range c.ingresses {
			c.touched[key] = struct{}{}
		}
	}
	for key := range c.touched {
		w.note(key, c)
	}
}

func (w *statusWriter) note(key string, c *compiler) {
	st := c.ingresses[key]
	if st == nil {
		delete(w.records, key)
		return
	}
	r := w.records[key]
	if r == nil || r.uid != st.object.UID {
		r = &statusRecord{name: types.NamespacedName{Namespace: st.object.Namespace, Name: st.object.Name}, uid: st.object.UID}
		w.records[key] = r
	}
	r.seen = sortedAddresses(st.object.Status.LoadBalancer.Ingress)
	r.served = c.live[key] > 0
	r.wasServed = r.wasServed || r.served
	w.enqueue(key, r)
}

// enqueue spares the API server what the Store knows to be right.
func (w *statusWriter) enqueue(key string, r *statusRecord) {
	if !w.leading {
		return
	}
	switch decideStatus(w.caseOf(r, r.seen, time.Time{})) {
	case statusWrite, statusClear, statusContended:
		w.queue.Add(key)
	default:
		if r.conflicts > 0 {
			w.queue.Add(key) // to take the problem back
		}
	}
}

func (w *statusWriter) caseOf(r *statusRecord, current addresses, now time.Time) statusCase {
	return statusCase{
		served: r.served, wasServed: r.wasServed,
		current: current, wanted: w.ours, written: r.written, wrote: r.wrote,
		patient: r.until.IsZero() || now.Before(r.until),
	}
}

// run writes until ctx ends.
func (w *statusWriter) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range statusWorkers {
		workers.Go(func() {
			for w.work(ctx) {
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	workers.Wait()
}

func (w *statusWriter) work(ctx context.Context) bool {
	key, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(key)
	if err := w.sync(ctx, key); err != nil && ctx.Err() == nil {
		if !apierrors.IsConflict(err) {
			w.log.Warn("cannot write the status of an Ingress: trying again", zap.String("ingress", key), zap.Error(err))
		}
		w.queue.AddRateLimited(key)
		return true
	}
	w.queue.Forget(key)
	return true
}

// sync reads one Ingress afresh and does what is to be done.
func (w *statusWriter) sync(ctx context.Context, key string) error {
	name, uid, ok := w.mayWrite(key)
	if !ok {
		return nil
	}
	client := w.cfg.Client.NetworkingV1().Ingresses(name.Namespace)
	fresh, err := client.Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && fresh.UID != uid {
		return nil // the Store will tell
	}
	if err != nil {
		return err
	}
	current := sortedAddresses(fresh.Status.LoadBalancer.Ingress)
	j := w.judge(key, current, time.Now())
	if j.told {
		w.report(ctx, key, j.problems)
	}
	if j.wait > 0 {
		w.queue.AddAfter(key, j.wait)
	}
	if j.verdict != statusWrite && j.verdict != statusClear {
		return nil
	}
	fresh.Status.LoadBalancer.Ingress = j.next
	_, err = client.UpdateStatus(ctx, fresh, metav1.UpdateOptions{})
	if w.cfg.Observe != nil && w.cfg.Observe.StatusWritten != nil {
		w.cfg.Observe.StatusWritten(err)
	}
	if err == nil {
		w.wrote(key, j.next)
	}
	return err
}

func (w *statusWriter) mayWrite(key string) (types.NamespacedName, types.UID, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.records[key]
	if r == nil || !w.leading {
		return types.NamespacedName{}, "", false
	}
	return r.name, r.uid, true
}

// judgement is what to do about one status now.
type judgement struct {
	verdict statusVerdict
	next    addresses
	// wait is how long until the next look; 0 for none.
	wait time.Duration
	// problems replace those told before, if told.
	problems []problem
	told     bool
}

// judge decides with what was just read. It keeps count of who changes what we wrote.
func (w *statusWriter) judge(key string, current addresses, now time.Time) judgement {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.records[key]
	if r == nil {
		return judgement{verdict: statusForeign}
	}
	j := judgement{verdict: decideStatus(w.caseOf(r, current, now))}
	switch j.verdict {
	case statusWrite:
		j.next = w.ours
	case statusContended:
		if r.until.IsZero() {
			r.until = now.Add(min(statusPatienceMin<<min(r.conflicts, 10), statusPatienceMax))
			r.conflicts++
		}
		j.wait = r.until.Sub(now)
	}
	j.told = r.conflicts > 0
	if j.verdict == statusWrite && j.told || j.verdict == statusContended {
		j.problems = contended(r)
	}
	return j
}

func (w *statusWriter) wrote(key string, what addresses) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.records[key]; r != nil {
		r.written, r.wrote, r.until = what, true, time.Time{}
	}
}

func (w *statusWriter) report(ctx context.Context, key string, problems []problem) {
	select {
	case w.reports <- statusReport{key, problems}:
	case <-ctx.Done():
	}
}

func contended(r *statusRecord) []problem {
	return []problem{{reason: reasonStatus, Problem: manifests.Problem{
		Object: manifests.Ref{Kind: manifests.KindIngress, Namespace: r.name.Namespace, Name: r.name.Name},
		Field:  "status.loadBalancer",
		Text:   fmt.Sprintf("somebody else changed the addresses that Portico wrote; it waits before it writes them again, up to %s; let only one controller have the class of this Ingress", statusPatienceMax),
	}}}
}
