package svcproxy

import (
	"github.com/portico-ingress/portico/svcproxy/nft"
	"github.com/portico-ingress/portico/svcproxy/relay"
)

// Counters are those of relay.Plane in the words of the kernel's. What is refused by Services that have no
// endpoint nobody counts: there is no socket.
func (r *Relay) Counters() ([]nft.Count, error) {
	var all []nft.Count
	for _, c := range r.Plane.Counters() {
		count := nft.Count{Protocol: c.Protocol, IPv6: c.IPv6, Addr: c.Frontend.Addr, Port: c.Frontend.Port}
		add := func(kind nft.Kind, n uint64) {
			if n > 0 || kind == nft.External {
				count.Kind, count.Connections = kind, n
				all = append(all, count)
			}
		}
		add(nft.External, c.Connections+c.Unreachable+c.KeptOut.Sources)
		add(nft.ExternalAbsent, c.KeptOut.NotLocal)
		add(nft.Drop, c.KeptOut.Policy)
	}
	return all, nil
}

// Reasons are why packets went nowhere, as nft.Plane has them.
func (r *Relay) Reasons() (map[nft.Reason]uint64, error) {
	all, _ := r.KeptOut()
	return map[nft.Reason]uint64{nft.SourceRanges: all.Sources, nft.NoLocalEndpoint: all.NotLocal, nft.Policy: all.Policy}, nil
}

// Denied are the packets that source ranges kept out, by Port.Key, as nft.Plane has them.
func (r *Relay) Denied() (map[string]uint64, error) {
	_, services := r.KeptOut()
	all := map[string]uint64{}
	for key, k := range services {
		if k.Sources > 0 {
			all[key] = k.Sources
		}
	}
	return all, nil
}

// Traffic is what endpoints have had, as FlowWatcher has it, but with the bytes of payload.
func (r *Relay) Traffic(keep func(*Traffic) bool) (all []Traffic, uncounted uint64) {
	counts, uncounted := r.Endpoints(func(c *relay.EndpointCount) bool { return keep(trafficOf(c)) })
	for i := range counts {
		all = append(all, *trafficOf(&counts[i]))
	}
	return all, uncounted
}

func trafficOf(c *relay.EndpointCount) *Traffic {
	return &Traffic{
		Protocol: c.Protocol, Port: c.Service, Endpoint: c.Endpoint,
		Connections: c.Connections, Refused: c.Refused, Unanswered: c.Unanswered,
		Sent: c.FromClients, Received: c.ToClients,
	}
}
