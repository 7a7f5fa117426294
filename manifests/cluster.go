package manifests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// ClusterConfig says which cluster to read, and how much of it.
type ClusterConfig struct {
	// Client reads everything but the names of Secrets, which Metadata reads. NewClusterConfig
	// makes both as Cluster wants them.
	Client   kubernetes.Interface
	Metadata metadata.Interface
	// Namespaces are the only ones to read; empty means all. A Role in each of them is
	// then enough, but for IngressClasses and Namespaces, which are taken not to exist
	// if the ClusterRole for them is missing.
	Namespaces []string
	// Node makes it a view for the proxy of Services on the node of that name: Services and
	// EndpointSlices of all namespaces, that one Node, ServiceCIDRs, and nothing else. Metadata is not needed
	// then.
	Node string
	// Log may be nil.
	Log *zap.Logger
}

// dialTimeout is for one TCP connection to the API server; feeds try again soon after. client-go
// waits for 30 s, and a Pod that starts before its node knows the Service in front of the API
// server would do so in vain, because the kernel goes on sending what it has begun to send
// to nowhere. It is long enough for one packet to be lost.
const dialTimeout = 2 * time.Second

// NewClusterConfig makes the clients, which share their connection: compact encoding, and no
// limit on requests of our own, because the API server has a fair one and a start with ten
// thousand TLS Secrets would take half an hour with client-go's default of five a second.
func NewClusterConfig(config *rest.Config) (ClusterConfig, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst, config.RateLimiter = -1, 0, nil
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if config.Dial == nil {
		config.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	http, err := rest.HTTPClientFor(config)
	if err != nil {
		return ClusterConfig{}, fmt.Errorf("HTTP client of the Kubernetes API: %w", err)
	}
	client, err := kubernetes.NewForConfigAndClient(config, http)
	if err != nil {
		return ClusterConfig{}, fmt.Errorf("client of the Kubernetes API: %w", err)
	}
	names, err := metadata.NewForConfigAndClient(config, http)
	if err != nil {
		return ClusterConfig{}, fmt.Errorf("metadata client of the Kubernetes API: %w", err)
	}
	return ClusterConfig{Client: client, Metadata: names}, nil
}

// Validate reports what is missing.
func (c ClusterConfig) Validate() error {
	switch {
	case c.Client == nil:
		return errors.New("manifests: ClusterConfig.Client is not set")
	case c.Metadata == nil && c.Node == "":
		return errors.New("manifests: ClusterConfig.Metadata is not set")
	case slices.Contains(c.Namespaces, ""):
		return errors.New("manifests: ClusterConfig.Namespaces has an empty name")
	}
	return nil
}

func (c ClusterConfig) scopes() []string {
	if len(c.Namespaces) == 0 {
		return []string{""}
	}
	return slices.Compact(slices.Sorted(slices.Values(c.Namespaces)))
}

// Cluster is the Source that watches the Kubernetes API. The Store opens when every kind in
// every namespace has been listed once. After that errors change nothing in it: an API server
// that is away for hours is asked every two seconds, and when it is back the difference is
// one Update.
type Cluster struct {
	config ClusterConfig
	log    *zap.Logger

	mu      sync.Mutex
	wanted  []Ref // as of the last Want, for a Run that has not begun
	running *clusterRun
}

// NewCluster returns a Source that does nothing until Run.
func NewCluster(config ClusterConfig) *Cluster {
	log := config.Log
	if log == nil {
		log = zap.NewNop()
	}
	return &Cluster{config: config, log: log}
}

// Run is Source.Run. A Cluster runs once.
func (c *Cluster) Run(ctx context.Context, store *Store) error {
	if err := c.config.Validate(); err != nil {
		return err
	}
	run := newClusterRun(ctx, c.config, store, c.log)
	c.mu.Lock()
	if c.running != nil {
		c.mu.Unlock()
		return errors.New("manifests: Cluster.Run called twice")
	}
	c.running = run
	run.want(c.wanted)
	c.mu.Unlock()

	run.start()
	<-ctx.Done()
	c.mu.Lock()
	run.stop() // under the lock: no Want can start a feed after this
	c.mu.Unlock()
	run.feeds.Wait()
	return nil
}

// Want is Source.Want: Secrets and ConfigMaps, and besides them Services that lie outside
// ClusterConfig.Namespaces, which come with their EndpointSlices. What is not known yet
// is pending when Want returns.
func (c *Cluster) Want(refs []Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = slices.Clone(refs)
	if c.running != nil {
		c.running.want(c.wanted)
	}
}

// clusterRun is what a running Cluster has. want and stop are called under Cluster.mu.
type clusterRun struct {
	ctx     context.Context
	config  ClusterConfig
	store   *Store
	access  *access
	secrets *secretFetcher
	singles map[Ref]*single
	stopped bool

	feeds    sync.WaitGroup
	unsynced atomic.Int64
}

func newClusterRun(ctx context.Context, config ClusterConfig, store *Store, log *zap.Logger) *clusterRun {
	access := newAccess(store, log)
	return &clusterRun{
		ctx: ctx, config: config, store: store, access: access,
		secrets: newSecretFetcher(config.Client.CoreV1(), store, access),
		singles: map[Ref]*single{},
	}
}

func (r *clusterRun) start() {
	var needed []*feed
	for _, resource := range r.resources() {
		for _, namespace := range r.scopesOf(resource) {
			needed = append(needed, &feed{resource: resource, namespace: namespace, to: newStoreSink(r.store, resource.kind), access: r.access, synced: r.oneSynced})
		}
	}
	r.unsynced.Store(int64(len(needed)))
	for _, f := range needed {
		r.feeds.Go(func() { f.run(r.ctx) })
	}
	if r.config.Node != "" {
		return
	}
	for _, namespace := range r.config.scopes() {
		f := &feed{resource: secretNames(r.config.Metadata), namespace: namespace, to: r.secrets.scope(namespace), access: r.access, synced: func() {}}
		r.feeds.Go(func() { f.run(r.ctx) })
	}
	r.secrets.start(r.ctx, &r.feeds)
}

// resources are those without which the view is not complete.
func (r *clusterRun) resources() []resource {
	c := r.config.Client
	common := []resource{services(c), endpointSlices(c)}
	if r.config.Node != "" {
		return append(common, node(c, r.config.Node), serviceCIDRs(c))
	}
	return append(common, ingresses(c), ingressClasses(c), namespaces(c))
}

func (r *clusterRun) scopesOf(resource resource) []string {
	if resource.global {
		return []string{""}
	}
	return r.config.scopes()
}

func (r *clusterRun) oneSynced() {
	if r.unsynced.Add(-1) == 0 {
		r.access.log.Info("all of the cluster has been read once")
		r.store.Open()
	}
}

func (r *clusterRun) stop() {
	r.stopped = true
	r.secrets.stop()
}

// want sorts what is wanted into Secrets that the metadata watches cover, and single objects.
func (r *clusterRun) want(refs []Ref) {
	if r.stopped {
		return
	}
	var fetched []Ref
	alone := map[Ref]struct{}{}
	for _, ref := range refs {
		covered := len(r.config.Namespaces) == 0 || slices.Contains(r.config.Namespaces, ref.Namespace)
		switch {
		case ref.Kind == KindSecret && covered:
			fetched = append(fetched, ref)
		case ref.Kind == KindSecret, ref.Kind == KindConfigMap, ref.Kind == KindService && !covered:
			alone[ref] = struct{}{}
		}
	}
	r.secrets.want(fetched)
	for ref, s := range r.singles {
		if _, ok := alone[ref]; !ok {
			s.stop()
			delete(r.singles, ref)
		}
	}
	for ref := range alone {
		if r.singles[ref] == nil {
			r.singles[ref] = r.startSingle(ref)
		}
	}
}
