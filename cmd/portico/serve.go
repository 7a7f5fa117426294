package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/portico-ingress/portico/router"
)

func newServeCommand() *cobra.Command {
	flags := newServeFlags()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve Ingresses: of a cluster, of a folder, or of the demo",
		Example: `  portico serve --demo                     try it, without a cluster
  portico serve --manifests ./manifests    serve a folder of Kubernetes YAML, and follow it
  portico serve --kubeconfig ~/.kube/config`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.validate(); err != nil {
				return err
			}
			return serve(cmd.Context(), flags, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

// serve serves until ctx ends, and then drains. It takes everything it needs first, so that
// what is wrong is said at once.
func serve(ctx context.Context, flags *serveFlags, stdout, stderr io.Writer) error {
	log, err := newLog(stderr, flags.logLevel.value, flags.demo)
	if err != nil {
		return err
	}
	takeKlog(log)
	boundMemory(log)
	access, closeAccess, err := newAccessLog(flags.accessLog, stdout, stderr)
	if err != nil {
		return err
	}
	defer func() {
		if err := closeAccess(); err != nil {
			log.Warn("access log", zap.Error(err))
		}
	}()
	src, err := newSource(flags, log)
	if err != nil {
		return err
	}
	on, err := listen(ctx, flags)
	if err != nil {
		return err
	}
	defer on.close()
	if flags.demo {
		return serveDemo(ctx, flags, log, access, on, stdout)
	}
	p, err := newProcess(flags, log, access, src)
	if err != nil {
		return err
	}
	return p.run(ctx, on, func() {})
}

func serveDemo(ctx context.Context, flags *serveFlags, log *zap.Logger, access router.AccessLog, on *listeners, stdout io.Writer) error {
	d, err := startDemo(ctx, on.demoURLs())
	defer d.stop()
	if err != nil {
		return err
	}
	p, err := newProcess(flags, log, access, newFolder(d.dir, log))
	if err != nil {
		return err
	}
	return p.run(ctx, on, func() { d.tour(stdout) })
}
