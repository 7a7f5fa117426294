package relay

import "sync/atomic"

// Count is what a Frontend has done since it is there.
type Count struct {
	// Service and Frontend say whose it is.
	Service  string
	Frontend Frontend
	Protocol uint8
	IPv6     bool
	// Open are TCP connections or UDP sessions that there are now; Connections those that were
	// forwarded.
	Open, Connections uint64
	// FromClients and ToClients are bytes of payload.
	FromClients, ToClients uint64
	// ConnectFailures are endpoints that did not take a connection, Unreachable clients for whom no
	// endpoint did; Denied those turned away by source ranges or traffic policy in this process, and
	// Limited those turned away by a limit.
	ConnectFailures, Unreachable, Denied, Limited uint64
	// KeptOut are those that are Denied, and those that the kernel's filter dropped.
	KeptOut KeptOut
}

// counters are those of one frontend.
type counters struct {
	open                                          atomic.Int64
	connections, fromClients, toClients           atomic.Uint64
	connectFailures, unreachable, denied, limited atomic.Uint64
}

func (c *counters) read() Count {
	return Count{
		Open: uint64(max(c.open.Load(), 0)), Connections: c.connections.Load(),
		FromClients: c.fromClients.Load(), ToClients: c.toClients.Load(),
		ConnectFailures: c.connectFailures.Load(), Unreachable: c.unreachable.Load(),
		Denied: c.denied.Load(), Limited: c.limited.Load(),
	}
}
