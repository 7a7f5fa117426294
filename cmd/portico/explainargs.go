package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// asked is what the arguments of explain packet say: each end is an address or an object.
type asked struct {
	from     netip.Addr
	fromPod  types.NamespacedName
	to       netip.Addr
	service  types.NamespacedName
	port     string // a number, or for a Service the name of a port
	protocol corev1.Protocol
}

// parseAsked reads SRC and DST:PORT/PROTO.
func parseAsked(src, dst string) (a asked, err error) {
	if a.from, a.fromPod, err = parseSource(src); err != nil {
		return a, usagef("SRC %q: %w", src, err)
	}
	if err = a.parseDestination(dst); err != nil {
		return a, usagef("DST %q: %w", dst, err)
	}
	if a.from.IsValid() && a.to.IsValid() && a.from.Is6() != a.to.Is6() {
		return a, usagef("SRC %s and DST %s are of different IP families; no packet is", a.from, a.to)
	}
	return a, nil
}

func parseSource(s string) (netip.Addr, types.NamespacedName, error) {
	if strings.Contains(s, "/") {
		n, err := parseObject(s)
		return netip.Addr{}, n, err
	}
	addr, err := parseAddr(s)
	if err != nil {
		if _, portToo := netip.ParseAddrPort(s); portToo == nil {
			err = fmt.Errorf("the source is an address without a port; write %s", s[:strings.LastIndexByte(s, ':')])
		}
	}
	return addr, types.NamespacedName{}, err
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return a, fmt.Errorf("want an IP address or namespace/name")
	case a.Zone() != "":
		return a, fmt.Errorf("the zone %%%s means nothing to Services; leave it out", a.Zone())
	case a.Is4In6():
		return a, fmt.Errorf("is an IPv4 address in IPv6 notation; write %s", a.Unmap())
	}
	return a, nil
}

func parseObject(s string) (types.NamespacedName, error) {
	namespace, name, _ := strings.Cut(s, "/")
	if len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return types.NamespacedName{}, fmt.Errorf("want namespace/name, like default/web-1")
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

func (a *asked) parseDestination(s string) error {
	rest, err := a.parseProtocol(s)
	if err != nil {
		return err
	}
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 {
		return fmt.Errorf("no port; write %s:80/%s", rest, a.protocol)
	}
	if _, err := netip.ParseAddr(rest); err == nil && strings.Count(rest, ":") > 1 {
		return fmt.Errorf("an IPv6 address stands in brackets; write [%s]:80/%s", rest, a.protocol)
	}
	host := rest[:colon]
	a.port = rest[colon+1:]
	if strings.Contains(host, "/") {
		a.service, err = parseObject(host)
		if _, wrong := a.number(); err == nil && wrong != nil && len(validation.IsValidPortName(a.port)) > 0 {
			err = fmt.Errorf("port %q: want a number from 1 to 65535, or the name of a port of the Service", a.port)
		}
		return err
	}
	bare, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		if bare, bracketed = strings.CutSuffix(bare, "]"); !bracketed {
			return fmt.Errorf("the bracket is not closed; write [2001:db8::1]:80/%s", a.protocol)
		}
	}
	if a.to, err = parseAddr(bare); err != nil {
		return err
	}
	if a.to.Is6() != bracketed {
		return fmt.Errorf("brackets are for IPv6 addresses, and those need them; write 192.0.2.1:80/%s or [2001:db8::1]:80/%s", a.protocol, a.protocol)
	}
	_, err = a.number()
	return err
}

// parseProtocol takes the protocol off, and gives what is before it.
func (a *asked) parseProtocol(s string) (string, error) {
	slash := strings.LastIndexByte(s, '/')
	if slash < 0 || strings.Contains(s[slash:], ":") {
		return "", fmt.Errorf("no protocol; write %s/TCP, /UDP or /SCTP", s)
	}
	a.protocol = corev1.Protocol(strings.ToUpper(s[slash+1:]))
	known := []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	switch {
	case slices.Contains(known, a.protocol):
		return s[:slash], nil
	case strings.HasPrefix(string(a.protocol), "ICMP"):
		return "", fmt.Errorf("ICMP has no ports and no Service; a cluster IP answers a ping with port unreachable. Ask for /TCP, /UDP or /SCTP")
	}
	return "", fmt.Errorf("protocol %q: want TCP, UDP or SCTP", s[slash+1:])
}

func (a *asked) number() (uint16, error) {
	n, err := strconv.ParseUint(a.port, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q: want a number from 1 to 65535", a.port)
	}
	return uint16(n), nil
}

// portOf finds the port of a Service that was asked for: a number need not be one of it.
func (a *asked) portOf(s *corev1.Service) (uint16, error) {
	if n, err := a.number(); err == nil {
		return n, nil
	}
	var names []string
	for _, p := range s.Spec.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		if p.Name == a.port && protocol == a.protocol && p.Port >= 1 && p.Port <= 65535 {
			return uint16(p.Port), nil
		}
		names = append(names, fmt.Sprintf("%q %d/%s", p.Name, p.Port, protocol))
	}
	return 0, usagef("Service %s has no port %q, protocol %s; it has %s", a.service, a.port, a.protocol, strings.Join(names, ", "))
}

// addressOf is a cluster IP of a Service, of one of the families of who asks.
func (a *asked) addressOf(s *corev1.Service, from []netip.Addr) (netip.Addr, error) {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return netip.Addr{}, usagef("Service %s is of type ExternalName: DNS alone serves it, no packet is sent to it", a.service)
	}
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		return netip.Addr{}, usagef("Service %s is headless: DNS gives the addresses of its Pods; ask for one of those", a.service)
	}
	texts := append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP)
	for _, f := range from {
		for _, text := range texts {
			if ip, err := netip.ParseAddr(text); err == nil && ip.Is6() == f.Is6() {
				return ip, nil
			}
		}
	}
	return netip.Addr{}, usagef("Service %s has no cluster IP of the IP family of the source (%v); it has %q", a.service, from, s.Spec.ClusterIPs)
}
