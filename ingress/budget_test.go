//go:build !race

package ingress

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the process's, which goes on whoever else has the CPU.
func cpuTime() time.Duration {
	var at unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &at); err != nil {
		panic(err)
	}
	return time.Duration(at.Nano())
}

// The figures of the benchmarks, with room for a busy machine.
func TestBudgetCompile(t *testing.T) {
	store := bigStore(many)
	change, _ := store.Take()
	before := heap()
	start := cpuTime()
	c := compileAll(change)
	took := cpuTime() - start
	kept := int64(heap()) - int64(before)
	t.Logf("10,000 Ingresses compiled in %v, %d MB kept", took, kept>>20)
	if took > time.Second || kept > 60<<20 {
		t.Errorf("compiled in %v with %d MB kept, want under 1 s and 60 MB", took, kept>>20)
	}
	best := time.Hour
	for i := range 20 {
		store.Put(bigIngress(1, fmt.Sprintf("/v%d", i)))
		start := cpuTime()
		change, _ := store.Take()
		c.note(change)
		c.build()
		best = min(best, cpuTime()-start)
	}
	t.Logf("one changed in %v", best)
	if best > 2*time.Millisecond {
		t.Errorf("one change took %v at best, want under 2 ms", best)
	}
}
