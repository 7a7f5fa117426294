package annotation

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

const (
	tableBegin = "<!-- table -->\n"
	tableEnd   = "<!-- end of the table -->\n"
)

// The manual has every annotation, as the registry has it.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatal("no table in README.md")
	}
	want := before + tableBegin + manual() + tableEnd + after
	if *update {
		if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(b) {
		t.Error("README.md differs from the registry; go test ./ingress/annotation -update")
	}
}

func manual() string {
	var b strings.Builder
	b.WriteString("| annotation | nginx | default | |\n|---|---|---|---|\n")
	for _, a := range All() {
		nginx := ""
		for _, key := range a.Keys {
			if strings.HasPrefix(key, NginxPrefix) {
				nginx = "yes"
			}
		}
		standing := ""
		if a.Default != "" {
			standing = "`" + a.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", strings.TrimPrefix(a.Keys[0], Prefix), nginx, standing, a.Help)
	}
	return b.String()
}
