package svcproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/outlier"
)

// OutlierDetection has endpoints skipped that refuse new connections or do not answer them, before
// their readiness says so. Clients' connections raise the suspicion, and connections of our own
// confirm it.
type OutlierDetection struct {
	outlier.Config
	// Failures are those of clients' new connections. Who sends must not wait: a channel that is
	// full means that there are more than matter.
	Failures <-chan Failure
	// Dial makes a connection to an endpoint; nil: that of package net. For tests in other network
	// namespaces.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// Failure is a new TCP connection that did not come about.
type Failure struct {
	// Port is the Key of the Port, or Frontend the address that the client came to.
	Port     string
	Frontend netip.AddrPort
	Endpoint netip.AddrPort
}

// RelayFailures are for OutlierDetection what note is told of, which is for relay.Config.ConnectFailed.
func RelayFailures() (failures <-chan Failure, note func(service string, endpoint netip.AddrPort)) {
	all := make(chan Failure, failuresWaiting)
	return all, func(service string, endpoint netip.AddrPort) {
		select {
		case all <- Failure{Port: service, Endpoint: endpoint}:
		default: // more than matter
		}
	}
}

// Outlier is an endpoint that is skipped from now on, or not any more.
type Outlier struct {
	outlier.Endpoint
	// Service is the Service whose Port it is.
	Service corev1.ObjectReference
	// Skipped: it is; false: it is used again.
	Skipped bool
	// Why says it for people.
	Why string
}

const (
	// probeTimeout lets the first packet be repeated once.
	probeTimeout = 2 * time.Second
	// maxProbes are made at once, each to an endpoint and maxWitnesses others. If there are more, endpoints
	// wait for their next failures.
	maxProbes    = 16
	maxWitnesses = 2
)

// outliers are the shell around an outlier.Decider. They belong to the goroutine of
// Controller.Run; a nil one does nothing.
type outliers struct {
	*outlier.Decider
	cfg     *OutlierDetection
	log     *zap.Logger
	answers chan answer
	slots   chan struct{}
	probes  sync.WaitGroup
	timer   *time.Timer
}

// answer is what came of a probe.
type answer struct {
	of           outlier.Endpoint
	said         outlier.Answer
	othersAccept bool
}

func newOutliers(cfg *OutlierDetection, log *zap.Logger) *outliers {
	if cfg == nil {
		return nil
	}
	o := &outliers{
		Decider: outlier.New(cfg.Config), cfg: cfg, log: log,
		answers: make(chan answer, maxProbes), slots: make(chan struct{}, maxProbes), timer: time.NewTimer(time.Hour),
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
		}
	}
	return o
}

// failures, answered and due are what Controller.Run waits for; nil: never.
func (o *outliers) failures() <-chan Failure {
	if o == nil {
		return nil
	}
	return o.cfg.Failures
}

func (o *outliers) answered() <-chan answer {
	if o == nil {
		return nil
	}
	return o.answers
}

func (o *outliers) due() <-chan time.Time {
	if o == nil {
		return nil
	}
	return o.timer.C
}

// close waits for probes.
func (o *outliers) close() {
	if o != nil {
		o.timer.Stop()
		o.probes.Wait()
	}
}

// connectionFailed takes note of a client's failure. It counts for an endpoint that the Service uses.
func (c *Controller) connectionFailed(ctx context.Context, f Failure) {
	var p *Port
	if f.Port != "" {
		_, p = c.compiler.port(f.Port)
	} else {
		p = c.compiler.portAt(f.Frontend)
	}
	if p == nil {
		return
	}
	if e := p.endpoint(f.Endpoint); e == nil || !e.Ready || !e.Cluster && !e.ForLocal {
		return
	}
	of := outlier.Endpoint{Port: p.Key, Addr: f.Endpoint}
	if c.outliers.Failed(of, time.Now()) {
		c.outliers.ask(ctx, of, p)
	}
}

// portAt is the Port that answers TCP at an address of a Service or, if it is a NodePort, of this node.
func (c *compiler) portAt(at netip.AddrPort) *Port {
	k := claimKey{addr: at.Addr(), port: at.Port(), protocol: corev1.ProtocolTCP, ipv6: at.Addr().Is6()}
	_, p, f := c.frontend(k)
	if f == nil {
		k.addr = netip.Addr{}
		_, p, _ = c.frontend(k)
	}
	return p
}

func (p *Port) endpoint(addr netip.AddrPort) *Endpoint {
	for i := range p.Endpoints {
		if p.Endpoints[i].Addr == addr {
			return &p.Endpoints[i]
		}
	}
	return nil
}

// ask makes a connection to an endpoint, and to others that can tell whether the way there is open.
func (o *outliers) ask(ctx context.Context, of outlier.Endpoint, p *Port) {
	select {
	case o.slots <- struct{}{}:
	default: // as if nobody had been heard
		o.Probed(of, outlier.Silent, false, time.Now())
		return
	}
	witnesses := p.witnesses(of.Addr)
	o.probes.Go(func() {
		defer func() { <-o.slots }()
		asking, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		heard := make([]bool, len(witnesses))
		var others sync.WaitGroup
		for i, w := range witnesses {
			others.Go(func() { heard[i] = o.connect(asking, w) == outlier.Accepted })
		}
		a := answer{of: of, said: o.connect(asking, of.Addr)}
		others.Wait()
		for _, h := range heard {
			a.othersAccept = a.othersAccept || h
		}
		select {
		case o.answers <- a:
		case <-ctx.Done():
		}
	})
}

// witnesses are endpoints that are used. Network policies always let a node reach its own Pods, so
// that one of those says nothing about the way to others.
func (p *Port) witnesses(suspect netip.AddrPort) (all []netip.AddrPort) {
	s := p.endpoint(suspect)
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		if e.Addr == suspect || !e.Cluster && !e.ForLocal || s != nil && !s.Local && e.Local {
			continue
		}
		if all = append(all, e.Addr); len(all) == maxWitnesses {
			break
		}
	}
	return all
}

func (o *outliers) connect(ctx context.Context, to netip.AddrPort) outlier.Answer {
	conn, err := o.cfg.Dial(ctx, to)
	switch {
	case err == nil:
		_ = conn.Close()
		return outlier.Accepted
	case errors.Is(err, unix.ECONNREFUSED):
		return outlier.Refused
	}
	return outlier.Silent
}

// probed takes what a probe found, and makes it live.
func (c *Controller) probed(a answer) {
	defer c.outliers.wind()
	if !c.outliers.Probed(a.of, a.said, a.othersAccept, time.Now()) {
		return
	}
	_, before := c.compiler.port(a.of.Port)
	if before == nil {
		return
	}
	was := before.skips(a.of.Addr)
	service, _, _ := strings.Cut(a.of.Port, ":")
	c.program(c.compiler.compile(map[string]struct{}{service: {}}), c.state.Load().source, 0)
	s, p := c.compiler.port(a.of.Port)
	if p == nil {
		return
	}
	if is := p.skips(a.of.Addr); is != was {
		c.tellOutlier(s, p, a.of, is)
	}
}

// skips tells whether an endpoint is left out because it fails.
func (p *Port) skips(addr netip.AddrPort) bool {
	e := p.endpoint(addr)
	return e != nil && strings.HasPrefix(string(e.Why), skipped)
}

func (c *Controller) tellOutlier(s *Service, p *Port, of outlier.Endpoint, is bool) {
	e := p.endpoint(of.Addr)
	name := of.Addr.String()
	if e.Pod != "" {
		name += " (Pod " + e.Pod + ")"
	}
	text := fmt.Sprintf("Node %s uses endpoint %s of port %q again", c.cfg.NodeName, name, p.Name)
	if is {
		text = fmt.Sprintf("Node %s does not use endpoint %s of port %q: %s", c.cfg.NodeName, name, p.Name, e.Why)
	}
	c.log.Info(text, zap.String("service", s.Key()))
	if o := c.cfg.Observe; o != nil && o.Outlier != nil {
		o.Outlier(Outlier{Endpoint: of, Service: c.reference(s.Namespace, s.Name), Skipped: is, Why: text})
	}
}

// reference is a Service as Events know it.
func (c *Controller) reference(namespace, name string) corev1.ObjectReference {
	ref := corev1.ObjectReference{Kind: manifests.KindService, APIVersion: "v1", Namespace: namespace, Name: name}
	if s := c.compiler.objects.Service(namespace, name); s != nil {
		ref.UID = s.UID
	}
	return ref
}

// tryAgain asks the endpoints that have been skipped for long enough.
func (c *Controller) tryAgain(ctx context.Context) {
	defer c.outliers.wind()
	for _, of := range c.outliers.Due(time.Now()) {
		if _, p := c.compiler.port(of.Port); p != nil {
			c.outliers.ask(ctx, of, p)
		}
	}
}

// wind sets the clock for the next who is to be asked.
func (o *outliers) wind() {
	if next := o.Next(); !next.IsZero() {
		o.timer.Reset(time.Until(next))
	}
}

// review forgets the endpoints that have gone, or are not ready: whoever says later that they are
// has found so.
func (o *outliers) review(d Delta) {
	if o == nil {
		return
	}
	for _, key := range d.Delete {
		o.Keep(key, func(netip.AddrPort) bool { return false })
	}
	for _, s := range d.Put {
		for _, p := range s.Ports {
			o.Keep(p.Key, func(a netip.AddrPort) bool {
				e := p.endpoint(a)
				return e != nil && e.Ready
			})
		}
	}
}
