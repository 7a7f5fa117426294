package relay

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// EndpointCount is what an endpoint of a Service has had.
type EndpointCount struct {
	// Service is the name of a Service, Protocol its own.
	Service  string
	Protocol uint8
	Endpoint netip.AddrPort
	// Connections are TCP connections and UDP sessions that were sent there, those that are open among
	// them; Refused and Unanswered those that came to nothing.
	Connections, Refused, Unanswered uint64
	// FromClients and ToClients are bytes of payload, also of those that are open.
	FromClients, ToClients uint64
}

// endpointCounters are those of one endpoint of one Service.
type endpointCounters struct {
	connections, refused, unanswered, fromClients, toClients atomic.Uint64
}

// failed counts a connection that came to nothing. A nil one counts nothing, nowhere here.
func (c *endpointCounters) failed(err error) {
	switch {
	case c == nil:
	case errors.Is(err, unix.ECONNREFUSED):
		c.refused.Add(1)
	default:
		c.unanswered.Add(1)
	}
}

// endpointCounts has the counters of so many endpoints.
type endpointCounts struct {
	max int

	mu        sync.Mutex
	all       map[endpointKey]*endpointCounters
	uncounted uint64
}

type endpointKey struct {
	service  string
	protocol uint8
	endpoint netip.AddrPort
}

// connection counts one more, and gives what else is to be counted of it; nil: there are too many endpoints.
func (e *endpointCounts) connection(s *Service, endpoint netip.AddrPort) *endpointCounters {
	if e.max == 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	k := endpointKey{s.Name, s.Protocol, endpoint}
	c := e.all[k]
	if c == nil {
		if len(e.all) >= e.max {
			e.uncounted++
			return nil
		}
		if e.all == nil {
			e.all = map[endpointKey]*endpointCounters{}
		}
		c = &endpointCounters{}
		e.all[k] = c
	}
	c.connections.Add(1)
	return c
}

// Endpoints gives what was counted of each, by Service and Endpoint, and how many connections were not, because
// there are more endpoints than Config.MaxEndpoints. It forgets those that keep does not want kept.
func (p *Plane) Endpoints(keep func(*EndpointCount) bool) (all []EndpointCount, uncounted uint64) {
	e := &p.endpoints
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, c := range e.all {
		n := EndpointCount{
			Service: k.service, Protocol: k.protocol, Endpoint: k.endpoint,
			Connections: c.connections.Load(), Refused: c.refused.Load(), Unanswered: c.unanswered.Load(),
			FromClients: c.fromClients.Load(), ToClients: c.toClients.Load(),
		}
		if !keep(&n) {
			delete(e.all, k)
			continue
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b EndpointCount) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), a.Endpoint.Compare(b.Endpoint))
	})
	return all, e.uncounted
}

// meter counts bytes of one direction, for a frontend and for an endpoint if that is counted.
type meter struct{ frontend, endpoint *atomic.Uint64 }

func (m meter) add(n int) {
	m.frontend.Add(uint64(n))
	if m.endpoint != nil {
		m.endpoint.Add(uint64(n))
	}
}

// meters are those of both directions.
func meters(c *counters, e *endpointCounters) (fromClient, toClient meter) {
	if e == nil {
		return meter{frontend: &c.fromClients}, meter{frontend: &c.toClients}
	}
	return meter{&c.fromClients, &e.fromClients}, meter{&c.toClients, &e.toClients}
}
