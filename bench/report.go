package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// report is all that was seen.
type report struct {
	cfg             config
	versions        []string
	proxies         []string
	turns           map[string]map[string][]turn // by workload and proxy
	idle            map[string]map[string]idleCost
	took            time.Duration
	load, loadAfter float64
	others          float64 // cores that other programs used
	steal           float64 // share of time that the hypervisor took
}

// spread is the median of some figures with the least and the greatest.
type spread struct{ median, least, most float64 }

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	v = slices.Sorted(slices.Values(v))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (v[len(v)/2-1] + m) / 2
	}
	return spread{m, v[0], v[len(v)-1]}
}

// percentile is the least value that p of a hundred are not above.
func percentile(v []time.Duration, p int) time.Duration {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[max(0, (len(v)*p+99)/100-1)].Round(time.Microsecond)
}

// row is one proxy at one workload.
type row struct {
	cpu, user, rate, p50, p99 spread
	err                       error
}

func rowOf(turns []turn) row {
	r := row{}
	var cpu, user, rate, p50, p99 []float64
	for _, t := range turns {
		if t.err != nil {
			r.err = t.err
			continue
		}
		cpu = append(cpu, t.perRequest())
		user = append(user, float64(t.cpu.user)/float64(max(1, t.cpu.total())))
		rate = append(rate, float64(t.requests)/t.took.Seconds())
		p50 = append(p50, float64(percentile(t.latencies, 50).Microseconds()))
		p99 = append(p99, float64(percentile(t.latencies, 99).Microseconds()))
	}
	r.cpu, r.user, r.rate, r.p50, r.p99 = spreadOf(cpu), spreadOf(user), spreadOf(rate), spreadOf(p50), spreadOf(p99)
	if len(cpu) > 0 {
		r.err = nil
	}
	return r
}

// ratios are those of each round by itself: what disturbed one proxy in it disturbed its
// neighbour, too.
func ratios(of, to []turn) spread {
	var v []float64
	for i := range min(len(of), len(to)) {
		if of[i].err == nil && to[i].err == nil && to[i].cpu.total() > 0 {
			v = append(v, of[i].perRequest()/to[i].perRequest())
		}
	}
	return spreadOf(v)
}

func (r *report) markdown() string {
	var b strings.Builder
	for _, v := range r.versions {
		fmt.Fprintf(&b, "- %s\n", v)
	}
	fmt.Fprintf(&b, "- Medians of %d rounds of %v (least to greatest in brackets), %v in all; %d routes; load average %.1f before and %.1f after, other programs used %.2f cores meanwhile, the hypervisor %.1f%%\n\n",
		r.cfg.rounds, r.cfg.slice, r.took.Round(time.Second), r.cfg.routes, r.load, r.loadAfter, r.others, 100*r.steal)
	r.summary(&b)
	for _, w := range workloads {
		if r.turns[w.name] != nil {
			r.workload(&b, w)
		}
	}
	r.idleTable(&b)
	return b.String()
}

// summary has what people look for first: Portico's CPU as a ratio to that of others.
func (r *report) summary(b *strings.Builder) {
	b.WriteString("| CPU per request, Portico / other | " + strings.Join(r.comparedWith(), " | ") + " |\n|---|" + strings.Repeat("---|", len(r.comparedWith())) + "\n")
	for _, w := range workloads {
		turns := r.turns[w.name]
		if turns == nil {
			continue
		}
		fmt.Fprintf(b, "| %s |", w.title)
		for _, other := range r.comparedWith() {
			goal := map[string]float64{"nginx": w.goals.nginx, "haproxy": w.goals.haproxy}[other]
			fmt.Fprintf(b, " %s |", ratioCell(ratios(turns["portico"], turns[other]), goal))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

func (r *report) comparedWith() []string {
	return slices.DeleteFunc(slices.Clone(r.proxies), func(name string) bool { return name == "portico" })
}

func ratioCell(s spread, goal float64) string {
	switch {
	case s.median == 0:
		return "-"
	case goal == 0:
		return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median, s.least, s.most)
	}
	verdict := "met"
	if s.median > goal+0.005 {
		verdict = "missed"
	}
	return fmt.Sprintf("**%.2f** (%.2f-%.2f), goal %.2f %s", s.median, s.least, s.most, goal, verdict)
}

func (r *report) workload(b *strings.Builder, w workload) {
	paced := strings.HasSuffix(w.name, "-rate")
	title := w.title
	if paced {
		title += fmt.Sprintf(", %d a second", r.cfg.rate)
	}
	fmt.Fprintf(b, "### %s\n\n| | CPU us per %s | of it user | %ss/s |", title, w.unit, w.unit)
	if paced {
		b.WriteString(" p50 us | p99 us |")
	}
	b.WriteString("\n|---|---|---|---|" + map[bool]string{true: "---|---|"}[paced] + "\n")
	for _, name := range r.proxies {
		row := rowOf(r.turns[w.name][name])
		if row.err != nil {
			text, _, _ := strings.Cut(row.err.Error(), "\n")
			fmt.Fprintf(b, "| %s | %s | | |%s\n", name, text, map[bool]string{true: " | |"}[paced])
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %.0f%% | %.0f |", name, cell(row.cpu), 100*row.user.median, row.rate.median)
		if paced {
			fmt.Fprintf(b, " %.0f (%.0f-%.0f) | %.0f (%.0f-%.0f) |", row.p50.median, row.p50.least, row.p50.most, row.p99.median, row.p99.least, row.p99.most)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

func cell(s spread) string { return fmt.Sprintf("**%.1f** (%.1f-%.1f)", s.median, s.least, s.most) }

func (r *report) idleTable(b *strings.Builder) {
	if len(r.idle) == 0 {
		return
	}
	fmt.Fprintf(b, "### %d idle connections, resident KB each\n\n| | plain | TLS 1.3 | HTTP/2 over TLS 1.3 |\n|---|---|---|---|\n", r.cfg.idle)
	for _, name := range r.proxies {
		if name == "haproxy+log" {
			continue // as without
		}
		fmt.Fprintf(b, "| %s |", name)
		for _, kind := range []string{idlePlain, idleTLS, idleH2} {
			cost, ok := r.idle[kind][name]
			switch {
			case !ok:
				b.WriteString(" - |")
			case cost.err != nil:
				text, _, _ := strings.Cut(cost.err.Error(), "\n")
				fmt.Fprintf(b, " %s |", text)
			default:
				fmt.Fprintf(b, " %.1f |", cost.kb)
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// Marks between which a document has the tables.
const (
	marksBegin = "<!-- figures -->\n"
	marksEnd   = "<!-- end of figures -->\n"
)

// writeTables leaves what is around the tables as it is.
func writeTables(file, text string) error {
	have, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	head, rest, begins := strings.Cut(string(have), marksBegin)
	if _, tail, ends := strings.Cut(rest, marksEnd); begins && ends {
		text = head + marksBegin + text + marksEnd + tail
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
