package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// externalState is a name outside the cluster that ExternalName Services stand for.
type externalState struct {
	users []*portState
	// addresses are those of the last answer that had any to use.
	addresses []netip.Addr
	// text says what is wrong with the last answer.
	text string
	// tried is set once there was an answer, good or bad.
	tried bool
}

// answer is what became of one resolution.
type answer struct {
	host      string
	addresses []netip.Addr
	err       error
}

func (c *compiler) useExternal(p *portState) {
	if p.external == "" {
		return
	}
	e := c.externals[p.external]
	if e == nil {
		e = &externalState{}
		c.externals[p.external] = e
		if a, err := netip.ParseAddr(p.external); err == nil {
			c.judgeAnswer(e, answer{host: p.external, addresses: []netip.Addr{a}})
		}
	}
	e.users = append(e.users, p)
	c.setExternalProblems(p.external)
}

func (c *compiler) releaseExternal(p *portState) {
	if p.external == "" {
		return
	}
	e := c.externals[p.external]
	if i := slices.Index(e.users, p); i >= 0 {
		e.users = slices.Delete(e.users, i, i+1)
	}
	c.setExternalProblems(p.external)
	if len(e.users) == 0 {
		delete(c.externals, p.external)
	}
}

// externalHosts are the names to resolve.
func (c *compiler) externalHosts() map[string]struct{} {
	hosts := make(map[string]struct{}, len(c.externals))
	for host := range c.externals {
		if _, err := netip.ParseAddr(host); err != nil {
			hosts[host] = struct{}{}
		}
	}
	return hosts
}

// untried tells whether a name waits for its first answer.
func (c *compiler) untried() bool {
	for _, e := range c.externals {
		if !e.tried {
			return true
		}
	}
	return false
}

// noteAnswer takes an answer of the resolver.
func (c *compiler) noteAnswer(a answer) (changed bool) {
	e := c.externals[a.host]
	if e == nil {
		return false // not wanted any more
	}
	c.judgeAnswer(e, a)
	c.setExternalProblems(a.host)
	for _, p := range e.users {
		changed = c.setTargets(p) || changed
	}
	return changed
}

// judgeAnswer keeps the addresses that may be used. Each is judged by itself and used as it
// is, so that a name cannot lead elsewhere after it was looked at. An answer that failed
// keeps the addresses of the one before; one that is all refused does not.
func (c *compiler) judgeAnswer(e *externalState, a answer) {
	e.tried, e.text = true, ""
	if a.err != nil || len(a.addresses) == 0 {
		e.text = "cannot be resolved (" + lookupError(a.err) + ")"
		if len(e.addresses) > 0 {
			e.text += "; the last addresses stay in use"
		} else {
			e.text += "; its paths answer 503"
		}
		e.text += "; correct externalName, or the DNS server"
		return
	}
	var refused []string
	e.addresses = nil
	for _, address := range a.addresses {
		address = address.Unmap().WithZone("")
		if why := refuseExternal(address, c.settings.allowLoopback); why != "" {
			refused = append(refused, fmt.Sprintf("%s (%s)", address, why))
		} else {
			e.addresses = append(e.addresses, address)
		}
	}
	if len(refused) > 0 {
		slices.Sort(refused)
		e.text = fmt.Sprintf("leads to %s, which is not used, because it may reach what only Portico's own host is meant to reach; correct externalName",
			strings.Join(refused[:min(len(refused), maxListedNames)], ", "))
	}
}

// lookupError tells kinds of failure apart, and nothing that differs from one try to the next.
func lookupError(err error) string {
	dns, ok := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil:
		return "no address"
	case ok && dns.IsNotFound:
		return "no such host"
	case ok && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	}
	return "the DNS server failed"
}

// refuseExternal says why an address must not be reached by a name; "" if it may.
func refuseExternal(a netip.Addr, allowLoopback bool) string {
	switch {
	case a.IsUnspecified(), a.Is4() && a.As4()[0] == 0:
		return "unspecified"
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "multicast"
	case allowLoopback:
		return ""
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast():
		return "link-local"
	}
	return embedded(a)
}

// nat64 carries IPv4 addresses in IPv6 ones: a gateway would take them out again.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func embedded(a netip.Addr) string {
	if !nat64.Contains(a) {
		return ""
	}
	b := a.As16()
	return refuseExternal(netip.AddrFrom4([4]byte(b[12:])), false)
}

func (c *compiler) setExternalTargets(p *portState) (changed bool) {
	e := c.externals[p.external]
	if e == nil || !e.tried {
		return false
	}
	targets := make([]router.Target, 0, len(e.addresses))
	for _, a := range e.addresses {
		targets = append(targets, router.Target{Address: netip.AddrPortFrom(a, p.externalPort), Name: p.external})
	}
	return c.backends.SetTargets(p.backend, targets)
}

// setExternalProblems tells every Service that stands for the name.
func (c *compiler) setExternalProblems(host string) {
	e := c.externals[host]
	var all []problem
	if e.text != "" {
		for _, p := range e.users {
			all = append(all, problem{reason: reasonExternalName, Problem: manifests.Problem{
				Object: manifests.Ref{Kind: manifests.KindService, Namespace: p.service.Namespace, Name: p.service.Name},
				Field:  "spec.externalName",
				Text:   host + " " + e.text,
			}})
		}
		sortProblems(all)
		all = slices.Compact(all)
	}
	c.problems.set(ofExternal, host, all)
}
