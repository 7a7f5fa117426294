package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// by are figures of each candidate.
type by[T any] map[string][]T

func (m *by[T]) add(candidate string, v ...T) {
	if *m == nil {
		*m = by[T]{}
	}
	(*m)[candidate] = append((*m)[candidate], v...)
}

// byWhat are figures of each measurement and candidate.
type byWhat[T any] map[string]by[T]

func (m *byWhat[T]) add(what, candidate string, v ...T) {
	if *m == nil {
		*m = byWhat[T]{}
	}
	one := (*m)[what]
	one.add(candidate, v...)
	(*m)[what] = one
}

type (
	// connects are medians of one turn.
	connects struct{ directly, through time.Duration }
	// memory is in bytes.
	memory struct{ resident, peak int64 }
	// coldStart is how long a program read the cluster, and then how long until it served.
	coldStart struct{ read, serve time.Duration }
	// moves are connections while an address was moved.
	moves struct {
		connections, failed int
		longest             time.Duration
	}
)

// report is all that was seen.
type report struct {
	cfg             config
	versions        []string
	begun           time.Time
	took            time.Duration
	load, loadAfter float64
	before, after   machineTime

	switches byWhat[time.Duration]
	connects byWhat[connects]
	fill     by[float64] // seconds of CPU of each step
	filled   int         // Services
	memory   by[memory]
	// memoryStarted is that of programs that were started when all Services were there.
	memoryStarted by[memory]
	colds         by[coldStart]
	crashes       []time.Duration
	moves         []moves
}

// median is the value in the middle, or what lies between the two that are.
func median[T time.Duration | float64](v []T) T {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	below, above := v[(len(v)-1)/2], v[len(v)/2]
	return below + (above-below)/2
}

func longest(v []time.Duration) time.Duration {
	if len(v) == 0 {
		return 0
	}
	return slices.Max(v)
}

// row is one line of the table. A cell is empty where nothing was measured.
type row struct {
	what, kubeProxy, portico string
	goal                     string
	met                      bool
}

// none is a cell of what a program does not do.
const none = "-"

func (r *report) rows() []row {
	var rows []row
	for _, s := range []struct {
		measurement, what string
		p50, most         time.Duration
	}{
		{"switch-10", "endpoint switch, 10 Services, p50 / max", 8 * time.Millisecond, 25 * time.Millisecond},
		{"switch-200", "the same, 200 Services x 10 endpoints", 8 * time.Millisecond, 25 * time.Millisecond},
		{"switch-2000", "the same, 2,000 x 10", 10 * time.Millisecond, 50 * time.Millisecond},
		{"switch-10000", "the same, 10,000 x 10", 15 * time.Millisecond, 100 * time.Millisecond},
	} {
		took := r.switches[s.measurement]
		rows = append(rows, row{
			s.what, switchCell(took[kubeProxy]), switchCell(took[portico]),
			fmt.Sprintf("%d / %d ms", s.p50.Milliseconds(), s.most.Milliseconds()),
			median(took[portico]) <= s.p50 && longest(took[portico]) <= s.most,
		})
	}
	rows = append(rows,
		memoryRow("resident memory at 10,000 x 10", r.memory),
		memoryRow("the same, of a program that is started among them", r.memoryStarted))
	if r.filled == running[len(running)-1].services {
		rows = append(rows, row{
			"CPU seconds for the fill of 10,000 x 10", fillCell(r.fill[kubeProxy]), fillCell(r.fill[portico]), "5 s", sum(r.fill[portico]) <= 5,
		})
	}
	rows = append(rows, r.coldRows()...)
	rows = append(rows, r.connectRows()...)
	return append(rows, r.failoverRows()...)
}

func switchCell(took []time.Duration) string {
	if len(took) == 0 {
		return ""
	}
	return fmt.Sprintf("%s / %s", milliseconds(median(took)), milliseconds(longest(took)))
}

func milliseconds(d time.Duration) string {
	ms := float64(d.Microseconds()) / 1000
	if ms >= 100 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

// memoryRow has the worst that was seen.
func memoryRow(what string, m by[memory]) row {
	const megabyte, goal = 1e6, 150
	cell := func(name string) (text string, met bool) {
		if len(m[name]) == 0 {
			return "", false
		}
		most := slices.MaxFunc(m[name], func(a, b memory) int { return cmp.Compare(a.resident, b.resident) })
		return fmt.Sprintf("%.0f MB (peak %.0f)", float64(most.resident)/megabyte, float64(most.peak)/megabyte), most.resident <= goal*megabyte
	}
	theirs, _ := cell(kubeProxy)
	ours, met := cell(portico)
	return row{what, theirs, ours, fmt.Sprintf("%d MB", goal), met}
}

func sum(v []float64) (s float64) {
	for _, one := range v {
		s += one
	}
	return s
}

func fillCell(steps []float64) string {
	if len(steps) == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f s", sum(steps))
}

func (r *report) coldRows() []row {
	column := func(v []coldStart, get func(coldStart) time.Duration) []time.Duration {
		var all []time.Duration
		for _, c := range v {
			all = append(all, get(c))
		}
		return all
	}
	serve := func(c coldStart) time.Duration { return c.serve }
	whole := func(c coldStart) time.Duration { return c.read + c.serve }
	goal := 1500 * time.Millisecond
	ours := column(r.colds[portico], serve)
	return []row{
		{
			"cold start at 20,000 x 2, empty kernel: from caches synced until it serves, p50 / max",
			secondsCell(column(r.colds[kubeProxy], serve)), secondsCell(ours), seconds(goal), median(ours) <= goal,
		},
		{
			"the same, from the start of the process",
			secondsCell(column(r.colds[kubeProxy], whole)), secondsCell(column(r.colds[portico], whole)), none, true,
		},
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func secondsCell(v []time.Duration) string {
	if len(v) == 0 {
		return ""
	}
	return seconds(median(v)) + " / " + seconds(longest(v))
}

func (r *report) connectRows() []row {
	const goal = 1.3
	var rows []row
	for _, c := range []struct{ measurement, services string }{{"connect-10", "10"}, {"connect-2000", "2,000"}, {"connect-20000", "20,000"}} {
		ours := r.connects[c.measurement][portico]
		ratio, _ := ratioOf(ours)
		rows = append(rows, row{
			"connect() through a Service over connect() directly, p50, " + c.services + " Services",
			connectCell(r.connects[c.measurement][kubeProxy]), connectCell(ours), fmt.Sprintf("%.2f", goal), ratio <= goal+0.005,
		})
	}
	return rows
}

// ratioOf is the median of the rounds' ratios, and of the time through the Service.
func ratioOf(v []connects) (ratio float64, through time.Duration) {
	var ratios []float64
	var times []time.Duration
	for _, c := range v {
		ratios = append(ratios, float64(c.through)/float64(max(1, c.directly)))
		times = append(times, c.through)
	}
	return median(ratios), median(times)
}

func connectCell(v []connects) string {
	if len(v) == 0 {
		return ""
	}
	ratio, through := ratioOf(v)
	return fmt.Sprintf("%.2f (%d us)", ratio, through.Microseconds())
}

func (r *report) failoverRows() []row {
	var all moves
	for _, m := range r.moves {
		all.connections += m.connections
		all.failed += m.failed
		all.longest = max(all.longest, m.longest)
	}
	crash, moved := "", ""
	if len(r.crashes) > 0 {
		crash = secondsCell(r.crashes)
	}
	if len(r.moves) > 0 {
		moved = fmt.Sprintf("%d of %d, the longest took %s", all.failed, all.connections, milliseconds(all.longest))
	}
	goal := 1500 * time.Millisecond
	return []row{
		{"L2 failover: node without power until the client's next connection, p50 / max", none, crash, seconds(goal), longest(r.crashes) <= goal},
		{"L2, svcproxy stopped in order: connections that failed", none, moved, "0", all.failed == 0},
	}
}

func (r *report) markdown() string {
	var b strings.Builder
	for _, v := range r.versions {
		fmt.Fprintf(&b, "- %s\n", v)
	}
	steal := float64(r.after.steal-r.before.steal) / float64(max(1, r.after.all-r.before.all))
	if r.cfg.named {
		b.WriteString("- endpoints name their Pods, nodes and zones\n")
	}
	fmt.Fprintf(&b, "- %d rounds of %d switches and %d pairs of connections, %v in all; load average %.1f before and %.1f after, the hypervisor took %.1f%%\n\n",
		r.cfg.rounds, r.cfg.switches, r.cfg.connects, r.took.Round(time.Second), r.load, r.loadAfter, 100*steal)
	b.WriteString("| | kube-proxy | Portico | goal of Portico |\n|---|---|---|---|\n")
	for _, row := range r.rows() {
		if row.portico == "" && (row.kubeProxy == "" || row.kubeProxy == none) {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | **%s** | %s |\n", row.what, row.kubeProxy, row.portico, row.verdict())
	}
	b.WriteString("\n")
	return b.String()
}

func (r row) verdict() string {
	switch {
	case r.goal == none || r.portico == "":
		return r.goal
	case r.met:
		return r.goal + ", met"
	}
	return r.goal + ", missed"
}

// Marks between which a document has the table.
const (
	marksBegin = "<!-- figures -->\n"
	marksEnd   = "<!-- end of figures -->\n"
)

// writeTables leaves what is around the table as it is.
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
