package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// paced asks at a fixed rate, whatever the answers do. A latency counts from the moment at
// which the request was due, not from the one at which it could be sent: a server that stands
// still for a moment is charged for all the requests that had to wait for it ("coordinated
// omission" is leaving them out).
//
//	one thread, on time ──► a slot that is free ──► request ... answer ──► latency, slot is free
type paced struct {
	free chan slot
	stop chan struct{}

	mu        sync.Mutex
	latencies []time.Duration
	failed    error
}

// slot is room for one request on a connection. send writes a request that was due at a
// time, and its answer is told to paced.answered.
type slot interface{ send(due time.Time) error }

// dialer makes a connection with its slots.
type dialer func(addr string, to *paced) (closer, error)

type closer interface{ Close() error }

// paced measures latency at the rate that the flags say.
func (b *bench) paced(ctx context.Context, addr string, connections int, dial dialer) (outcome, error) {
	p := &paced{free: make(chan slot, 16*connections), stop: make(chan struct{})}
	for range connections {
		c, err := dial(addr, p)
		if err != nil {
			return outcome{}, err
		}
		defer c.Close()
	}
	return p.run(ctx, b.cfg.rate, b.cfg.slice)
}

func (p *paced) run(ctx context.Context, rate int, d time.Duration) (outcome, error) {
	defer close(p.stop)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // without it sleeps are 50 us late
	n := int(float64(rate) * d.Seconds())
	begin := time.Now()
	late := time.NewTimer(d + 10*time.Second)
	defer late.Stop()
	for i := range n {
		due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
		sleepUntil(due)
		var s slot
		select {
		case s = <-p.free:
		default:
			select {
			case s = <-p.free:
			case <-late.C:
				return p.outcome(n), fmt.Errorf("the rate of %d a second cannot be held", rate)
			case <-ctx.Done():
				return outcome{}, ctx.Err()
			}
		}
		if err := s.send(due); err != nil {
			p.fail(err)
			break
		}
	}
	return p.wait(n)
}

// sleepUntil sleeps in the kernel: the timers of the runtime are a millisecond apart when it
// has nothing else to do.
func sleepUntil(due time.Time) {
	if left := time.Until(due); left > 0 {
		ts := unix.NsecToTimespec(left.Nanoseconds())
		_ = unix.Nanosleep(&ts, nil) // a signal makes one request early
	}
}

// wait waits for the last answers.
func (p *paced) wait(n int) (outcome, error) {
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
		p.mu.Lock()
		have, failed := len(p.latencies), p.failed
		p.mu.Unlock()
		if failed != nil {
			return outcome{}, failed
		}
		if have == n {
			return p.outcome(n), nil
		}
		<-time.After(time.Millisecond)
	}
	return p.outcome(n), errors.New("some requests were not answered")
}

func (p *paced) outcome(n int) outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return outcome{requests: len(p.latencies), failed: n - len(p.latencies), latencies: p.latencies}
}

func (p *paced) answered(s slot, due time.Time) {
	took := time.Since(due)
	p.mu.Lock()
	p.latencies = append(p.latencies, took)
	p.mu.Unlock()
	p.free <- s
}

func (p *paced) fail(err error) {
	select {
	case <-p.stop:
		return // its connections are being closed
	default:
	}
	p.mu.Lock()
	p.failed = err
	p.mu.Unlock()
}
