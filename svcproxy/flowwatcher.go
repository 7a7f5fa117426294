package svcproxy

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/portico-ingress/portico/svcproxy/nft"
)

// FlowWatcher hears from the kernel what becomes of connections to Services. It feeds an
// OutlierDetection, and counts what each endpoint has had.
type FlowWatcher struct {
	monitor  *nft.FlowMonitor
	log      *zap.Logger
	failures chan Failure
	traffic  *endpointTraffic
	// overlooked are failures that were too many.
	overlooked atomic.Uint64

	looking sync.Mutex
	next    time.Time // when connections that last may be looked at again
	omitted atomic.Uint64
}

// NewFlowWatcher watches with m. It counts for so many endpoints at most, and looks for failures if
// outliers.
func NewFlowWatcher(m *nft.FlowMonitor, outliers bool, endpoints int, log *zap.Logger) *FlowWatcher {
	w := &FlowWatcher{monitor: m, log: log, traffic: newEndpointTraffic(endpoints)}
	if outliers {
		w.failures = make(chan Failure, failuresWaiting)
	}
	return w
}

const (
	// failuresWaiting is how many failures may wait for the Controller.
	failuresWaiting = 1024
	// lookEvery is how often the flows are looked at that have no answer: who has none at the second
	// look has had none for at least this long, and the client has repeated itself in vain (RFC 6298).
	lookEvery = time.Second
	// lookPause is how many times as long as a look took nobody looks again: with a great many flows it takes
	// the kernel long, and this keeps it to 2% of a CPU.
	lookPause = 50
	// maxUnanswered flows are remembered from one look to the next.
	maxUnanswered = 8192
	// maxLive flows may be in the kernel, of all kinds, if those that last are to be looked at.
	maxLive = 1 << 17
)

// Failures are for OutlierDetection; nil if nobody looks for them.
func (w *FlowWatcher) Failures() <-chan Failure {
	if w.failures == nil {
		return nil
	}
	return w.failures
}

// Overlooked is how many failures were too many to be looked at, how often the kernel had more to
// tell than it could keep, and how often it had too many connections to look at those that last.
func (w *FlowWatcher) Overlooked() (failures, lost, omitted uint64) {
	return w.overlooked.Load(), w.monitor.Lost(), w.omitted.Load()
}

// Run watches until ctx ends.
func (w *FlowWatcher) Run(ctx context.Context) {
	var helpers sync.WaitGroup
	if w.failures != nil {
		helpers.Go(func() { w.look(ctx) })
	}
	w.monitor.Listen(ctx, w.ended)
	helpers.Wait()
}

func (w *FlowWatcher) ended(f *nft.Flow) {
	w.traffic.add(f)
	if f.Protocol == protocolTCP && f.Refused() {
		w.failed(f)
	}
}

func (w *FlowWatcher) failed(f *nft.Flow) {
	if w.failures == nil {
		return
	}
	select {
	case w.failures <- Failure{Frontend: f.Frontend, Endpoint: f.Endpoint}:
	default:
		w.overlooked.Add(1)
	}
}

// look finds connections that get no answer. The kernel would tell only after two minutes.
func (w *FlowWatcher) look(ctx context.Context) {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	var u unanswered
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		err := w.monitor.Unanswered(func(f *nft.Flow) {
			if u.again(f.ID) {
				w.failed(f)
			}
		})
		if err != nil {
			w.log.Warn("connections without an answer cannot be looked for", zap.Error(err))
		}
		u.next()
		timer.Reset(max(lookEvery, lookPause*time.Since(began)))
	}
}

// unanswered are the flows of two looks. The zero value has seen none.
type unanswered struct {
	// A flow is true once it has been told of.
	before, now map[uint32]bool
}

// again tells whether a flow was there at the last look and has not been told of yet.
func (u *unanswered) again(id uint32) bool {
	told, known := u.before[id]
	if u.now == nil {
		u.now = map[uint32]bool{}
	}
	if len(u.now) < maxUnanswered {
		u.now[id] = known
	}
	return known && !told
}

// next ends a look.
func (u *unanswered) next() { u.before, u.now = u.now, nil }

// protocolTCP is IPPROTO_TCP.
const protocolTCP = 6

// lookAtLive counts what connections have had that are not over.
func (w *FlowWatcher) lookAtLive() {
	w.looking.Lock()
	defer w.looking.Unlock()
	if w.monitor == nil || w.traffic.max == 0 || time.Now().Before(w.next) {
		return
	}
	began := time.Now()
	err := w.monitor.Live(maxLive, w.traffic.see, w.ended)
	switch {
	case errors.Is(err, nft.ErrTooManyFlows):
		w.omitted.Add(1)
	case err != nil:
		w.log.Warn("connections that last cannot be looked at; their bytes are counted when they are over", zap.Error(err))
	default:
		w.traffic.sweep()
	}
	w.next = time.Now().Add(max(lookEvery, lookPause*time.Since(began)))
}

// Traffic is what an endpoint of a Service has had.
type Traffic struct {
	Protocol uint8
	// Port is the Key of the Port, or Frontend the address that clients came to.
	Port     string
	Frontend netip.AddrPort
	// Endpoint is where they were sent on.
	Endpoint netip.AddrPort
	// Connections are all of those, Refused and Unanswered those that the endpoint refused or that
	// ended without an answer.
	Connections, Refused, Unanswered uint64
	// Sent are bytes from clients, Received those to them, with the headers of IP.
	Sent, Received uint64
}

// Add adds what another one has counted.
func (t *Traffic) Add(o *Traffic) {
	t.Connections += o.Connections
	t.Refused += o.Refused
	t.Unanswered += o.Unanswered
	t.Sent += o.Sent
	t.Received += o.Received
}

// endpointTraffic adds up. It keeps so many endpoints, by the addresses that clients came to.
type endpointTraffic struct {
	max  int
	seed maphash.Seed

	mu        sync.Mutex
	all       map[trafficKey]*Traffic
	uncounted uint64
	// live is what has been counted already of flows that are not over, by a hash of who they are, and look how
	// often they have been looked at.
	live map[uint64]counted
	look uint32
}

// counted are bytes of a flow.
type counted struct {
	sent, received uint64
	look           uint32 // when it was there last
}

type trafficKey struct {
	protocol           uint8
	frontend, endpoint netip.AddrPort
}

func newEndpointTraffic(most int) *endpointTraffic {
	return &endpointTraffic{max: most, seed: maphash.MakeSeed(), all: map[trafficKey]*Traffic{}, live: map[uint64]counted{}}
}

// of is where to add what a flow has had; nil: there are too many endpoints.
func (e *endpointTraffic) of(f *nft.Flow) *Traffic {
	k := trafficKey{f.Protocol, f.Frontend, f.Endpoint}
	t := e.all[k]
	if t == nil && len(e.all) < e.max {
		t = &Traffic{Protocol: f.Protocol, Frontend: f.Frontend, Endpoint: f.Endpoint}
		e.all[k] = t
	}
	return t
}

// identity is a flow's: its ID alone is some other one's as well among a few ten thousand.
func (e *endpointTraffic) identity(f *nft.Flow) uint64 {
	return maphash.Comparable(e.seed, struct {
		id                         uint32
		protocol                   uint8
		client, frontend, endpoint netip.AddrPort
	}{f.ID, f.Protocol, f.Client, f.Frontend, f.Endpoint})
}

// since adds what a flow has had since it was counted last.
func (t *Traffic) since(c counted, f *nft.Flow) {
	t.Sent += grown(c.sent, f.Sent.Bytes)
	t.Received += grown(c.received, f.Received.Bytes)
}

// grown is by how much: somebody may set the kernel's counters back (conntrack --zero).
func grown(from, to uint64) uint64 {
	if to < from {
		return to
	}
	return to - from
}

// see counts a flow that is not over.
func (e *endpointTraffic) see(f *nft.Flow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := e.identity(f)
	c, known := e.live[id]
	if f.Ending && !known {
		return // its end counts all, or has done so
	}
	t := e.of(f)
	if t == nil {
		return // it counts as not counted once, when it is over
	}
	if !known {
		t.Connections++
	}
	t.since(c, f)
	e.live[id] = counted{f.Sent.Bytes, f.Received.Bytes, e.look}
}

// sweep ends a look at all flows that are not over: those that were not seen are, and nobody will tell of them any more.
func (e *endpointTraffic) sweep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, c := range e.live {
		if c.look != e.look {
			delete(e.live, id)
		}
	}
	e.look++
}

// add counts a flow that is over.
func (e *endpointTraffic) add(f *nft.Flow) {
	if e.max == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	id := e.identity(f)
	c, known := e.live[id]
	delete(e.live, id)
	t := e.of(f)
	switch {
	case t == nil && !known:
		e.uncounted++
		return
	case t == nil:
		return
	case !known:
		t.Connections++
	}
	t.since(c, f)
	switch {
	case f.Refused():
		t.Refused++
	case !f.Answered:
		t.Unanswered++
	}
}

// Traffic gives what has been counted, and how many connections were not, because there were too many
// endpoints. It forgets the endpoints that keep does not want kept. It looks at the connections that are not over, if that
// was not just now.
func (w *FlowWatcher) Traffic(keep func(*Traffic) bool) (all []Traffic, uncounted uint64) {
	w.lookAtLive()
	e := w.traffic
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, t := range e.all {
		if !keep(t) {
			delete(e.all, k)
			continue
		}
		all = append(all, *t)
	}
	return all, e.uncounted
}
