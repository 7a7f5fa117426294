package svcproxy

import (
	"context"
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
)

// Failures are for OutlierDetection; nil if nobody looks for them.
func (w *FlowWatcher) Failures() <-chan Failure {
	if w.failures == nil {
		return nil
	}
	return w.failures
}

// Overlooked is how many failures were too many to be looked at, and how often the kernel had more to
// tell than it could keep.
func (w *FlowWatcher) Overlooked() (failures, lost uint64) {
	return w.overlooked.Load(), w.monitor.Lost()
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
	max int

	mu        sync.Mutex
	all       map[trafficKey]*Traffic
	uncounted uint64
}

type trafficKey struct {
	protocol           uint8
	frontend, endpoint netip.AddrPort
}

func newEndpointTraffic(most int) *endpointTraffic {
	return &endpointTraffic{max: most, all: map[trafficKey]*Traffic{}}
}

func (e *endpointTraffic) add(f *nft.Flow) {
	if e.max == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	k := trafficKey{f.Protocol, f.Frontend, f.Endpoint}
	t := e.all[k]
	if t == nil {
		if len(e.all) >= e.max {
			e.uncounted++
			return
		}
		t = &Traffic{Protocol: f.Protocol, Frontend: f.Frontend, Endpoint: f.Endpoint}
		e.all[k] = t
	}
	t.Connections++
	t.Sent += f.Sent.Bytes
	t.Received += f.Received.Bytes
	switch {
	case f.Refused():
		t.Refused++
	case !f.Answered:
		t.Unanswered++
	}
}

// Traffic gives what has been counted, and how many connections were not, because there were too many
// endpoints. It forgets the endpoints that keep does not want kept.
func (w *FlowWatcher) Traffic(keep func(*Traffic) bool) (all []Traffic, uncounted uint64) {
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
