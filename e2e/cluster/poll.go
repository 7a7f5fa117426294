package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// finalError ends a poll: trying again would not help.
type finalError struct{ err error }

func (e finalError) Error() string { return e.err.Error() }
func (e finalError) Unwrap() error { return e.err }

func final(err error) error { return finalError{err} }

// poll tries until try succeeds, says that it never will, or ctx is over; then
// the last try's error tells why.
func poll(ctx context.Context, every time.Duration, try func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[finalError](err); ok {
			return f.err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last try: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
