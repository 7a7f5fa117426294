package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
)

func newServeCommand() *cobra.Command {
	flags := newServeFlags()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve Ingresses: of the cluster it runs in, of another one, of a folder, or of the demo",
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

func serve(ctx context.Context, flags *serveFlags, stdout, stderr io.Writer) error {
	return errors.New("not yet")
}
