// Load sends requests at a steady rate until it is interrupted, and then writes
// what happened as JSON. Its one argument is the options, as JSON too: it is run
// by tests, on another host than theirs.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/portico-ingress/portico/e2e/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: load '{\"url\": \"http://172.30.0.11:30080/\", \"rate\": 100}'")
	}
	var o load.Options
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	if err := o.Validate(); err != nil {
		return err
	}
	fmt.Fprintln(stdout, load.Started)
	r, err := load.Run(ctx, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(r)
}
