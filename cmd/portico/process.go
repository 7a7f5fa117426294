package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/ingress"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
	"github.com/portico-ingress/portico/router/engine"
)

// process is one `portico serve`: objects come in at the source, become a table and
// certificates in the controller, and the server answers requests by them.
//
//	source ─► store ─► controller ─► table, certificates ─► server
type process struct {
	log   *zap.Logger
	delay time.Duration
	grace time.Duration

	source     source
	store      *manifests.Store
	controller *ingress.Controller
	backends   *router.Backends
	stats      *router.StatsSet
	unmatched  *router.Stats // requests that no route is for
	certs      certs.Live
	proxy      *router.Proxy
	server     *engine.Server
	protocols  []string // that HTTPS clients are offered
	health     health
	admin      *http.Server
}

func newProcess(flags *serveFlags, log *zap.Logger, access router.AccessLog, src source) (*process, error) {
	p := &process{
		log:       log,
		delay:     flags.delay(),
		grace:     time.Duration(flags.shutdownGracePeriod),
		source:    src,
		store:     manifests.NewStore(),
		backends:  router.NewBackends(router.BackendsConfig{NewPool: newPool}),
		stats:     router.NewStatsSet(),
		unmatched: new(router.Stats),
	}
	p.proxy = router.NewProxy(router.ProxyConfig{
		HideServer: !flags.serverHeader, AccessLog: access, Coalesces: p.certs.Coalesces, Unmatched: p.unmatched,
	})
	limits := engine.Limits{MaxConnections: maxConnections(log)}
	p.server = &engine.Server{Handler: p.proxy, Limits: limits, H2C: flags.h2c, ProxyFrom: flags.proxyProtocolFrom, OnPanic: func(reason any, stack []byte) {
		log.Error("panic while a connection was served; it was closed", zap.Any("reason", reason), zap.ByteString("stack", stack))
	}}
	if flags.http2 {
		p.protocols = append(p.protocols, "h2")
	}
	p.protocols = append(p.protocols, "http/1.1")
	metrics := newMetrics(p.measured())
	config := p.ingressConfig(flags)
	config.Observe = metrics.observer()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	p.controller = ingress.New(config)
	p.health.configured = func() bool { return p.controller.State().Ready }
	p.admin = newAdminServer(p.adminAPI(metrics).handler(), log.Named("admin"))
	return p, nil
}

func newPool(address netip.AddrPort, via router.Transport) *engine.Pool {
	return engine.NewPool(address.String(), engine.PoolConfig{Protocol: via.Protocol, TLS: via.TLS})
}

func (p *process) ingressConfig(flags *serveFlags) ingress.Config {
	return ingress.Config{
		Store:        p.store,
		Want:         p.source.Want,
		Backends:     p.backends,
		Stats:        p.stats,
		SwapTable:    p.proxy.Swap,
		Certificates: &p.certs,

		ControllerClass:       flags.controllerClass,
		IngressClass:          flags.ingressClass,
		WatchWithoutClass:     flags.watchIngressWithoutClass,
		ImplicitClass:         flags.local(),
		DefaultCertificate:    flags.defaultSSLCertificate.get(),
		DefaultBackend:        flags.defaultBackendService.get(),
		ConfigMap:             flags.configMap.get(),
		AllowLoopbackExternal: flags.allowLoopbackExternalNames,

		Client:           p.source.client,
		UpdateStatus:     flags.updateStatus,
		PublishService:   flags.publishService.get(),
		PublishAddresses: flags.publishStatusAddress,
		ElectionID:       flags.electionID,
		Namespace:        ownNamespace(),
		Identity:         ownName(),
		TicketSecret:     flags.sessionTicketSecret,

		Log: p.log.Named("ingress"),
	}
}

func (p *process) measured() measured {
	return measured{
		stats:        p.stats,
		unmatched:    p.unmatched,
		backends:     p.backends.All,
		inFlight:     p.proxy.InFlight,
		server:       p.server.Stats,
		generation:   func() uint64 { return p.proxy.Table().Generation() },
		certificates: p.certificates,
		problems:     p.problems,
	}
}

func (p *process) adminAPI(m *metrics) *admin {
	return &admin{
		health:       &p.health,
		table:        p.proxy.Table,
		backends:     p.backends.All,
		certificates: p.certificates,
		problems:     p.problems,
		metrics:      m.handler(),
	}
}

func (p *process) certificates() []certs.Info {
	set := p.certs.Load()
	if set == nil {
		return nil
	}
	return set.Certificates()
}

func (p *process) problems() []manifests.Problem {
	if s := p.controller.State(); s.Ready {
		return s.Problems
	}
	return p.store.Problems() // why there is nothing yet
}

// run serves until ctx ends, drains, and then ends everything else: while requests are being
// finished, endpoints still come and go. It calls live once requests are answered.
func (p *process) run(ctx context.Context, on *listeners, live func()) error {
	p.log.Info("starting", zap.String("version", version), zap.String("admin", where(on.admin)))
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	g.Go(func() error { return p.source.Run(work, p.store) })
	g.Go(func() error { return p.controller.Run(work) })
	g.Go(func() error { router.NewChecker(p.backends).Run(work); return nil })
	g.Go(func() error { return p.serveAdmin(on.admin) })
	g.Go(func() error { return p.serveRequests(ctx, work, on, live) })
	g.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
			p.drain(work)
		case <-work.Done(): // one of the others failed, and there is no way to go on
		}
		return p.close(work)
	})
	return g.Wait()
}

func (p *process) serveAdmin(ln net.Listener) error {
	if ln == nil {
		return nil
	}
	if err := p.admin.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin address: %w", err)
	}
	return nil
}

// serveRequests accepts connections as soon as there is a configuration to answer them by.
// Those that come earlier wait in the kernel, which is better than a wrong 404.
func (p *process) serveRequests(ctx, work context.Context, on *listeners, live func()) error {
	if !p.untilReady(ctx, work) {
		return nil
	}
	g := new(errgroup.Group)
	if on.http != nil {
		g.Go(func() error { return ended("http", p.server.Serve(on.http)) })
	}
	if on.https != nil {
		config := p.certs.TLSConfig(p.protocols...)
		g.Go(func() error { return ended("https", p.server.ServeTLS(on.https, config)) })
	}
	on.announce(p.log)
	live()
	return g.Wait()
}

func ended(what string, err error) error {
	if errors.Is(err, engine.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s address: %w", what, err)
}

// readyLook is how often a start looks whether it is over.
const readyLook = 5 * time.Millisecond

func (p *process) untilReady(ctx, work context.Context) bool {
	for look := time.NewTicker(readyLook); ; {
		if p.health.configured() {
			look.Stop()
			return true
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		case <-work.Done():
			return false
		}
	}
}

// drain finishes what is under way. Load balancers hear of it by readyz, and clients by
// `Connection: close`; until they have, new connections are still welcome.
func (p *process) drain(work context.Context) {
	serving := p.health.ready()
	p.health.drain()
	if !serving {
		return
	}
	p.log.Info("draining", zap.Duration("delay", p.delay), zap.Duration("grace", p.grace))
	p.server.Drain()
	pause(work, p.delay)
	ctx, cancel := context.WithTimeout(work, p.grace)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		p.log.Warn("requests were cut off at the end of the grace period", zap.Error(err))
		return
	}
	p.log.Info("drained")
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// close ends the servers, whatever they are at.
func (p *process) close(work context.Context) error {
	now, cancel := context.WithCancel(work)
	cancel()
	_ = p.server.Shutdown(now) // it says that it did not wait
	return p.admin.Close()
}

// serviceAccountNamespace is where Kubernetes tells a Pod its namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// ownNamespace is where the Lease lives.
func ownNamespace() string {
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		return ns
	}
	if b, err := os.ReadFile(serviceAccountNamespace); err == nil {
		if ns := strings.TrimSpace(string(b)); ns != "" {
			return ns
		}
	}
	return "default"
}

// ownName tells this replica from the others.
func ownName() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	host, err := os.Hostname()
	if err != nil {
		host = "portico"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
