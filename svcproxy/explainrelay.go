package svcproxy

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// What the data plane in userspace does otherwise than the kernel's: it has sockets at addresses of this host, and connections of
// its own to endpoints.

// relayed decides whether there can be a socket for the packet, and notes what is different then.
func (e *explaining) relayed() bool {
	to := e.Packet.To.Addr()
	switch {
	case e.Packet.Protocol != corev1.ProtocolTCP && e.Packet.Protocol != corev1.ProtocolUDP:
		e.end(PassedOn, fmt.Sprintf("%s is not served in userspace; nftables does", e.Packet.Protocol))
		return false
	case !e.own(to):
		e.end(PassedOn, notHere(to))
		return false
	case e.nobodyListens():
		e.note("in userspace nobody listens where there is no endpoint: the host itself refuses, also who is not in source ranges")
		return true
	}
	if e.Packet.Protocol == corev1.ProtocolTCP {
		e.note("in userspace the connection is accepted first; an endpoint that does not take it is passed over for another one, three in all, and then the client is reset")
	}
	if v := e.port.ProxyProtocol; v > 0 {
		e.note("the connection to the endpoint begins with a header of the PROXY protocol, version %d, which tells the client's address", v)
	}
	return true
}

// nobodyListens: a Service without an endpoint has no socket in userspace.
func (e *explaining) nobodyListens() bool { return e.Userspace && e.at.Action == Reject }

func notHere(to netip.Addr) string {
	return fmt.Sprintf("%s is not an address of this host: in userspace only those are served", to)
}
