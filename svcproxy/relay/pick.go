package relay

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxAttempts is how many endpoints one connection tries.
const maxAttempts = 3

// maxClients is how many clients of a Service stay with an endpoint. With one more, some other
// one is forgotten.
const maxClients = 16384

// affinities remember which endpoint clients of one Service were sent to. The zero value is empty.
type affinities struct {
	mu      sync.Mutex
	clients map[netip.Addr]affinity
}

type affinity struct {
	endpoint netip.AddrPort
	until    time.Time
}

// order gives the endpoints that a connection tries one after the other: the one that the client
// stays with, and then others at random.
func (a *affinities) order(s *Service, client netip.Addr, among []netip.AddrPort, now time.Time) []netip.AddrPort {
	n := min(len(among), maxAttempts)
	tries := make([]netip.AddrPort, 0, n+1)
	if s.Affinity > 0 {
		if e, ok := a.get(client, now); ok && slices.Contains(among, e) {
			tries = append(tries, e)
		}
	}
	first := rand.IntN(len(among)) //nolint:gosec // balancing is no secret
	for i := range among {
		if e := among[(first+i)%len(among)]; len(tries) < n && !slices.Contains(tries, e) {
			tries = append(tries, e)
		}
	}
	return tries
}

func (a *affinities) get(client netip.Addr, now time.Time) (netip.AddrPort, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.clients[client]
	return e.endpoint, ok && now.Before(e.until)
}

// stay remembers, from now on, where a client went.
func (a *affinities) stay(s *Service, client netip.Addr, endpoint netip.AddrPort, now time.Time) {
	if s.Affinity == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clients == nil {
		a.clients = map[netip.Addr]affinity{}
	}
	if _, known := a.clients[client]; !known && len(a.clients) >= maxClients {
		for other := range a.clients {
			delete(a.clients, other)
			break
		}
	}
	a.clients[client] = affinity{endpoint, now.Add(s.Affinity)}
}

// forget what is over.
func (a *affinities) forget(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for client, e := range a.clients {
		if !now.Before(e.until) {
			delete(a.clients, client)
		}
	}
}

// clear forgets all: nobody stays any more, and who comes when they do again begins anew.
func (a *affinities) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.clients)
}

// leave forgets that a client stays with an endpoint.
func (a *affinities) leave(client netip.Addr, endpoint netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clients[client].endpoint == endpoint {
		delete(a.clients, client)
	}
}
