package ingress

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
)

const (
	// cleanAfter is how long what is not used any more is kept, so that a change that comes
	// back finds its counters.
	cleanAfter = 10 * time.Second
	// datesEvery is how often the dates of certificates are looked at.
	datesEvery = time.Hour
)

// Controller keeps the live Table and certificates equal to what a Store says. One goroutine
// owns everything; the resolver and the writers are told by it, or tell it over a channel.
type Controller struct {
	cfg   Config
	log   *zap.Logger
	state atomic.Pointer[State]
	ran   atomic.Bool

	// What follows belongs to the goroutine of Run.
	compiler *compiler
	resolver *resolver
	status   *statusWriter
	events   *eventSender
	// sourceProblems are those that came with the last change.
	sourceProblems []manifests.Problem
	sourceChanged  bool
	lastWanted     []manifests.Ref
	// since is when the oldest change that is not live yet reached the Store.
	since time.Time
	timer *time.Timer
	due   time.Time // of the timer; zero: it is not set
	clean time.Time // when to clean; zero: nothing to do
	dates time.Time // when to look at dates next
}

// New returns a Controller that does nothing until Run.
func New(cfg Config) *Controller {
	c := &Controller{cfg: cfg, log: cfg.log()}
	c.state.Store(&State{})
	return c
}

// Run serves until ctx ends. An error means that it could not start.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	c.start(ctx, &helpers)
	c.timer = time.NewTimer(time.Hour)
	defer c.timer.Stop()
	c.dates = time.Now().Add(datesEvery)
	for {
		c.setTimer()
		select {
		case <-ctx.Done():
			return nil
		case <-c.cfg.Store.Changed():
			c.take()
		case a := <-c.resolver.answers:
			c.answered(a)
		case r := <-c.status.reports:
			c.reported(r)
		case <-c.timer.C:
			c.due = time.Time{}
			c.tick()
		}
	}
}

func (c *Controller) prepare() error {
	if err := c.cfg.Validate(); err != nil {
		return err
	}
	if c.ran.Swap(true) {
		return errors.New("ingress: Controller.Run called twice")
	}
	common, err := certs.SelfSigned()
	if err != nil {
		return err
	}
	c.compiler = newCompiler(&c.cfg, common, time.Now)
	c.resolver = newResolver(c.cfg.Lookup)
	c.status = newStatusWriter(&c.cfg)
	c.events = newEventSender(&c.cfg)
	return nil
}

// start starts what runs beside the one goroutine.
func (c *Controller) start(ctx context.Context, helpers *sync.WaitGroup) {
	helpers.Go(func() { c.resolver.run(ctx) })
	if c.cfg.TicketSecret != "" {
		helpers.Go(func() { newTicketKeeper(&c.cfg).run(ctx) })
	}
	if c.cfg.Client != nil {
		helpers.Go(func() { c.events.run(ctx) })
	}
	if !c.cfg.writes() {
		c.events.enable(true)
		return
	}
	helpers.Go(func() {
		elect(ctx, &c.cfg, func(leading bool) {
			c.events.enable(leading)
			c.status.lead(leading)
		})
	})
	helpers.Go(func() { c.status.run(ctx) })
}

// take makes live what has changed in the Store: all there is, and the loop takes the rest.
func (c *Controller) take() {
	change, ok := c.cfg.Store.Take()
	if !ok {
		return
	}
	start := time.Now()
	n := c.note(change)
	// What is wanted is pending as soon as it is asked for, and must be known to be so
	// before anything that needs it is made live.
	for c.ask() {
		if change, ok = c.cfg.Store.Take(); ok {
			more := c.note(change)
			n.endpoints, n.structure = n.endpoints || more.endpoints, n.structure || more.structure
		}
	}
	c.publish(c.compiler.build(), n, start)
}

func (c *Controller) note(change manifests.Change) noted {
	start := time.Now()
	if c.since.IsZero() {
		c.since = change.Since
	}
	if !slices.Equal(c.sourceProblems, change.Problems) {
		c.sourceProblems, c.sourceChanged = change.Problems, true
	}
	n := c.compiler.note(change)
	if n.endpoints && !n.structure {
		c.observe(ChangeEndpoints, time.Since(start), change.Since)
	}
	c.resolver.want(c.compiler.externalHosts())
	return n
}

// ask tells the Source what is wanted, if that has changed.
func (c *Controller) ask() (asked bool) {
	if !c.compiler.wants {
		return false
	}
	c.compiler.wants = false
	refs := c.compiler.wanted()
	slices.SortFunc(refs, manifests.Ref.Compare)
	if slices.Equal(refs, c.lastWanted) || c.cfg.Want == nil {
		return false
	}
	c.lastWanted = refs
	c.cfg.Want(refs)
	return true
}

// answered takes an answer of the resolver.
func (c *Controller) answered(a answer) {
	start := time.Now()
	changed := c.compiler.noteAnswer(a)
	c.publish(built{}, noted{endpoints: changed}, start)
}

// reported takes what the status writer has to tell.
func (c *Controller) reported(r statusReport) {
	if c.compiler.ingresses[r.key] == nil {
		return // deleted meanwhile
	}
	c.compiler.problems.set(ofStatus, r.key, r.problems)
	c.publish(built{}, noted{}, time.Now())
}

// tick does what is due.
func (c *Controller) tick() {
	start := time.Now()
	if !c.clean.IsZero() && !start.Before(c.clean) {
		c.clean = time.Time{}
		c.compiler.clean()
	}
	if !start.Before(c.dates) {
		c.dates = start.Add(datesEvery)
		c.compiler.noteTime()
	}
	if c.compiler.objects != nil {
		c.compiler.noteImpatience()
		c.publish(c.compiler.build(), noted{}, start)
	}
}

// setTimer sets the timer to the next thing that is due.
func (c *Controller) setTimer() {
	if c.compiler.garbage && c.clean.IsZero() {
		c.clean = time.Now().Add(cleanAfter)
	}
	next := c.dates
	if !c.clean.IsZero() && c.clean.Before(next) {
		next = c.clean
	}
	if after, ok := c.compiler.waiting.next(time.Now()); ok {
		if at := time.Now().Add(after); at.Before(next) {
			next = at
		}
	}
	// A wait that ends a little later than the timer says is no reason to set it again.
	if d := next.Sub(c.due); c.due.IsZero() || d < 0 || d > time.Second {
		c.due = next
		c.timer.Reset(time.Until(next))
	}
}

// publish makes live what was built, certificates first: no request may be redirected to a
// host whose certificate is not there yet.
func (c *Controller) publish(b built, n noted, start time.Time) {
	if b.set != nil {
		c.cfg.Certificates.Store(b.set)
	}
	if b.table != nil {
		c.cfg.SwapTable(b.table)
	}
	next := *c.state.Load()
	if b.set != nil || b.table != nil || n.endpoints {
		next.LastChange = time.Now()
		next.CompileDuration = next.LastChange.Sub(start)
		next.Propagation = between(c.since, next.LastChange)
	}
	if b.set != nil || b.table != nil {
		c.observe(ChangeStructure, next.CompileDuration, c.since)
	}
	if c.compiler.objects != nil {
		next.Table, next.Generation = c.compiler.table, c.compiler.table.Generation()
	}
	next.Ready = next.Ready || c.isComplete()
	c.setProblems(&next)
	if !c.compiler.isDirty() {
		c.since = time.Time{}
	}
	c.state.Store(&next)
	c.updateStatus()
}

// between is 0 if it is not known when it began.
func between(since, now time.Time) time.Duration {
	if since.IsZero() {
		return 0
	}
	return now.Sub(since)
}

func (c *Controller) observe(kind ChangeKind, duration time.Duration, since time.Time) {
	if o := c.cfg.Observe; o != nil && o.ConfigChanged != nil {
		o.ConfigChanged(kind, duration, between(since, time.Now()))
	}
}

// isComplete tells whether all that is known is live: no host waits for a Secret, and every
// external name was tried.
func (c *Controller) isComplete() bool {
	return c.compiler.objects != nil && !c.compiler.isDirty() && !c.compiler.untried()
}

func (c *Controller) setProblems(next *State) {
	own, changed := c.compiler.problems.all()
	if !changed && !c.sourceChanged {
		return
	}
	c.sourceChanged = false
	next.Problems = mergeProblems(c.sourceProblems, own)
	c.logProblems(c.state.Load().Problems, next.Problems)
	c.events.update(own, c.compiler.objects)
}

// logProblems tells what is new and what is over. Both lists are in order.
func (c *Controller) logProblems(before, now []manifests.Problem) {
	old := make(map[manifests.Problem]struct{}, len(before))
	for _, p := range before {
		old[p] = struct{}{}
	}
	for _, p := range now {
		if _, known := old[p]; !known {
			c.log.Warn("problem", zap.Stringer("object", p.Object), zap.String("field", p.Field), zap.String("text", p.Text))
		}
		delete(old, p)
	}
	for p := range old {
		c.log.Info("problem solved", zap.Stringer("object", p.Object), zap.String("field", p.Field))
	}
}

func (c *Controller) updateStatus() {
	if c.cfg.writes() && c.compiler.objects != nil {
		c.status.update(c.compiler)
	}
	clear(c.compiler.touched)
}
