package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/e2e/binaries"
	"github.com/portico-ingress/portico/e2e/image"
)

// Cluster is a running cluster.
type Cluster struct {
	cfg Config
	set *binaries.Set
}

// bootTime is how long a step of booting may take before it counts as failed.
// A busy machine takes a few times the usual.
const bootTime = 3 * time.Minute

// Up boots a cluster. Whatever an earlier one of the same name left behind is
// removed first. When booting fails nothing but the logs stays.
func Up(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	unlock, err := c.cfg.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.clean(ctx); err != nil {
		return nil, fmt.Errorf("clean up after an earlier cluster: %w", err)
	}
	bootCtx, cancel := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("not up after %s", bootTime))
	defer cancel()
	if err := c.boot(bootCtx); err != nil {
		// The caller's context may be over, and cleaning up must happen still.
		return nil, errors.Join(err, c.clean(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// Open takes over a cluster that an earlier Up of the same configuration
// booted. It fails when there is none, it is not in good health, or the
// programs it runs are not those that Up would use now.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.checkState(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, p := range c.components() {
		if err := c.waitReady(ctx, p); err != nil {
			return nil, err
		}
	}
	// They come from the checkout, which may have changed.
	if err := c.makeOwn(ctx); err != nil {
		return nil, err
	}
	if cfg.Bare {
		return c, nil
	}
	return c, c.loadOwn(ctx)
}

// Find is the running cluster of that configuration, in whatever health: for
// people at work with it. Programs are those it was booted with.
func Find(cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	found, err := cfg.readState()
	if err != nil {
		return nil, err
	}
	cfg.Nodes, cfg.IPv4Only, cfg.WithoutKubeProxy, cfg.Bare = found.Nodes, found.IPv4Only, found.WithoutKubeProxy, found.Bare
	return &Cluster{cfg: cfg, set: &found.Programs}, nil
}

// Down ends the cluster and removes what it was made of, except for the logs.
func (c *Cluster) Down(ctx context.Context) error { return Down(ctx, c.cfg) }

// Down ends the cluster of that configuration, in whatever state it is.
func Down(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	unlock, err := cfg.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return (&Cluster{cfg: cfg}).clean(ctx)
}

// prepare checks the configuration and builds what the cluster consists of.
func prepare(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := InstallTools(ctx, cfg.Log); err != nil {
		return nil, err
	}
	set, err := binaries.Build(ctx, cfg.Binaries)
	if err != nil {
		return nil, err
	}
	return &Cluster{cfg: cfg, set: set}, nil
}

// step tells people what is going on, and how long it took.
func (c *Cluster) step(what string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	fmt.Fprintf(c.cfg.Log, "%-46s %5.1fs\n", what, time.Since(start).Seconds())
	return nil
}

// boot makes the cluster on a clean machine.
func (c *Cluster) boot(ctx context.Context) error {
	if err := c.step("folders, certificates, own programs", func() error { return c.makeFiles(ctx) }); err != nil {
		return err
	}
	if err := c.step("network", func() error { return c.cfg.createNetwork(ctx) }); err != nil {
		return err
	}
	if c.cfg.Bare {
		if err := c.step("API server", func() error { return c.bootControl(ctx) }); err != nil {
			return err
		}
		return c.writeState()
	}
	if err := c.step("API server, container runtimes, images", func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return c.bootControl(ctx) })
		g.Go(func() error { return c.bootNodes(ctx) })
		return g.Wait()
	}); err != nil {
		return err
	}
	if err := c.step("managers, kubelets", func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return c.start(ctx, c.controllerManager()) })
		g.Go(func() error { return c.start(ctx, c.scheduler()) })
		for _, n := range c.nodes() {
			g.Go(func() error { return n.join(ctx) })
		}
		return g.Wait()
	}); err != nil {
		return err
	}
	if err := c.step("nodes Ready", func() error { return c.waitNodes(ctx) }); err != nil {
		return err
	}
	return c.writeState()
}

// makeFiles makes everything of the cluster that is a file.
func (c *Cluster) makeFiles(ctx context.Context) error {
	if err := os.RemoveAll(c.cfg.file("log")); err != nil {
		return fmt.Errorf("remove old logs: %w", err)
	}
	for _, d := range []string{"run", "log", "bin", "etcd", "images"} {
		// etcd insists that nobody else may read its folder.
		if err := os.MkdirAll(c.cfg.file(d), 0o700); err != nil {
			return fmt.Errorf("make cluster folder: %w", err)
		}
	}
	if err := c.cfg.saveTunables(); err != nil {
		return err
	}
	ca, err := newAuthority(c.cfg.file("pki"))
	if err != nil {
		return err
	}
	if err := ca.issueAll(&c.cfg); err != nil {
		return err
	}
	if err := c.cfg.writeKubeconfigs(); err != nil {
		return err
	}
	return c.makeOwn(ctx)
}

// ownImages are the programs of this module that run in Pods.
var ownImages = []string{"pause", "echo"}

// makeOwn builds the programs of this module, and their images.
func (c *Cluster) makeOwn(ctx context.Context) error {
	if err := binaries.Own(ctx, c.cfg.Binaries, c.cfg.file("bin"), append([]string{"load"}, ownImages...)...); err != nil {
		return err
	}
	for _, name := range ownImages {
		cfg := image.Config{Binary: c.cfg.file("bin", name), Name: "localhost/" + name + ":1"}
		if err := image.WriteFile(cfg, c.cfg.file("images", name+".tar")); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) bootControl(ctx context.Context) error {
	if err := c.start(ctx, c.etcd()); err != nil {
		return err
	}
	return c.start(ctx, c.apiServer())
}

func (c *Cluster) bootNodes(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes() {
		g.Go(func() error { return n.boot(gctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.loadOwn(ctx)
}

// loadOwn gives the nodes the images that makeOwn made.
func (c *Cluster) loadOwn(ctx context.Context) error {
	for _, name := range ownImages {
		if err := c.LoadImage(ctx, c.cfg.file("images", name+".tar")); err != nil {
			return err
		}
	}
	return nil
}

// Program is the path of a program built for the cluster: kubectl, ctr and the
// like, or load.
func (c *Cluster) Program(name string) string {
	if p := c.set.Path(name); p != "" {
		return p
	}
	return c.cfg.file("bin", name)
}

// Logs is the folder of the components' logs.
func (c *Cluster) Logs() string { return c.cfg.file("log") }

// Log is the log file of a component.
func (c *Cluster) Log(component string) string { return c.cfg.logFile(component) }

// state is what a later process must know about a running cluster.
type state struct {
	Programs         binaries.Set
	Nodes            int
	IPv4Only         bool
	WithoutKubeProxy bool
	Bare             bool
}

func (c *Cluster) state() state {
	return state{*c.set, c.cfg.Nodes, c.cfg.IPv4Only, c.cfg.WithoutKubeProxy, c.cfg.Bare}
}

func (c *Cluster) writeState() error {
	b, err := json.Marshal(c.state())
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := os.WriteFile(c.cfg.file("state.json"), b, 0o644); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (c *Config) readState() (state, error) {
	var found state
	b, err := os.ReadFile(c.file("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return found, fmt.Errorf("no cluster %s is up", c.Name)
	}
	if err == nil {
		err = json.Unmarshal(b, &found)
	}
	if err != nil {
		return found, fmt.Errorf("read state: %w", err)
	}
	return found, nil
}

// checkState says why the running cluster is not the one that is wanted.
func (c *Cluster) checkState() error {
	found, err := c.cfg.readState()
	if err != nil {
		return err
	}
	if want := c.state(); found != want {
		return fmt.Errorf("the cluster that is up is another: it is %+v, wanted is %+v", found, want)
	}
	return nil
}

// lock keeps two processes from booting or ending the same cluster at once.
func (c *Config) lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(c.Dir), 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	f, err := os.OpenFile(c.Dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cluster %s is being booted or ended by another process: %w", c.Name, err)
	}
	return func() { _ = f.Close() }, nil
}
