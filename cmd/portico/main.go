// Portico is a Kubernetes Ingress controller with its own HTTP proxy, in one program.
//
//	portico serve --demo              try it, without a cluster
//	portico serve --manifests DIR     serve a folder of Kubernetes YAML
//	portico serve                     serve the cluster that it runs in
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it could not go on
	exitUsage   = 2 // it was asked for something wrong: a flag, an argument, a file that a flag names
)

func main() {
	ctx, stop := signalContext(context.Background())
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program. Every error is one line on stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errAnswered) {
		return exitFailure
	}
	fmt.Fprintln(stderr, "portico:", oneLine(err))
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "portico",
		Short: "Kubernetes Ingress controller with its own HTTP proxy",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		// run prints errors, and nobody who mistypes a flag wants to read about all of them.
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newServeCommand(), newSvcproxyCommand(), newExplainCommand(), newVersionCommand())
	return root
}

// errAnswered is for a command whose answer, which is written already, is no.
var errAnswered = errors.New("no")

// usageError is an error of whoever wrote the command line.
type usageError struct{ error }

// Unwrap gives the reason.
func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// flagError says what is wrong with a flag the way this program says everything else.
func flagError(_ *cobra.Command, err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return wrongValue(invalid.GetFlag().Name, invalid.GetValue(), invalid.Unwrap())
	}
	return usageError{err}
}

// wrongValue reads `--http "foo": want host:port`.
func wrongValue(flag, value string, reason error) error {
	return usagef("--%s %q: %w", flag, value, reason)
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usagef("unknown command %q; `%s --help` lists them", args[0], cmd.CommandPath())
	}
	return usagef("%s takes no arguments, got %q", cmd.Name(), args[0])
}

func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}
