package router

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// watch is a clock that stands still while the machine does: what it says of the proxy is no
// fault of a machine that has others to serve.
type watch struct {
	mu             sync.Mutex
	began, last    time.Time
	still, longest time.Duration // for how long this process did not get on
	done, ended    chan struct{}
}

// beat is how often a watch looks whether time goes on.
const beat = 5 * time.Millisecond

func startWatch() *watch {
	now := time.Now()
	w := &watch{began: now, last: now, done: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for tick := time.NewTicker(beat); ; {
			select {
			case <-w.done:
				tick.Stop()
				return
			case <-tick.C:
				w.look()
			}
		}
	}()
	return w
}

// look is also for those who wake before the watch does.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if gap := now.Sub(w.last); gap > 2*beat {
		w.still += gap - beat
		w.longest = max(w.longest, gap)
	}
	w.last = now
}

// stop ends it, and returns what it has counted and the longest time for which it stood still.
func (w *watch) stop() (took, longest time.Duration) {
	w.look()
	close(w.done)
	<-w.ended
	return w.last.Sub(w.began) - w.still, w.longest
}

// steadily runs a test that has to keep pace with the proxy's clock: one that the machine has
// kept from it for longer than most shows nothing, and is done again.
func steadily(t *testing.T, most time.Duration, test func(t testing.TB)) {
	t.Helper()
	for try := 1; ; try++ {
		a := &attempt{TB: t}
		w := startWatch()
		a.run(test)
		switch _, longest := w.stop(); {
		case !a.failed:
			return
		case longest > most && try < 20:
			t.Logf("again, for the machine stood still for %v: %s", longest, a.said)
		default:
			t.Fatalf("the machine stood still for at most %v: %s", longest, a.said)
		}
	}
}

// attempt is a test that may fail.
type attempt struct {
	testing.TB
	mu       sync.Mutex
	failed   bool
	said     string
	cleanups []func()
}

func (a *attempt) run(test func(t testing.TB)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.cleanUp()
		test(a)
	}()
	<-done
}

// cleanUp goes on though one of them may end the goroutine.
func (a *attempt) cleanUp() {
	if len(a.cleanups) == 0 {
		return
	}
	last := a.cleanups[len(a.cleanups)-1]
	a.cleanups = a.cleanups[:len(a.cleanups)-1]
	defer a.cleanUp()
	last()
}

func (a *attempt) fail(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = true
	a.said += text + "; "
}

func (a *attempt) Cleanup(f func())                  { a.cleanups = append(a.cleanups, f) }
func (a *attempt) Error(args ...any)                 { a.fail(fmt.Sprint(args...)) }
func (a *attempt) Errorf(format string, args ...any) { a.fail(fmt.Sprintf(format, args...)) }
func (a *attempt) Fatal(args ...any)                 { a.fail(fmt.Sprint(args...)); runtime.Goexit() }

func (a *attempt) Fatalf(format string, args ...any) {
	a.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}
