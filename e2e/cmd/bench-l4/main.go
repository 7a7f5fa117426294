// Bench-l4 compares `portico svcproxy` with the real kube-proxy in nftables mode: on one machine,
// in one run, behind one API server, as two nodes of one cluster. It measures how long a changed
// endpoint takes until connections follow it, memory and CPU of many Services, cold starts, what
// connecting through a Service costs, and (Portico alone) how long a LoadBalancer address is away
// when its node dies.
//
//	bin/bench-l4 -only switch-10,memory -rounds 1
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench-l4:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parseConfig(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.timeout, fmt.Errorf("not done after %v; see -timeout and -only", cfg.timeout))
	defer cancel()
	report, err := measure(ctx, cfg, stderr)
	if report == nil {
		return err
	}
	text := report.markdown()
	if cfg.out != "" && err == nil {
		return writeTables(cfg.out, text)
	}
	_, writeErr := io.WriteString(stdout, text)
	return errors.Join(err, writeErr) // what there is of an interrupted run is worth seeing
}

// config is what the flags say.
type config struct {
	portico  string // the binary
	module   string // the folder of this module
	rounds   int
	switches int // of each turn
	connects int // of each turn
	turn     time.Duration
	patience time.Duration
	timeout  time.Duration
	only     []string
	alone    bool
	named    bool
	out      string
}

// measurements are what -only chooses from, in the order in which they are made.
var measurements = []string{
	"failover", "switch-10", "connect-10", "switch-200", "switch-2000", "connect-2000",
	"fill", "memory", "memory-started", "switch-10000", "cold-start", "connect-20000",
}

func parseConfig(args []string, stderr io.Writer) (config, error) {
	c, only := config{}, ""
	f := flag.NewFlagSet("bench-l4", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.portico, "portico", "bin/portico", "the `binary` to measure")
	f.StringVar(&c.module, "module", "e2e", "the `folder` of the module e2e, which pins kube-proxy and the control plane")
	f.IntVar(&c.rounds, "rounds", 3, "how often each of the two has its turn with each measurement")
	f.IntVar(&c.switches, "switches", 12, "how many endpoint switches a turn has")
	f.IntVar(&c.connects, "connects", 2000, "how many pairs of connections a turn has")
	f.DurationVar(&c.turn, "turn", 90*time.Second, "after how long a turn has no more switches")
	f.DurationVar(&c.patience, "patience", 10*time.Minute, "how long to wait for a state of the kernel")
	f.DurationVar(&c.timeout, "timeout", time.Hour, "how long everything may take")
	f.StringVar(&only, "only", "", "comma-separated `measurements` (default all): "+strings.Join(measurements, ", "))
	f.BoolVar(&c.alone, "alone", false, "without kube-proxy: only the column of Portico, whom nobody takes the CPU from then")
	f.BoolVar(&c.named, "named", false, "endpoints name their Pods, nodes and zones, as those that controllers write do")
	f.StringVar(&c.out, "out", "", "write the table into this `file`, between its two marks if it has them")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.only = strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	return c, c.validate()
}

func (c *config) validate() error {
	for _, name := range c.only {
		if !slices.Contains(measurements, name) {
			return fmt.Errorf("-only %s: want some of %s", name, strings.Join(measurements, ", "))
		}
	}
	if c.rounds < 1 || c.switches < 1 || c.connects < 1 || c.turn <= 0 || c.patience <= 0 || c.timeout <= 0 {
		return errors.New("-rounds, -switches, -connects, -turn, -patience and -timeout must be positive")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes network namespaces and writes nftables rules in them")
	}
	for _, path := range []*string{&c.portico, &c.module} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		if *path = abs; !exists(abs) {
			return fmt.Errorf("%s is not there; run make bench-l4 in the root of the repository", abs)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (c *config) wants(measurements ...string) bool {
	return len(c.only) == 0 || slices.ContainsFunc(measurements, func(m string) bool { return slices.Contains(c.only, m) })
}
