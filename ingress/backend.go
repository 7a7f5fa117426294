package ingress

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// resolution is what a port of a Service comes to. It is comparable: a change of the Service
// that leaves it the same changes no route.
type resolution struct {
	// backend names the router.Backend, "namespace/name:port" and how it is spoken to; "" if
	// there is none.
	backend string
	// service is "namespace/name:port" alone.
	service string
	// protocol is the port's appProtocol.
	protocol string
	// portName is the EndpointSlice port that the endpoints have, unless external is set.
	portName string
	// external is the name, or the address, that an ExternalName Service stands for, and
	// externalPort the port there.
	external     string
	externalPort uint16
	// http2 and tls are set where endpoints are spoken to in them.
	http2, tls bool
	// reason says, for people, why there is no backend, and text tells what to do.
	reason, text string
}

// sameRoute tells whether routes made from both are equal.
func (r resolution) sameRoute(other resolution) bool {
	return r.backend == other.backend && r.reason == other.reason
}

// resolve finds what ref is in a Service, which may be nil. A port is one of the Service's
// own, by number or name; its targetPort is never looked at: the EndpointSlices tell, Pod by
// Pod, where it leads.
func resolve(name types.NamespacedName, svc *corev1.Service, ref portRef) resolution {
	if svc == nil {
		return unusable("Service %s does not exist", name).fix("create it, or correct the name")
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return resolveExternal(name, svc, ref)
	}
	port := findPort(svc, ref)
	if port == nil {
		return noSuchPort(name, svc, ref)
	}
	plain := backendName(name, port.Port)
	return resolution{backend: plain, service: plain, portName: port.Name, protocol: value(port.AppProtocol, "")}
}

func unusable(format string, args ...any) resolution {
	return resolution{reason: fmt.Sprintf(format, args...)}
}

// fix completes the text with what to do.
func (r resolution) fix(what string) resolution {
	r.text = r.reason + ": the path answers 503; " + what
	return r
}

func noSuchPort(name types.NamespacedName, svc *corev1.Service, ref portRef) resolution {
	for i := range svc.Spec.Ports {
		if p := &svc.Spec.Ports[i]; matchesPort(p, ref) {
			return unusable("port %s of Service %s is %s, not TCP", ref, name, p.Protocol).fix("name a TCP port")
		}
	}
	return unusable("Service %s has no port %s", name, ref).fix(listPorts(svc))
}

// findPort is the TCP port that ref means, or nil.
func findPort(svc *corev1.Service, ref portRef) *corev1.ServicePort {
	for i := range svc.Spec.Ports {
		if p := &svc.Spec.Ports[i]; isTCP(p.Protocol) && matchesPort(p, ref) {
			return p
		}
	}
	return nil
}

func isTCP(protocol corev1.Protocol) bool {
	return protocol == "" || protocol == corev1.ProtocolTCP
}

func matchesPort(p *corev1.ServicePort, ref portRef) bool {
	if ref.name != "" {
		return p.Name == ref.name
	}
	return p.Port == ref.number
}

const maxListedPorts = 10

// listPorts tells which ports there are to choose from.
func listPorts(svc *corev1.Service) string {
	var list []string
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if !isTCP(p.Protocol) {
			continue
		}
		if p.Name == "" {
			list = append(list, strconv.Itoa(int(p.Port)))
		} else {
			list = append(list, fmt.Sprintf("%d (%s)", p.Port, p.Name))
		}
	}
	if len(list) == 0 {
		return "it has no TCP ports; add one to it"
	}
	if more := len(list) - maxListedPorts; more > 0 {
		list = append(list[:maxListedPorts], fmt.Sprintf("%d more", more))
	}
	return "it has " + strings.Join(list, ", ") + "; name one of them"
}

func backendName(service types.NamespacedName, port int32) string {
	return service.Namespace + "/" + service.Name + ":" + strconv.Itoa(int(port))
}

// resolveExternal handles ExternalName Services. Their ports are optional; one that is not
// listed is used as it is. Like ingress-nginx it takes an IP address for a name.
func resolveExternal(name types.NamespacedName, svc *corev1.Service, ref portRef) resolution {
	number, target, protocol := ref.number, ref.number, ""
	if port := findPort(svc, ref); port != nil {
		number, target, protocol = port.Port, port.Port, value(port.AppProtocol, "")
		if port.TargetPort.Type == intstr.Int && port.TargetPort.IntVal > 0 {
			target = port.TargetPort.IntVal
		}
	} else if ref.name != "" {
		return noSuchPort(name, svc, ref)
	}
	if target < 1 || target > 65535 {
		return unusable("Service %s of type ExternalName has no port %s", name, ref).fix("name a port by its number")
	}
	host, ok := externalHost(svc.Spec.ExternalName)
	if !ok {
		return unusable("externalName %.260q of Service %s is not a DNS name", svc.Spec.ExternalName, name).fix("correct it")
	}
	plain := backendName(name, number)
	return resolution{backend: plain, service: plain, protocol: protocol, external: host, externalPort: uint16(target)}
}

// externalHost gives the form a name is resolved in. A trailing dot stays: it keeps the
// resolver from trying search domains.
func externalHost(name string) (host string, ok bool) {
	if a, err := netip.ParseAddr(name); err == nil {
		return a.String(), a.Zone() == ""
	}
	host = strings.ToLower(name)
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	bad := slices.ContainsFunc(labels, func(l string) bool {
		// Names in DNS may have underscores, if hosts of Ingresses may not.
		return !isDNSName(strings.ReplaceAll(l, "_", "x"))
	})
	return host, !bad && len(host) <= maxHost
}
