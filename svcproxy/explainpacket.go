package svcproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// Explain says what becomes of a packet, in the order in which a node decides it.
func (x *Explainer) Explain(p Packet) *Explanation {
	e := &explaining{Explainer: x, Explanation: &Explanation{Node: x.compiler.rules.NodeName, Packet: p}}
	s, port, f := x.frontend(p.To.Addr(), p)
	if f == nil && x.answersNodePorts(p.To.Addr()) {
		s, port, f = x.frontend(netip.Addr{}, p)
	}
	if f == nil {
		e.nobody()
		return e.Explanation
	}
	e.service, e.port, e.at = s, port, f
	e.found()
	if !e.Userspace || e.relayed() {
		e.decide()
	}
	return e.Explanation
}

func (e *explaining) decide() {
	if e.admitted() {
		e.forward()
	}
}

// explaining is one packet's way to its Explanation.
type explaining struct {
	*Explainer
	*Explanation
	service *Service
	port    *Port
	at      *Frontend
}

func (x *Explainer) answersNodePorts(a netip.Addr) bool {
	return x.own(a) && (x.Userspace || !a.IsLoopback()) && within(x.node.NodePorts, a)
}

func (e *explaining) found() {
	name := ""
	if e.port.Name != "" {
		name = ", port " + e.port.Name
	}
	kind := map[Source]string{
		SourceClusterIP: "cluster IP", SourceNodePort: "NodePort", SourceLoadBalancer: "load balancer's address", SourceExternalIP: "external IP",
	}[e.at.Source]
	e.Service = e.service.Key()
	e.Frontend = fmt.Sprintf("%s %s/%s of Service %s%s", kind, e.at, e.Packet.Protocol, e.Service, name)
	for _, p := range e.service.Problems {
		e.note("%s", p)
	}
	for other := range e.services() {
		for _, p := range other.Ports {
			for i := range p.Frontends {
				f := &p.Frontends[i]
				if f.ClaimedBy == e.Service && p.claimKey(f) == e.port.claimKey(e.at) {
					e.note("Service %s asks for %s, too, and does not get it: %s %s", other.Key(), f, e.Service, other.yields())
				}
			}
		}
	}
}

func (e *explaining) note(format string, args ...any) {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
}

func (e *explaining) end(v Verdict, why string) {
	e.Verdict, e.Why = v, why
	e.fate.Verdict = map[Verdict]nft.Verdict{Delivered: nft.Translate, Rejected: nft.Refuse, Dropped: nft.Discard, PassedOn: nft.Pass}[v]
}

// admitted decides whether the packet goes on to an endpoint.
func (e *explaining) admitted() bool {
	from, f := e.Packet.From, e.at
	e.TrafficPolicy = e.policy()
	if f.Restricted && !e.nobodyListens() {
		if !within(e.port.Sources, from) {
			e.SourceRanges = fmt.Sprintf("%s is not in %s", from, e.ranges())
			e.end(Dropped, "loadBalancerSourceRanges of the Service do not let its source in")
			return false
		}
		e.SourceRanges = fmt.Sprintf("%s is in %s", from, e.ranges())
	}
	switch {
	case f.Action == Reject:
		e.explainEndpoints(f.Local)
		e.end(Rejected, f.Why)
		e.Notes = append(e.Notes, e.whyNoEndpoint()...)
		return false
	case f.Action == Drop, f.Action == DropStrangers && !within(e.node.Pods, from) && !e.own(from):
		e.explainEndpoints(true)
		e.end(Dropped, f.Why)
		return false
	}
	return true
}

// ranges are the source ranges of the packet's family.
func (e *explaining) ranges() string {
	var all []string
	for _, p := range e.port.Sources {
		if text := p.String(); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	if len(all) == 0 {
		return "loadBalancerSourceRanges, which have none of this IP family"
	}
	return "loadBalancerSourceRanges " + strings.Join(all, ", ")
}

// shortCircuit tells who is not bound by externalTrafficPolicy Local.
func (e *explaining) shortCircuit() string {
	switch {
	case !e.at.external() || !e.at.Local:
		return ""
	case within(e.node.Pods, e.Packet.From):
		return "a Pod of this cluster"
	case e.own(e.Packet.From):
		return "this node itself"
	}
	return ""
}

func (e *explaining) policy() string {
	field := "internalTrafficPolicy"
	if e.at.external() {
		field = "externalTrafficPolicy"
	}
	switch who := e.shortCircuit(); {
	case who != "":
		return fmt.Sprintf("%s Local, but the client is %s: it may use all endpoints", field, who)
	case e.at.Local && e.at.external() && len(e.network.ClusterCIDRs) == 0:
		return field + " Local: endpoints on this node alone (without --cluster-cidr Pods are not told from others)"
	case e.at.Local:
		return field + " Local: endpoints on this node alone"
	}
	return field + " Cluster: endpoints on all nodes"
}

// forward says where to, and with which source address.
func (e *explaining) forward() {
	e.fate.Masqueraded, e.Masquerade = e.masquerade()
	e.Affinity = "none: any of the endpoints, each time"
	if a := e.port.Affinity; a > 0 {
		e.fate.Affinity = a
		e.Affinity = fmt.Sprintf("ClientIP, %v: the endpoint that the client had last on this node, by whichever address of the Service, while it is used", a)
	}
	e.explainEndpoints(e.at.Local && e.shortCircuit() == "")
	n := 0
	for i := range e.Endpoints {
		end := &e.Endpoints[i]
		if !end.Used {
			continue
		}
		n++
		to := netip.MustParseAddrPort(end.Address)
		e.fate.Endpoints = append(e.fate.Endpoints, to)
		end.Masqueraded = e.fate.Masqueraded
		if to.Addr() == e.Packet.From && e.port.Endpoints[i].Local && !e.Userspace {
			e.fate.Hairpins = append(e.fate.Hairpins, to)
			end.Masqueraded = true
			end.Why += "; it is the client itself, and masqueraded (hairpin)"
		}
	}
	if n == 1 {
		e.end(Delivered, "to the one endpoint")
		return
	}
	e.end(Delivered, fmt.Sprintf("to one of %d endpoints", n))
}

// masquerade follows the table in README.md.
func (e *explaining) masquerade() (bool, string) {
	from := e.Packet.From
	if e.Userspace {
		return true, "yes: in userspace, each connection to an endpoint is this node's own"
	}
	if e.at.external() {
		switch who := e.shortCircuit(); {
		case !e.at.Local:
			return true, "yes: externalTrafficPolicy Cluster, the endpoint has to answer through this node; it does not see the client's address"
		case who != "" && !within(e.node.Pods, from):
			return true, "yes: the client is this node itself, and the endpoint may be on another"
		case who != "":
			return false, "no: the client is a Pod of this cluster"
		}
		return false, "no: externalTrafficPolicy Local, the endpoint sees the client's address"
	}
	ranges := make([]string, len(e.network.ClusterCIDRs))
	for i, p := range e.network.ClusterCIDRs {
		ranges[i] = p.String()
	}
	switch {
	case e.network.MasqueradeAll:
		return true, "yes: everybody is who comes to a cluster IP"
	case !within(e.node.Unmasqueraded, from):
		return true, fmt.Sprintf("yes: %s is outside of the cluster (%s), and the endpoint has to answer through this node", from, strings.Join(ranges, ", "))
	case !within(e.network.ClusterCIDRs, from):
		return false, "no: without --cluster-cidr nobody is who comes to a cluster IP"
	}
	return false, fmt.Sprintf("no: %s is in the cluster (%s)", from, strings.Join(ranges, ", "))
}

// explainEndpoints says of each endpoint whether the traffic policy of this packet uses it.
func (e *explaining) explainEndpoints(local bool) {
	alone := slices.Clone(e.port.Endpoints)
	for i := range alone {
		if alone[i].Why != ReasonUnusableAddr {
			alone[i].Why = ""
		}
	}
	categorize(alone, policies{cluster: !local, local: local}, e.compiler.at.place)
	for i, end := range e.port.Endpoints {
		if end.Why == ReasonHeld {
			alone[i].Cluster, alone[i].ForLocal, alone[i].Why = end.Cluster && !local, end.ForLocal && local, end.Why
		}
	}
	skipFailing(alone, e.port.Failing, e.compiler.rules.MaxEjectionPercent)
	hints := func(end Endpoint) bool { return end.hints != nil }
	if !local && slices.ContainsFunc(alone, hints) && topologyOf(alone, e.compiler.at.place) == anywhere {
		e.note("the endpoints' hints do not count: a ready endpoint has none, or none is for this node or its zone (%q)", e.compiler.at.zone)
	}
	for i := range alone {
		end := &alone[i]
		why := string(end.Why)
		if local && !end.Local && end.Why != ReasonUnusableAddr {
			why = "not on this node, and the traffic policy is Local"
		}
		e.Endpoints = append(e.Endpoints, ExplainedEndpoint{
			Address: end.Addr.String(), Pod: end.Pod, Node: end.Node, Used: end.Cluster || end.ForLocal, Why: why,
		})
	}
}

// nobody explains what comes to no frontend.
func (e *explaining) nobody() {
	to := e.Packet.To.Addr()
	if e.Userspace && !e.own(to) {
		e.notServed(to)
		e.end(PassedOn, notHere(to))
		return
	}
	if services := e.withClusterIP(to); len(services) > 0 {
		s := services[0]
		e.Service = s.Key()
		if e.Userspace {
			e.end(PassedOn, fmt.Sprintf("%s is the cluster IP of Service %s, which has no port %d/%s but %s; nobody of Portico's listens there, and the host refuses",
				to, s.Key(), e.Packet.To.Port(), e.Packet.Protocol, portsOfAddress(s, to)))
			return
		}
		e.end(Rejected, fmt.Sprintf("%s is the cluster IP of Service %s, which has no port %d/%s but %s",
			to, s.Key(), e.Packet.To.Port(), e.Packet.Protocol, portsOfAddress(s, to)))
		return
	}
	e.notServed(to)
	if within(e.node.ServiceCIDRs, to) && !e.elsewhere(to) && !e.Userspace {
		e.end(Dropped, fmt.Sprintf("%s is in a ServiceCIDR and belongs to no Service that is served here; if another program answers there, give it an address outside of the ServiceCIDRs, or a Service", to))
		return
	}
	_, port, f := e.frontend(netip.Addr{}, e.Packet)
	switch {
	case e.own(to) && f != nil && to.IsLoopback() && !e.Userspace:
		e.end(PassedOn, fmt.Sprintf("NodePorts never answer on loopback; %d is one of %s, use another address of this node", f.Port, serviceOf(port)))
	case e.own(to) && f != nil:
		e.end(PassedOn, fmt.Sprintf("NodePort %d of %s does not answer at %s: --nodeport-addresses leaves it out", f.Port, serviceOf(port), to))
	case e.own(to):
		e.end(PassedOn, fmt.Sprintf("%s is this node's own address, and %d/%s the NodePort of no Service: what listens on the node answers, or the node refuses", to, e.Packet.To.Port(), e.Packet.Protocol))
	case f != nil:
		e.end(PassedOn, fmt.Sprintf("%s is of no Service and not this node's", to))
		e.note("%d/%s is a NodePort of %s: if %s is another node's address, that node decides; explain it there (--node-name)", f.Port, e.Packet.Protocol, serviceOf(port), to)
	default:
		e.end(PassedOn, fmt.Sprintf("%s is of no Service and not this node's", to))
	}
}

func serviceOf(p *Port) string {
	name, _, _ := strings.Cut(p.Key, ":")
	return "Service " + name
}

// withClusterIP are the Services that have an address as a cluster IP.
func (e *explaining) withClusterIP(a netip.Addr) (all []*Service) {
	for s := range e.services() {
		if slices.ContainsFunc(s.Ports, func(p *Port) bool {
			return slices.ContainsFunc(p.Frontends, func(f Frontend) bool { return f.Source == SourceClusterIP && f.Addr == a && f.ClaimedBy == "" })
		}) {
			all = append(all, s)
		}
	}
	return all
}

// portsOfAddress lists the ports of a Service at an address.
func portsOfAddress(s *Service, a netip.Addr) string {
	var all []string
	for _, p := range s.Ports {
		for _, f := range p.Frontends {
			if f.Addr == a {
				all = append(all, strings.TrimSuffix(fmt.Sprintf("%d/%s (%s)", f.Port, p.Protocol, p.Name), " ()"))
			}
		}
	}
	return strings.Join(all, ", ")
}

// elsewhere tells whether an address is the cluster IP of a Service that another program serves.
func (e *explaining) elsewhere(to netip.Addr) bool {
	for s := range e.services() {
		if slices.Contains(s.elsewhere, to) {
			return true
		}
	}
	return false
}

// notServed notes whose an address is although nobody serves it there: a Service that is not
// served on purpose, or an endpoint.
func (e *explaining) notServed(to netip.Addr) {
	for s := range e.compiler.objects.Services() {
		compiled, _ := e.compiler.services.Get(s.Namespace + "/" + s.Name)
		if compiled == nil {
			continue
		}
		if why := e.whyNotServed(compiled, s, to.String()); why != "" {
			e.note("Service %s has this address: %s", compiled.Key(), why)
		}
		for _, p := range compiled.Ports {
			at := slices.IndexFunc(p.Endpoints, func(end Endpoint) bool { return end.Addr.Addr() == to && end.Pod != "" })
			if at >= 0 {
				e.note("it is the address of Pod %s/%s itself, and no Service has anything to do with the packet", s.Namespace, p.Endpoints[at].Pod)
				return
			}
		}
	}
}

func (e *explaining) whyNotServed(compiled *Service, s *corev1.Service, to string) string {
	proxied := slices.ContainsFunc(s.Status.LoadBalancer.Ingress, func(i corev1.LoadBalancerIngress) bool {
		return i.IP == to && value(i.IPMode, corev1.LoadBalancerIPModeVIP) == corev1.LoadBalancerIPModeProxy
	})
	atBalancer := slices.ContainsFunc(s.Status.LoadBalancer.Ingress, func(i corev1.LoadBalancerIngress) bool { return i.IP == to })
	external := slices.Contains(s.Spec.ExternalIPs, to)
	port := slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Port == int32(e.Packet.To.Port()) && (p.Protocol == e.Packet.Protocol || p.Protocol == "" && e.Packet.Protocol == corev1.ProtocolTCP)
	})
	switch {
	case !external && !atBalancer && !slices.Contains(clusterIPs(s), to):
		return ""
	case compiled.Skipped != "":
		return "it is not served here (" + compiled.Skipped + ")"
	case external && e.compiler.rules.NoExternalIPs:
		return "external IPs are turned off"
	case proxied:
		return "ipMode Proxy, the load balancer itself has to see the packet"
	case !port:
		return fmt.Sprintf("it has no port %d/%s", e.Packet.To.Port(), e.Packet.Protocol)
	}
	return problemsAbout(compiled.Problems, to)
}

func problemsAbout(problems []manifests.Problem, text string) string {
	for _, p := range problems {
		if strings.Contains(p.Text, text) {
			return p.Text
		}
	}
	return ""
}
