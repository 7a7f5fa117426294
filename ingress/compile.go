package ingress

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// compiler keeps what was compiled so far, and who asked for it, so that a change costs what
// it changes. It belongs to one goroutine.
//
//	note(change)   reads the objects that changed: each Ingress's own wishes, what ports of
//	               Services come to, the endpoints; and marks the hosts that may differ
//	build()        makes the marked hosts anew, and the next Table and certificate Set
//
// Whatever way it came to a state, compiling that state from scratch gives the same.
type compiler struct {
	policy   classPolicy
	settings settings
	backends *router.Backends
	stats    *router.StatsSet
	now      func() time.Time

	objects *manifests.Objects
	waiting pendingRefs

	ingresses map[string]*ingressState // by namespace/name; those of other classes, too
	hosts     map[string]*hostState
	services  map[types.NamespacedName]*serviceState
	externals map[string]*externalState
	secrets   map[types.NamespacedName]*secretState
	upstreams map[types.NamespacedName]*upstreamSecret
	tlsHosts  map[string]*tlsHost
	below     map[string]map[string]struct{} // exact names of hosts and tlsHosts, by suffixOf
	catchAll  []*ingressState                // those with a default backend and no rules, in order of precedence
	problems  *problems

	dirty  dirt
	table  *router.Table
	set    *certs.Set
	guards guards
	common *certs.Certificate // self-signed, the default of the default
	chosen *certs.Certificate // the live default certificate of the settings; nil if there is none
	// live counts the routes in the table, by the Ingress that asked for them.
	live map[string]int
	// checks counts the live routes that ask for a check, by backend.
	checks map[string]map[router.HealthCheck]int
	// touched are the Ingresses whose status may have to change.
	touched map[string]struct{}
	// unjudged are the Secrets that have become wanted and were not looked at yet.
	unjudged []types.NamespacedName
	// garbage is set when something may have stopped being used.
	garbage bool
	// wants is set when the wanted objects may have changed.
	wants bool
}

// settings are what the user chose for all Ingresses.
type settings struct {
	defaultCertificate types.NamespacedName
	defaultBackend     types.NamespacedName
	publishService     types.NamespacedName
	configMap          types.NamespacedName
	allowLoopback      bool
}

// dirt is what has to be made anew.
type dirt struct {
	hosts    map[string]struct{}
	tlsHosts map[string]struct{}
	// covered is, for hosts that were touched, what was true before.
	covered map[string]coverage
	// shields are the hosts that may have to be kept from a wildcard certificate, or not.
	shields  map[string]struct{}
	fallback bool
	// checks are the backends whose check may differ.
	checks map[string]struct{}
	// certificates is set when the Set differs though no host does.
	certificates bool
}

func newDirt() dirt {
	return dirt{
		hosts: map[string]struct{}{}, tlsHosts: map[string]struct{}{},
		covered: map[string]coverage{}, shields: map[string]struct{}{},
		checks: map[string]struct{}{},
	}
}

func newCompiler(cfg *Config, common *certs.Certificate, now func() time.Time) *compiler {
	c := &compiler{
		policy: classPolicy{
			controller: cfg.ControllerClass, name: cfg.IngressClass,
			watchWithoutClass: cfg.WatchWithoutClass, implicit: cfg.ImplicitClass,
		},
		settings: settings{
			defaultCertificate: cfg.DefaultCertificate, defaultBackend: cfg.DefaultBackend,
			publishService: cfg.PublishService, configMap: cfg.ConfigMap,
			allowLoopback: cfg.AllowLoopbackExternal,
		},
		backends: cfg.Backends, stats: cfg.Stats, now: now, common: common,
		ingresses: map[string]*ingressState{}, hosts: map[string]*hostState{},
		services: map[types.NamespacedName]*serviceState{}, externals: map[string]*externalState{},
		secrets: map[types.NamespacedName]*secretState{}, upstreams: map[types.NamespacedName]*upstreamSecret{}, tlsHosts: map[string]*tlsHost{},
		below:    map[string]map[string]struct{}{},
		problems: newProblems(), dirty: newDirt(), table: router.NewTable(),
		checks: map[string]map[router.HealthCheck]int{},
		live:   map[string]int{}, touched: map[string]struct{}{}, wants: true,
	}
	c.dirty.fallback, c.dirty.certificates = true, true
	if cfg.DefaultCertificate.Name != "" {
		c.secrets[cfg.DefaultCertificate] = &secretState{permanent: true}
	}
	return c
}

// noted says what kinds of change were in what note read.
type noted struct {
	endpoints bool
	structure bool
}

// note reads what has changed. Endpoints come first: they go live at once.
func (c *compiler) note(change manifests.Change) (n noted) {
	c.objects = change.Objects
	c.waiting.set(change.Pending, c.now())
	for _, ref := range change.Refs {
		if ref.Kind == manifests.KindEndpointSlice {
			n.endpoints = c.noteEndpoints(nameOf(ref)) || n.endpoints
		}
	}
	classes := false
	for _, ref := range change.Refs {
		switch ref.Kind {
		case manifests.KindIngressClass:
			classes = true
		case manifests.KindIngress:
			c.noteIngress(ref)
		case manifests.KindService:
			c.noteService(nameOf(ref))
		case manifests.KindSecret:
			c.noteSecret(nameOf(ref))
		}
	}
	c.noteConfigMap()
	c.notePublishService()
	if classes {
		c.noteClasses()
	}
	c.noteCoverage()
	n.structure = c.isDirty()
	return n
}

func (c *compiler) isDirty() bool {
	return len(c.dirty.hosts) > 0 || len(c.dirty.tlsHosts) > 0 || c.dirty.fallback || c.dirty.certificates
}

// built is what became new; a nil part is as before.
type built struct {
	table *router.Table
	set   *certs.Set
}

// build makes anew what is dirty, unless it waits for a Secret: that stays as it is, and dirty.
func (c *compiler) build() built {
	c.judgeRest()
	c.judgeUpstreams()
	var b built
	if c.buildCertificates() {
		b.set = c.set
	}
	if len(c.dirty.hosts) == 0 && !c.dirty.fallback {
		return b
	}
	edit := c.table.Edit()
	changed := false
	for name := range c.dirty.hosts {
		if c.isWaiting(name) {
			continue
		}
		delete(c.dirty.hosts, name)
		changed = true
		c.buildHost(edit, name)
	}
	if c.dirty.fallback && !c.fallbackWaits() {
		changed = true
		c.dirty.fallback = false
		c.buildFallback(edit)
	}
	c.setChecks()
	if changed {
		c.table = edit.Table()
		b.table = c.table
	}
	return b
}

// wanted are the objects that have to be fetched, in any order.
func (c *compiler) wanted() []manifests.Ref {
	refs := make([]manifests.Ref, 0, len(c.secrets)+3)
	add := func(kind string, name types.NamespacedName) {
		if name.Name != "" {
			refs = append(refs, manifests.Ref{Kind: kind, Namespace: name.Namespace, Name: name.Name})
		}
	}
	for name := range c.secrets {
		add(manifests.KindSecret, name)
	}
	for name := range c.upstreams {
		if c.secrets[name] == nil {
			add(manifests.KindSecret, name)
		}
	}
	add(manifests.KindConfigMap, c.settings.configMap)
	add(manifests.KindService, c.settings.defaultBackend)
	add(manifests.KindService, c.settings.publishService)
	return refs
}

// clean forgets the backends and counters that neither the live table nor the next one uses.
// Old tables that requests still hold do not mind.
func (c *compiler) clean() {
	if !c.garbage {
		return
	}
	c.garbage = false
	backends := map[string]struct{}{}
	stats := map[router.StatsKey]struct{}{}
	keep := func(r *router.Route) {
		stats[statsKey(r)] = struct{}{}
		if r.Backend != nil {
			backends[r.Backend.Name()] = struct{}{}
		}
	}
	for _, h := range c.hosts {
		h.each(keep)
	}
	if r := c.table.Fallback(); r != nil {
		keep(r)
	}
	for _, s := range c.services {
		for _, p := range s.ports {
			if p.backend != "" {
				backends[p.backend] = struct{}{}
			}
		}
	}
	c.backends.Keep(backends)
	c.stats.Keep(stats)
}

func nameOf(ref manifests.Ref) types.NamespacedName {
	return types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
}
