// Bench compares Portico with nginx, HAProxy and net/http's ReverseProxy on one machine, in
// one run: CPU per request, latency at a fixed rate, requests a second, memory of idle
// connections. It runs the real programs and imports nothing of the product.
//
//	go run ./bench -rounds 5 -only h1,h2
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is main. The program is also the backend and the reverse proxy of net/http, which it
// starts itself.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "backend":
			return serveBackend(args[1:])
		case "reverseproxy":
			return serveReverseProxy(args[1:])
		}
	}
	cfg, err := parseConfig(args, stderr)
	if err != nil {
		return err
	}
	debug.SetGCPercent(400) // the load shares its core with the backend
	b := &bench{cfg: cfg, log: stderr}
	defer b.close()
	report, err := b.run(ctx)
	if err != nil {
		return err
	}
	text := report.markdown()
	if cfg.out != "" {
		return writeTables(cfg.out, text)
	}
	_, err = io.WriteString(stdout, text)
	return err
}

// config is what the flags say.
type config struct {
	portico  string // the binary
	old      string // another one to compare with; empty: none
	rounds   int    // of each workload; figures are medians
	slice    time.Duration
	rate     int // requests a second of the latency workloads
	routes   int // that Portico has
	idle     int // connections
	settle   time.Duration
	only     []string
	peers    []string
	proxyCPU int
	loadCPU  int
	out      string
}

func parseConfig(args []string, stderr io.Writer) (config, error) {
	c, only, peers := config{}, "", ""
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.portico, "portico", "bin/portico", "the `binary` to measure")
	f.StringVar(&c.old, "portico-old", "", "an older `binary`, measured beside it")
	f.IntVar(&c.rounds, "rounds", 5, "how often each proxy has its turn with each workload")
	f.DurationVar(&c.slice, "duration", 2*time.Second, "how long a turn is")
	f.IntVar(&c.rate, "rate", 5000, "requests a second at which latency is measured")
	f.IntVar(&c.routes, "routes", 1000, "how many Ingresses Portico has")
	f.IntVar(&c.idle, "idle", 10000, "how many idle connections to hold")
	f.DurationVar(&c.settle, "settle", 6*time.Second, "how long they are idle before memory is looked at")
	f.StringVar(&only, "only", "", "comma-separated `workloads` (default all): "+strings.Join(workloadNames(), ", "))
	f.StringVar(&peers, "peers", "nginx,haproxy,haproxy+log,net/http", "comma-separated `proxies` to compare with, of nginx, haproxy, haproxy+log, net/http; empty: none")
	f.IntVar(&c.proxyCPU, "proxy-cpu", 0, "the core of the proxies")
	f.IntVar(&c.loadCPU, "load-cpu", min(1, runtime.NumCPU()-1), "the core of load and backend")
	f.StringVar(&c.out, "out", "", "write the tables into this `file`, between its two marks if it has them")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.only, c.peers = words(only), words(peers)
	return c, c.validate()
}

func (c *config) validate() error {
	for _, name := range c.only {
		if !slices.Contains(workloadNames(), name) {
			return fmt.Errorf("-only %s: want some of %s", name, strings.Join(workloadNames(), ", "))
		}
	}
	for _, name := range c.peers {
		if _, ok := peers[name]; !ok {
			return fmt.Errorf("-peers %s: want some of nginx, haproxy, haproxy+log, net/http", name)
		}
	}
	if c.rounds < 1 || c.slice < 100*time.Millisecond || c.rate < 1 || c.routes < 1 || c.idle < 1 {
		return errors.New("-rounds, -duration (from 100ms), -rate, -routes and -idle must be positive")
	}
	return nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

func (c *config) wants(workload string) bool {
	return len(c.only) == 0 || slices.Contains(c.only, workload)
}
