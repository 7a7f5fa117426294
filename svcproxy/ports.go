package svcproxy

import (
	"cmp"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// ports are those of a Service that can be served. An API server refuses the others, a folder does
// not: each is a Problem, and nothing else of the Service is lost.
func (c *pass) ports() []corev1.ServicePort {
	all := make([]corev1.ServicePort, 0, len(c.service.Spec.Ports))
	var seen map[portKey]struct{}
	if cap(all) > 1 {
		seen = make(map[portKey]struct{}, 3*cap(all))
	}
	repeated := func(key portKey) bool {
		if seen == nil {
			return false // it is alone
		}
		_, ok := seen[key]
		seen[key] = struct{}{}
		return ok
	}
	for i, p := range c.service.Spec.Ports {
		bad := func(field, format string, args ...any) {
			c.problem(fmt.Sprintf("spec.ports[%d].%s", i, field), fmt.Sprintf(format, args...))
		}
		p.Protocol = cmp.Or(p.Protocol, corev1.ProtocolTCP)
		switch {
		case protocolNumber(p.Protocol) == 0:
			bad("protocol", "%q is not served; want TCP, UDP or SCTP", p.Protocol)
			continue
		case !isPort(p.Port):
			bad("port", "%d is no port; this one is not served, give it one from 1 to 65535", p.Port)
			continue
		case repeated(portKey{protocol: p.Protocol, name: p.Name}):
			bad("name", "%q is the name of another %s port, too; this one is not served, give it another name", p.Name, p.Protocol)
			continue
		case repeated(portKey{protocol: p.Protocol, port: p.Port}):
			bad("port", "%d/%s is there already; this one is not served, give it another number", p.Port, p.Protocol)
			continue
		}
		switch {
		case p.NodePort == 0:
		case !isPort(p.NodePort):
			bad("nodePort", "%d is no port; without it the port is served, give it one from 1 to 65535", p.NodePort)
			p.NodePort = 0
		case repeated(portKey{protocol: p.Protocol, nodePort: p.NodePort}):
			bad("nodePort", "%d/%s is there already; without it the port is served, give it another number", p.NodePort, p.Protocol)
			p.NodePort = 0
		}
		all = append(all, p)
	}
	return all
}

// portKey is what only one port of a Service may have: one of its fields.
type portKey struct {
	protocol       corev1.Protocol
	name           string
	port, nodePort int32
}

func isPort(n int32) bool { return n >= 1 && n <= 65535 }
