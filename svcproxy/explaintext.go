package svcproxy

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

// Write gives an Explanation for people: the verdict first, then how it came to it.
func (e *Explanation) Write(w io.Writer) error {
	var b strings.Builder
	p := e.Packet
	fmt.Fprintf(&b, "%s -> %s/%s on node %s: %s, %s\n", p.From, p.To, p.Protocol, e.Node, strings.ToUpper(string(e.Verdict)), e.Why)
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-14s %s\n", name, printable(text))
		}
	}
	line("to", e.Frontend)
	line("source ranges", e.SourceRanges)
	line("policy", e.TrafficPolicy)
	line("affinity", e.Affinity)
	line("masquerade", e.Masquerade)
	for i, end := range e.Endpoints {
		name := ""
		if i == 0 {
			name = "endpoints"
		}
		line(name, end.text())
	}
	for _, n := range e.Notes {
		line("note", n)
	}
	line(cmp.Or(e.Kernel.Plane, "kernel"), e.Kernel.Text)
	for _, d := range e.Kernel.Differences {
		line("", "- "+d)
	}
	if e.Kernel.Remembered != "" {
		line("", "remembers that the client had "+e.Kernel.Remembered)
	}
	for _, m := range e.Kernel.Elements {
		line("", m)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (e *ExplainedEndpoint) text() string {
	mark, where := "no ", ""
	if e.Used {
		mark = "yes"
	}
	if e.Pod != "" {
		where += " Pod " + e.Pod
	}
	if e.Node != "" {
		where += " on " + e.Node
	}
	return fmt.Sprintf("%s %s%s: %s", mark, e.Address, where, e.Why)
}

// printable keeps what a Pod's status says from writing to the terminal what it likes.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
