package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test is its own backend, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "backend" {
		if err := serveBackend(os.Args[2:]); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// What needs no program but Portico, in a few seconds: that it still starts with these
// manifests, and that the loads of this package understand it.
func TestPorticoAlone(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "portico")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "../cmd/portico")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out := filepath.Join(t.TempDir(), "out.md")
	var log bytes.Buffer
	err := run(t.Context(), []string{
		"-portico", binary, "-peers", "", "-rounds", "1", "-duration", "200ms", "-rate", "100", "-routes", "50", "-idle", "50", "-settle", "10ms",
		"-only", "handshake,h1-rate,tls-rate,h2-rate,idle,idle-tls,idle-h2", "-out", out,
	}, &log, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n| portico | **"); n != 4 {
		t.Errorf("%d workloads have figures, want 4:\n%s\n%s", n, text, &log)
	}
	if !strings.Contains(string(text), "### 50 idle connections") || strings.Contains(log.String(), "connection 0") {
		t.Errorf("idle connections have no figures:\n%s\n%s", text, &log)
	}
}

// stalling answers after it has stood still for a while once.
type stalling struct {
	to    *paced
	stall time.Duration
}

func (s *stalling) send(due time.Time) error {
	wait := s.stall
	s.stall = 0
	go func() {
		<-time.After(wait)
		s.to.answered(s, due)
	}()
	return nil
}

// A server that stands still is charged for those that waited to be asked, too.
func TestPacedCountsWaiting(t *testing.T) {
	p := &paced{free: make(chan slot, 1), stop: make(chan struct{})}
	p.free <- &stalling{to: p, stall: 500 * time.Millisecond}
	o, err := p.run(t.Context(), 100, time.Second)
	if err != nil || o.requests != 100 {
		t.Fatalf("%d requests, %v", o.requests, err)
	}
	late := 0
	for _, l := range o.latencies {
		if l > 100*time.Millisecond {
			late++
		}
	}
	if late < 35 { // of the 50 that were due while it stood still, those of its first 400 ms
		t.Errorf("%d requests were late, want those of the stall, 35 and more", late)
	}
}

func TestPercentileAndSpread(t *testing.T) {
	const us = time.Microsecond
	v := []time.Duration{5 * us, 1 * us, 4 * us, 2 * us, 3 * us}
	for p, want := range map[int]time.Duration{1: 1 * us, 20: 1 * us, 50: 3 * us, 99: 5 * us, 100: 5 * us} {
		if got := percentile(v, p); got != want {
			t.Errorf("percentile %d: %v, want %v", p, got, want)
		}
	}
	for _, c := range []struct {
		of   []float64
		want spread
	}{
		{nil, spread{}},
		{[]float64{2}, spread{2, 2, 2}},
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 3, 2}, spread{2.5, 1, 4}},
	} {
		if got := spreadOf(c.of); got != c.want {
			t.Errorf("%v: %v, want %v", c.of, got, c.want)
		}
	}
}

func TestToolsAreUnderstood(t *testing.T) {
	const wrk = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  123 requests in 2.00s, 1MB read\n  Non-2xx or 3xx responses: 5\n"
	if n := numbers(wrkTotal, wrk); n != 123 {
		t.Errorf("%d requests, want 123", n)
	}
	if n := numbers(wrkFailed, wrk) + numbers(wrkSockets, wrk); n != 15 {
		t.Errorf("%d failed, want 15", n)
	}
	const h2 = "requests: 75 total, 80 started, 75 done, 70 succeeded, 5 failed, 0 errored, 0 timeout\n"
	if m := h2Total.FindStringSubmatch(h2); m == nil || m[1] != "70" || m[2] != "5" {
		t.Errorf("h2load: %q, want 70 and 5", m)
	}
}

func TestTablesGoBetweenTheMarks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("before\n"+marksBegin+"old\n"+marksEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := writeTables(file, "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := os.ReadFile(file)
	if want := "before\n" + marksBegin + "new\n" + marksEnd + "after\n"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBackendAnswersPipelined(t *testing.T) {
	client, server := net.Pipe()
	go answerAll(server, []byte("small."), []byte("large."))
	go func() {
		_, _ = client.Write([]byte("GET / HTTP/1.1\r\n\r\nGET /1m HTTP/1.1\r\n\r\nGET /1mb HTTP/1.1\r\n\r\n"))
	}()
	got := make([]byte, 18)
	for n := 0; n < len(got); {
		m, err := client.Read(got[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if string(got) != "small.large.small." {
		t.Errorf("%q", got)
	}
	_ = client.Close()
}
