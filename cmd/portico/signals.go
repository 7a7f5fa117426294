package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signalContext ends at the first SIGTERM or SIGINT, which asks the program to drain. The
// second one ends the program at once: whoever presses Ctrl+C twice does not want to wait.
func signalContext(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	// Back to the default action of signals, which is to end the process.
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
