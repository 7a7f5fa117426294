package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// tool runs a load of its own on the load's core. It gets a while longer than it should need.
func (b *bench) tool(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.slice+15*time.Second)
	defer cancel()
	args = append([]string{"-c", strconv.Itoa(b.cfg.loadCPU)}, args...)
	out, err := exec.CommandContext(ctx, "taskset", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %w\n%s", args, err, out)
	}
	return string(out), nil
}

var (
	wrkTotal   = regexp.MustCompile(`(\d+) requests in `)
	wrkFailed  = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkSockets = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	h2Total    = regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed`)
)

func (b *bench) wrk(ctx context.Context, connections int, url string) (outcome, error) {
	out, err := b.tool(ctx, "wrk", "-t1", "-c"+strconv.Itoa(connections), "-d"+duration(b.cfg.slice), url)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{requests: numbers(wrkTotal, out), failed: numbers(wrkFailed, out) + numbers(wrkSockets, out)}
	if o.requests == 0 {
		return o, fmt.Errorf("wrk: nothing was answered\n%s", out)
	}
	return o, nil
}

func (b *bench) h2load(ctx context.Context, url string, more ...string) (outcome, error) {
	args := append([]string{"h2load", "-t1", "-c16", "-m16", "-D", duration(b.cfg.slice), "--warm-up-time=0"}, more...)
	out, err := b.tool(ctx, append(args, url)...)
	if err != nil {
		return outcome{}, err
	}
	m := h2Total.FindStringSubmatch(out)
	if m == nil {
		return outcome{}, fmt.Errorf("h2load: cannot be understood\n%s", out)
	}
	o := outcome{}
	o.requests, _ = strconv.Atoi(m[1])
	o.failed, _ = strconv.Atoi(m[2])
	if o.requests == 0 {
		return o, fmt.Errorf("h2load: nothing was answered\n%s", out)
	}
	return o, nil
}

// duration as both tools want it: whole seconds, at least one.
func duration(d time.Duration) string {
	return strconv.Itoa(max(1, int(d.Round(time.Second)/time.Second)))
}

// numbers is the sum of what the groups of a pattern match.
func numbers(pattern *regexp.Regexp, s string) int {
	sum := 0
	if m := pattern.FindStringSubmatch(s); m != nil {
		for _, g := range m[1:] {
			n, _ := strconv.Atoi(g)
			sum += n
		}
	}
	return sum
}
