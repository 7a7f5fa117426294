// Cluster boots the cluster of the end-to-end tests by hand, and works with it.
//
//	cluster up
//	cluster kubectl get pods -A -o wide
//	cluster exec client -- curl http://172.30.0.11:30080/
//	cluster load ../bin/portico.tar
//	cluster down
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/portico-ingress/portico/e2e/binaries"
	"github.com/portico-ingress/portico/e2e/cluster"
)

const usage = `usage: cluster [flags] COMMAND

  up                      boot the cluster, unless it is up already
  build                   only build what a cluster is made of, and keep it
  down                    end it and remove everything it was made of
  status                  tell which of its programs work
  kubectl ARGS...         run kubectl as the administrator
  exec HOST [--] CMD...   run a command on client, control, node1, node2 ...
  load IMAGE.tar...       give images to every node
  stop COMPONENT...       stop programs, such as kube-apiserver or node1/kubelet
  start COMPONENT...      start them again
  logs COMPONENT          print the name of a program's log file

flags:
`

func main() {
	// An interrupt at the terminal is also sent to the command that runs in
	// the cluster, so here it only must not kill us first.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	var exit *exec.ExitError
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := cluster.Config{Log: os.Stdout}
	fs := flag.NewFlagSet("cluster", flag.ContinueOnError)
	fs.StringVar(&cfg.Name, "name", "portico", "`name` of the cluster, to have several")
	fs.StringVar(&cfg.Dir, "dir", "", "`folder` of the cluster's state (default /var/lib/portico-e2e/NAME)")
	fs.IntVar(&cfg.Nodes, "nodes", 2, "`number` of nodes")
	fs.BoolVar(&cfg.IPv4Only, "ipv4-only", false, "leave IPv6 out")
	fs.BoolVar(&cfg.WithoutKubeProxy, "without-kube-proxy", false, "leave Services to something else")
	fs.StringVar(&cfg.Binaries.Cache, "cache", "", "`folder` of built programs (default portico-e2e in the user's cache folder)")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return flag.ErrHelp
	}
	if fs.NArg() == 0 {
		fs.Usage()
		return flag.ErrHelp
	}
	command, rest := fs.Arg(0), fs.Args()[1:]
	switch command {
	case "up":
		return up(ctx, cfg)
	case "build":
		_, err := binaries.Build(ctx, binaries.Options{Cache: cfg.Binaries.Cache, Log: os.Stdout})
		return err
	case "down":
		return cluster.Down(ctx, cfg)
	}
	c, err := cluster.Find(cfg)
	if err != nil {
		return err
	}
	switch command {
	case "status":
		return status(ctx, c)
	case "kubectl":
		return attach(ctx, c, cluster.ClientHost, append([]string{c.Program("kubectl")}, rest...))
	case "exec":
		if len(rest) > 1 && rest[1] == "--" {
			rest = append(rest[:1], rest[2:]...)
		}
		if len(rest) < 2 {
			return errors.New("exec wants a host and a command")
		}
		return attach(ctx, c, rest[0], rest[1:])
	case "load":
		return each(rest, func(file string) error {
			fmt.Println("loading", file)
			return c.LoadImage(ctx, file)
		})
	case "stop":
		return each(rest, func(name string) error { return c.Stop(ctx, name) })
	case "start":
		return each(rest, func(name string) error { return c.Start(ctx, name) })
	case "logs":
		return each(rest, func(name string) error {
			fmt.Println(c.Log(name))
			return nil
		})
	}
	return fmt.Errorf("no command %q; run it without one to see what there is", command)
}

func up(ctx context.Context, cfg cluster.Config) error {
	start := time.Now()
	c, err := cluster.Open(ctx, cfg)
	if err == nil {
		fmt.Println("the cluster is up already")
	} else {
		fmt.Printf("booting a cluster: %v\n", err)
		if c, err = cluster.Up(ctx, cfg); err != nil {
			return err
		}
		fmt.Printf("up after %s\n", time.Since(start).Round(100*time.Millisecond))
	}
	for _, n := range c.Nodes() {
		fmt.Println(" ", n, c.NodeIPs(n))
	}
	fmt.Println("  kubectl by:     go run ./cmd/cluster kubectl get nodes")
	fmt.Println("  as a client by: go run ./cmd/cluster exec client -- curl ...")
	fmt.Println("  logs in:       ", c.Logs())
	return nil
}

func status(ctx context.Context, c *cluster.Cluster) error {
	bad := 0
	for _, s := range c.Status(ctx) {
		if s.Err != nil {
			bad++
			fmt.Printf("%-26s %v\n", s.Component, s.Err)
		} else {
			fmt.Printf("%-26s works\n", s.Component)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d programs do not work; their logs are in %s", bad, c.Logs())
	}
	return nil
}

// attach runs a command on a host with our own terminal.
func attach(ctx context.Context, c *cluster.Cluster, host string, argv []string) error {
	cmd, err := c.Command(ctx, host, argv...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Asked to end, not killed: an interrupted command still tidies up.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

func each(args []string, do func(string) error) error {
	if len(args) == 0 {
		return errors.New("nothing named to do it with")
	}
	for _, a := range args {
		if filepath.Ext(a) == ".tar" {
			abs, err := filepath.Abs(a)
			if err != nil {
				return err
			}
			a = abs
		}
		if err := do(a); err != nil {
			return err
		}
	}
	return nil
}
