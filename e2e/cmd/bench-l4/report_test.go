package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A goal that is missed is said to be; what was not measured has no line.
func TestReportTellsWhatIsMissed(t *testing.T) {
	r := &report{versions: []string{"here"}}
	r.switches.add("switch-10", kubeProxy, 16*time.Millisecond, 12*time.Millisecond, 31*time.Millisecond)
	r.switches.add("switch-10", portico, time.Millisecond, 26*time.Millisecond, 2*time.Millisecond)
	r.memory.add(kubeProxy, memory{567e6, 600e6})
	r.memory.add(portico, memory{150e6, 160e6})
	r.memoryStarted.add(portico, memory{140e6, 200e6}, memory{151e6, 190e6})
	r.connects.add("connect-10", portico, connects{100 * time.Microsecond, 110 * time.Microsecond})
	r.connects.add("connect-10", portico, connects{100 * time.Microsecond, 140 * time.Microsecond})
	r.connects.add("connect-10", portico, connects{200 * time.Microsecond, 240 * time.Microsecond})
	r.crashes = []time.Duration{800 * time.Millisecond, 1600 * time.Millisecond}
	r.moves = []moves{{100, 0, time.Millisecond}, {200, 1, time.Second}}
	got := r.markdown()
	for _, want := range []string{
		"- here\n",
		"| endpoint switch, 10 Services, p50 / max | 16.0 ms / 31.0 ms | **2.0 ms / 26.0 ms** | 8 / 25 ms, missed |\n",
		"| resident memory at 10,000 x 10 | 567 MB (peak 600) | **150 MB (peak 160)** | 150 MB, met |\n",
		"|  | **151 MB (peak 190)** | 150 MB, missed |\n",
		", 10 Services |  | **1.20 (140 us)** | 1.30, met |\n",
		"| - | **1.20 s / 1.60 s** | 1.50 s, missed |\n",
		"| - | **1 of 300, the longest took 1000 ms** | 0, missed |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, not := range []string{"2,000", "cold start", "CPU"} {
		if strings.Contains(got, not) {
			t.Errorf("%q was not measured:\n%s", not, got)
		}
	}
}

func TestTablesGoBetweenTheMarks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte("before\n"+marksBegin+"old\n"+marksEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeTables(file, "new\n"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if want := "before\n" + marksBegin + "new\n" + marksEnd + "after\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v; want %q", b, err, want)
	}
}

func TestBadFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-only switch-11", "want some of failover, switch-10"},
		{"-rounds 0", "must be positive"},
		{"-turn 0s", "must be positive"},
	} {
		var stderr strings.Builder
		if _, err := parseConfig(strings.Fields(c.args), &stderr); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.args, err, c.want)
		}
	}
}

// No two of the most Services that are made share an address, and none has the probe's.
func TestAddressesAreDistinct(t *testing.T) {
	seen := map[netip.Addr]bool{probed.Addr(): true}
	services := netip.MustParsePrefix("10.96.0.0/16")
	for i := range 20000 {
		ip := clusterIP(i)
		if seen[ip] || !services.Contains(ip) {
			t.Fatalf("Service %d: %s is taken, or outside of %s", i, ip, services)
		}
		seen[ip] = true
		for _, pod := range pods(i, 10) {
			if seen[pod] {
				t.Fatalf("Service %d: endpoint %s is taken", i, pod)
			}
			seen[pod] = true
		}
	}
}

func TestMarksFindsLinesAcrossWrites(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &marks{mark: []byte("Caches are synced"), file: f}
	for _, part := range []string{"I1 Waiting for caches to sync\nI2 Caches ", "are syn"} {
		if _, err := m.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if !m.when().IsZero() {
		t.Error("it has not been said yet")
	}
	if _, err := m.Write([]byte("ced\n")); err != nil {
		t.Fatal(err)
	}
	if m.when().IsZero() {
		t.Error("it has been said")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{4, 1}, 2.5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{9, 1, 4, 2}, 3},
	} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.of, got, c.want)
		}
	}
}
