package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run.
type bench struct {
	cfg      config
	log      io.Writer
	dir      string
	site     site
	grpcFile string // what a call sends
	started  []*process
	proxies  []*proxy
}

// turn is what one proxy did in one turn of one workload.
type turn struct {
	outcome
	cpu  cpuTime
	took time.Duration
	err  error
}

// openFiles is what load and proxies need for their idle connections.
const openFiles = 40000

func (b *bench) run(ctx context.Context) (*report, error) {
	if err := b.setUp(ctx); err != nil {
		return nil, err
	}
	r := &report{
		cfg: b.cfg, versions: b.versions(ctx), load: loadAverage(), turns: map[string]map[string][]turn{}, idle: map[string]map[string]idleCost{},
	}
	for _, p := range b.proxies {
		r.proxies = append(r.proxies, p.name)
	}
	begun, before, own := time.Now(), readMachineTime(), b.ownCPU()
	for round := range b.cfg.rounds {
		for _, w := range workloads {
			if b.cfg.wants(w.name) {
				b.round(ctx, r, w, round)
			}
		}
	}
	after := readMachineTime()
	r.took = time.Since(begun)
	r.others = othersCPU(before, after, b.ownCPU()-own, r.took)
	r.steal = float64(after.steal-before.steal) / max(1, float64(after.busy+after.idle+after.steal-before.busy-before.idle-before.steal))
	b.measureIdle(ctx, r)
	r.loadAfter = loadAverage()
	return r, ctx.Err()
}

// setUp starts the backend and the proxies.
func (b *bench) setUp(ctx context.Context) error {
	b.raiseLimit()
	var err error
	if b.dir, err = os.MkdirTemp("", "portico-bench"); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.site = site{self: self, routes: b.cfg.routes, syslog: filepath.Join(b.dir, "log")}
	if b.site.cert, err = makeCertificate(b.dir); err != nil {
		return err
	}
	b.grpcFile = filepath.Join(b.dir, "call")
	if err := os.WriteFile(b.grpcFile, grpcMessage, 0o600); err != nil {
		return err
	}
	for _, addr := range []*string{&b.site.backend, &b.site.grpc} {
		if *addr, err = freeAddress(); err != nil {
			return err
		}
	}
	backend, err := start(ctx, b.cfg.loadCPU, filepath.Join(b.dir, "backend"), self, "backend", b.site.backend, b.site.grpc, b.site.syslog)
	if err != nil {
		return err
	}
	b.started = append(b.started, backend)
	for _, name := range b.names() {
		p, err := b.startProxy(ctx, name)
		if err != nil {
			return err
		}
		b.started = append(b.started, p.process)
		b.proxies = append(b.proxies, p)
	}
	return pinSelf(b.cfg.loadCPU)
}

// names are those of the proxies, Portico first.
func (b *bench) names() []string {
	names := []string{"portico"}
	if b.cfg.old != "" {
		names = append(names, "portico-old")
	}
	return append(names, b.cfg.peers...)
}

// raiseLimit lets this process and those it starts have enough files open. Where it may not,
// there are fewer idle connections: HAProxy and Portico count two files for each.
func (b *bench) raiseLimit() {
	var have syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have) != nil || have.Max >= openFiles {
		return
	}
	more := syscall.Rlimit{Cur: openFiles, Max: openFiles}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) != nil {
		b.cfg.idle = min(b.cfg.idle, int(have.Max)/2-200)
	}
}

// pinSelf keeps all threads of this program, which is the load, on one core.
func pinSelf(cpu int) error {
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, thread := range threads {
		tid := 0
		if _, err := fmt.Sscan(filepath.Base(thread), &tid); err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin to core %d: %w", cpu, err)
		}
	}
	return nil
}

func (b *bench) ownCPU() time.Duration {
	sum := time.Duration(0)
	for _, p := range b.started {
		sum += p.cpu().total()
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} { // children: the tools that have ended
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// round gives each proxy its turn, in another order each time.
func (b *bench) round(ctx context.Context, r *report, w workload, round int) {
	order := slices.Concat(b.proxies[round%len(b.proxies):], b.proxies[:round%len(b.proxies)])
	for _, p := range order {
		if ctx.Err() != nil {
			return
		}
		t := b.turn(ctx, w, p)
		if r.turns[w.name] == nil {
			r.turns[w.name] = map[string][]turn{}
		}
		r.turns[w.name][p.name] = append(r.turns[w.name][p.name], t)
		fmt.Fprintf(b.log, "round %d  %-12s  %-11s  %s\n", round+1, w.name, p.name, t)
	}
}

func (b *bench) turn(ctx context.Context, w workload, p *proxy) turn {
	if w.probe != nil {
		if err := w.probe(ctx, p); err != nil {
			return turn{err: err}
		}
	}
	before, begun := p.cpu(), time.Now()
	o, err := w.run(ctx, b, p)
	t := turn{outcome: o, cpu: p.cpu().sub(before), took: time.Since(begun), err: err}
	if err == nil && o.failed > o.requests/1000 {
		t.err = fmt.Errorf("%d of %d failed", o.failed, o.failed+o.requests)
	}
	return t
}

func (t turn) perRequest() float64 {
	return float64(t.cpu.total().Microseconds()) / float64(max(1, t.requests))
}

func (t turn) String() string {
	if t.err != nil {
		return t.err.Error()
	}
	s := fmt.Sprintf("%8.2f us (user %.2f)  %7.0f/s", t.perRequest(), float64(t.cpu.user.Microseconds())/float64(max(1, t.requests)), float64(t.requests)/t.took.Seconds())
	if len(t.latencies) > 0 {
		s += fmt.Sprintf("  p50 %v  p99 %v", percentile(t.latencies, 50), percentile(t.latencies, 99))
	}
	return s
}

func (b *bench) measureIdle(ctx context.Context, r *report) {
	for _, kind := range []string{idlePlain, idleTLS, idleH2} {
		if !b.cfg.wants(kind) {
			continue
		}
		r.idle[kind] = map[string]idleCost{}
		for _, name := range b.names() {
			if name == "haproxy+log" {
				continue // it holds nothing more than the one without
			}
			cost := b.idleCost(ctx, name, kind)
			r.idle[kind][name] = cost
			fmt.Fprintf(b.log, "%-12s  %-11s  %.1f KB  %v\n", kind, name, cost.kb, cost.err)
		}
	}
}

func (b *bench) close() {
	for _, p := range b.started {
		p.stop()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir) // it is in the folder for temporary files
	}
}
