// Package binaries builds the programs a cluster is made of, from the module
// versions pinned beside it, and keeps the results in a cache.
//
// Four small modules hold the pins: kubernetes/ (with etcd), containerd/ (with
// the CNI plugins), coredns/ and clients/ (of gRPC). A built set lives in a folder named after a hash of
// everything that decides its content, so a changed pin builds anew and an
// unchanged one costs a few file reads.
package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Versions of what is built. They are stamped into the programs, because a
// build from the module cache has no version control to ask; a test holds them
// against the pinned modules.
const (
	KubernetesVersion = "v1.36.3"
	ContainerdVersion = "v2.2.9"
)

// Options says where to build from and where to keep the results. The zero
// value works from any folder of the e2e module.
type Options struct {
	// Module is the folder of the e2e module. Empty: found upwards from the
	// working directory.
	Module string
	// Cache is where built programs are kept. Empty: portico-e2e in the user's
	// cache folder.
	Cache string
	// Log receives one line for each program built. Nil: nothing is written.
	Log io.Writer
}

// Set is a complete set of built programs.
type Set struct {
	// Kubernetes holds etcd, the control plane, kubelet, kube-proxy and kubectl.
	Kubernetes string
	// Containerd holds containerd, its shim and ctr, and the CNI plugins.
	Containerd string
	// CoreDNS holds coredns.
	CoreDNS string
	// Clients holds grpcurl, and the client and the server of gRPC's
	// interoperability tests.
	Clients string
	// Fingerprint changes when any program of the set does.
	Fingerprint string
}

// Path is the file of the program called name.
func (s *Set) Path(name string) string {
	for _, g := range groups {
		for _, p := range g.programs {
			if p.name == name {
				return filepath.Join(s.dir(g), name)
			}
		}
	}
	return ""
}

func (s *Set) dir(g group) string { return *g.folder(s) }

// program is one main package and the name its binary gets.
type program struct{ name, pkg string }

// group is a set of programs pinned by one module and built with the same flags.
type group struct {
	name     string // also the folder of its module
	folder   func(*Set) *string
	flags    []string
	programs []program
}

var groups = []group{
	{
		name:   "kubernetes",
		folder: func(s *Set) *string { return &s.Kubernetes },
		flags: []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w" +
			" -X k8s.io/component-base/version.gitVersion=" + KubernetesVersion +
			" -X k8s.io/component-base/version.gitMajor=" + part(KubernetesVersion, 0) +
			" -X k8s.io/component-base/version.gitMinor=" + part(KubernetesVersion, 1)},
		programs: []program{
			{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
			{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
			{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
			{"kubelet", "k8s.io/kubernetes/cmd/kubelet"},
			{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
			{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
			{"etcd", "go.etcd.io/etcd/server/v3"},
		},
	},
	{
		name:   "containerd",
		folder: func(s *Set) *string { return &s.Containerd },
		// The snapshotters left out need libraries nobody here has, and none of
		// them is used.
		flags: []string{
			"-trimpath", "-buildvcs=false", "-tags=no_btrfs no_devmapper no_zfs",
			"-ldflags=-s -w -X github.com/containerd/containerd/v2/version.Version=" + ContainerdVersion,
		},
		programs: []program{
			{"containerd", "github.com/containerd/containerd/v2/cmd/containerd"},
			{"containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
			{"ctr", "github.com/containerd/containerd/v2/cmd/ctr"},
			{"bridge", "github.com/containernetworking/plugins/plugins/main/bridge"},
			{"loopback", "github.com/containernetworking/plugins/plugins/main/loopback"},
			{"host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"},
			{"portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"},
		},
	},
	{
		name:   "coredns",
		folder: func(s *Set) *string { return &s.CoreDNS },
		flags:  []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w"},
		programs: []program{
			// Its own main package, with few plugins.
			{"coredns", "github.com/portico-ingress/portico/e2e/binaries/coredns"},
		},
	},
	{
		name:   "clients",
		folder: func(s *Set) *string { return &s.Clients },
		flags:  []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w"},
		programs: []program{
			{"grpc-interop-client", "google.golang.org/grpc/interop/client"},
			{"grpc-interop-server", "google.golang.org/grpc/interop/server"},
			{"grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl"},
		},
	},
}

// Build returns the set of programs, building what the cache does not have.
// Several builders at once wait for each other instead of doing the same work.
func Build(ctx context.Context, o Options) (*Set, error) {
	module, err := moduleDir(o.Module)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir(o.Cache)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	var set Set
	sum := sha256.New()
	for _, g := range groups {
		src := filepath.Join(module, "binaries", g.name)
		hash, err := g.hash(ctx, src)
		if err != nil {
			return nil, err
		}
		dir := filepath.Join(cache, g.name+"-"+hash)
		if err := g.build(ctx, src, dir, o.Log); err != nil {
			return nil, err
		}
		fmt.Fprintln(sum, g.name, hash)
		*g.folder(&set) = dir
	}
	set.Fingerprint = hex.EncodeToString(sum.Sum(nil))[:16]
	return &set, nil
}

// Own builds main packages of the e2e module itself into dir, one binary each,
// named after the package's folder. They are small and the Go build cache makes
// them cheap, so they are built every time and always fit the checkout.
func Own(ctx context.Context, o Options, dir string, names ...string) error {
	module, err := moduleDir(o.Module)
	if err != nil {
		return err
	}
	args := append([]string{"build"}, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+"/")
	for _, n := range names {
		args = append(args, "./cmd/"+n)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for own programs: %w", err)
	}
	return goCommand(ctx, module, args...)
}

// hash names everything that decides what the programs of g look like.
func (g group) hash(ctx context.Context, src string) (string, error) {
	goVersion, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its version: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %s/%s %q %q\n", strings.TrimSpace(string(goVersion)), runtime.GOOS, runtime.GOARCH, g.flags, g.programs)
	own, err := filepath.Glob(filepath.Join(src, "*.go"))
	if err != nil {
		return "", fmt.Errorf("list main package of %s: %w", g.name, err)
	}
	for _, f := range append([]string{filepath.Join(src, "go.mod"), filepath.Join(src, "go.sum")}, own...) {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", fmt.Errorf("read pins of %s: %w", g.name, err)
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(f), len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// build fills dir with the programs it lacks.
func (g group) build(ctx context.Context, src, dir string, log io.Writer) error {
	if g.complete(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make cache folder: %w", err)
	}
	unlock, err := lock(ctx, dir+".lock", log)
	if err != nil {
		return err
	}
	defer unlock()
	for _, p := range g.programs {
		out := filepath.Join(dir, p.name)
		if _, err := os.Stat(out); err == nil {
			continue // built by whoever held the lock before us
		}
		fmt.Fprintf(log, "building %s ... ", p.name)
		start := time.Now()
		// Built under another name and renamed, so that a file with the right
		// name is always a whole one.
		tmp := out + ".part"
		args := append([]string{"build", "-o", tmp}, g.flags...)
		if err := goCommand(ctx, src, append(args, p.pkg)...); err != nil {
			fmt.Fprintln(log, "failed")
			return fmt.Errorf("build %s: %w", p.name, err)
		}
		if err := os.Rename(tmp, out); err != nil {
			return fmt.Errorf("keep built %s: %w", p.name, err)
		}
		fmt.Fprintln(log, time.Since(start).Round(time.Second))
	}
	return nil
}

func (g group) complete(dir string) bool {
	for _, p := range g.programs {
		if _, err := os.Stat(filepath.Join(dir, p.name)); err != nil {
			return false
		}
	}
	return true
}

// goCommand runs the go tool in dir for a static binary that runs anywhere.
func goCommand(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// GOFLAGS and GOWORK of the caller's are about the caller's own work, and
	// would make what is built differ from what the hash says.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// lock takes an exclusive lock on file, waiting for its turn.
func lock(ctx context.Context, file string, log io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for told := false; ; told = true {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing gives the lock back
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		if !told {
			fmt.Fprintf(log, "waiting for another build that holds %s\n", file)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// moduleDir finds the e2e module's folder.
func moduleDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find working directory: %w", err)
	}
	for d := wd; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "binaries", "kubernetes", "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no e2e module at or above %s", wd)
		}
	}
}

// cacheDir is where built programs are kept.
func cacheDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w", err)
	}
	return filepath.Join(base, "portico-e2e"), nil
}

// part is the n-th number of a version such as v1.36.3.
func part(version string, n int) string {
	return strings.Split(strings.TrimPrefix(version, "v"), ".")[n]
}
